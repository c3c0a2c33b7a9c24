"""The real proxies, each started from its own example in config/proxies with nothing changed but ports and paths."""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import sys
import threading

from world import Program, call, free_port, until

EXAMPLES = pathlib.Path(__file__).parents[2] / "config" / "proxies"
MODULES = pathlib.Path("/usr/lib/apache2/modules")

# Of the examples.
TOLLGATE, API = "127.0.0.1:8080", "127.0.0.1:9000"

NGINX_MAIN = """
{user}
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {example};
}}
"""

APACHE_MAIN = """
ServerRoot {directory}
ServerName 127.0.0.1
PidFile {directory}/apache.pid
DefaultRuntimeDir {directory}
ErrorLog /dev/stderr
{user}
{modules}
Include {example}
"""
# What `a2enmod lua proxy_http` of the example brings, and what Debian has on anyway.
APACHE_MODULES = ["mpm_event", "authz_core", "lua", "proxy", "proxy_http"]


def example(name, directory, changes):
    """Copies an example with its ports and paths changed. What is to be changed must be there."""
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} does not have {old!r}"
        text = text.replace(old, new)
    path = directory / name
    path.write_text(text)
    return path


class Proxy:
    """One running proxy. `base` is where callers reach it."""

    def __init__(self, directory, tollgate_port, api_port):
        self.directory = directory
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.tollgate = {TOLLGATE: f"127.0.0.1:{tollgate_port}"}
        self.api = {API: f"127.0.0.1:{api_port}"}
        self.program = Program(type(self).__name__.lower(), self.command(), directory, self.port)
        try:
            # Traefik listens before it has its routes.
            until(f"{self.program.name} is ready", lambda: call(self.base, "GET", "/").status != 404)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.program.stop()


class Nginx(Proxy):
    def command(self):
        changes = self.tollgate | self.api | {"listen 8000;": f"listen 127.0.0.1:{self.port};"}
        user = "user root;" if os.getuid() == 0 else ""
        main = self.directory / "main.conf"
        main.write_text(NGINX_MAIN.format(
            directory=self.directory, user=user, example=example("nginx.conf", self.directory, changes)))
        return [found("nginx"), "-p", self.directory, "-e", "stderr", "-c", main]


class Apache(Proxy):
    def command(self):
        script = example("apache-tollgate.lua", self.directory, self.tollgate)
        site = example("apache.conf", self.directory, self.api | {
            "Listen 8000": f"Listen 127.0.0.1:{self.port}",
            "*:8000": f"127.0.0.1:{self.port}",
            "/etc/apache2/apache-tollgate.lua": str(script),
        })
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in APACHE_MODULES)
        user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
        main = self.directory / "main.conf"
        main.write_text(APACHE_MAIN.format(directory=self.directory, user=user, modules=modules, example=site))
        return [found("apache2"), "-f", main, "-DFOREGROUND"]


class Caddy(Proxy):
    def command(self):
        caddyfile = example("Caddyfile", self.directory, self.tollgate | self.api | {
            "http://:8000 {": f"http://:{self.port} {{\n\tbind 127.0.0.1",
            # Nothing is to be reached, or written outside, while testing.
            "{\n\t# If there is": "{\n\tadmin off\n\tpersist_config off\n\t# If there is",
        })
        return [found("caddy"), "run", "--adapter", "caddyfile", "--config", caddyfile]


class Traefik(Proxy):
    def command(self):
        dynamic = example("traefik-dynamic.yml", self.directory, self.tollgate | self.api)
        static = example("traefik.yml", self.directory, {
            '":8000"': f'"127.0.0.1:{self.port}"',
            "/etc/traefik/traefik-dynamic.yml": str(dynamic),
        })
        return [found("traefik"), f"--configFile={static}"]


class Envoy(Proxy):
    def command(self):
        port = {"{ address: 0.0.0.0, port_value: 8000 }": f"{{ address: 127.0.0.1, port_value: {self.port} }}"}
        address = "address: 127.0.0.1, port_value: "
        moved = {
            old.replace("127.0.0.1:", address): new.replace("127.0.0.1:", address)
            for old, new in (self.tollgate | self.api).items()
        }
        config = example("envoy.yaml", self.directory, port | moved | self.tollgate)
        return [found("envoy"), "--config-path", config, "--use-dynamic-base-id", "--concurrency", "1",
                "--log-level", "warning"]


class Haproxy(Proxy):
    def command(self):
        script = example("haproxy-tollgate.lua", self.directory, self.tollgate)
        config = example("haproxy.cfg", self.directory, self.api | {
            "bind :8000": f"bind 127.0.0.1:{self.port}",
            "/etc/haproxy/haproxy-tollgate.lua": str(script),
        })
        return [found("haproxy"), "-db", "-f", config]


ALL = [Nginx, Apache, Caddy, Traefik, Envoy, Haproxy]


def found(name):
    """A program of the virtual environment, or one of the system, whose servers are not on everybody's PATH."""
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    program = shutil.which(name, path=path)
    assert program is not None, f"{name} is not installed"
    return program


class Api:
    """The API behind the proxies: answers with what it saw, and with status 500 under /broken."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def switched(self):
                """What follows an upgrade is sent back as it came."""
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                # RFC 6455 4.2.2: HAProxy looks whether it fits.
                key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
                self.send_header("Sec-WebSocket-Accept", accept)
                self.end_headers()
                self.close_connection = True
                while data := self.connection.recv(4096):
                    self.wfile.write(data)

            def answer(self):
                if self.headers.get("Upgrade", "").lower() == "websocket":
                    return self.switched()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = {"method": self.command, "path": self.path, "headers": self.headers.items(),
                        "body": body.decode()}
                text = json.dumps(seen).encode()
                self.send_response(500 if self.path == "/broken" else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
