"""The real proxies, each started with its example in config/proxies. Only ports and paths are changed."""

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

# The ports in the examples.
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
# The modules that `a2enmod lua proxy_http` enables, and those that Debian enables by default.
APACHE_MODULES = ["mpm_event", "authz_core", "lua", "proxy", "proxy_http"]


def example(name, directory, changes, more=None):
    """Copies an example with its ports and paths changed. What is to be changed must be there. `more` is changed
    first, in the example as it is shipped."""
    text = (EXAMPLES / name).read_text()
    for old, new in [*(more or {}).items(), *changes.items()]:
        assert old in text, f"{name} does not have {old!r}"
        text = text.replace(old, new)
    path = directory / name
    path.write_text(text)
    return path


def nginx_for_grpc():
    """In the one location that leads to the API, every `proxy_` is a `grpc_`, and there is no upgrade."""
    text = (EXAMPLES / "nginx.conf").read_text()
    first, last = "        proxy_set_header X-Merchant-Id", "proxy_pass http://api;"
    block = text[text.index(first):text.index(last) + len(last)]
    lines = [line for line in block.splitlines()
             if not any(word in line for word in ["proxy_http_version", "Upgrade", "Connection"])]
    return {block: "\n".join(lines).replace("proxy_", "grpc_").replace("http://api", "grpc://api")}


class Proxy:
    """One running proxy. `base` is where callers reach it."""

    # The changes for an API that uses gRPC without TLS, as the comments in the example describe them.
    GRPC = {}

    def __init__(self, directory, tollgate_port, api_port, more=None):
        self.more = more
        self.directory = directory
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.tollgate = {TOLLGATE: f"127.0.0.1:{tollgate_port}"}
        self.api = {API: f"127.0.0.1:{api_port}"}
        self.program = Program(type(self).__name__.lower(), self.command(), directory, self.port)
        if more is self.GRPC:
            # This port may accept only HTTP/2.
            return
        try:
            # Traefik listens before its routes are loaded.
            until(f"{self.program.name} is ready", lambda: call(self.base, "GET", "/").status != 404)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.program.stop()

    @staticmethod
    def idle(_divisor):
        """What divides the time for which it keeps a spare connection to Tollgate, where its example sets one."""
        return {}


class Nginx(Proxy):
    GRPC = nginx_for_grpc() | {"listen 8000;": "listen 8000 http2;"}

    @staticmethod
    def idle(divisor):
        return {"keepalive_timeout 60s;": f"keepalive_timeout {60_000 / divisor:.0f}ms;"}

    def command(self):
        changes = self.tollgate | self.api | {"listen 8000": f"listen 127.0.0.1:{self.port}"}
        user = "user root;" if os.getuid() == 0 else ""
        main = self.directory / "main.conf"
        main.write_text(NGINX_MAIN.format(
            directory=self.directory, user=user, example=example("nginx.conf", self.directory, changes, self.more)))
        return [found("nginx"), "-p", self.directory, "-e", "stderr", "-c", main]


class Apache(Proxy):
    GRPC = {
        "\nListen 8000": f"\nLoadModule http2_module {MODULES}/mod_http2.so\n"
                       f"LoadModule proxy_http2_module {MODULES}/mod_proxy_http2.so\nListen 8000",
        '    ProxyPass "/" "http://127.0.0.1:9000/" upgrade=websocket':
            '    Protocols h2 h2c http/1.1\n    ProxyPass "/" "h2c://127.0.0.1:9000/"',
    }

    def command(self):
        script = example("apache-tollgate.lua", self.directory, self.tollgate)
        site = example("apache.conf", self.directory, self.api | {
            "Listen 8000": f"Listen 127.0.0.1:{self.port}",
            "*:8000": f"127.0.0.1:{self.port}",
            "/etc/apache2/apache-tollgate.lua": str(script),
        }, self.more)
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in APACHE_MODULES)
        user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
        main = self.directory / "main.conf"
        main.write_text(APACHE_MAIN.format(directory=self.directory, user=user, modules=modules, example=site))
        return [found("apache2"), "-f", main, "-DFOREGROUND"]


class Caddy(Proxy):
    GRPC = {
        "reverse_proxy 127.0.0.1:9000": "reverse_proxy h2c://127.0.0.1:9000",
        "\t# servers {\n\t# \tprotocols h1 h2c\n\t# }": "\tservers {\n\t\tprotocols h1 h2c\n\t}",
    }

    @staticmethod
    def idle(divisor):
        return {"keepalive 60s": f"keepalive {60_000 / divisor:.0f}ms"}

    def command(self):
        caddyfile = example("Caddyfile", self.directory, self.tollgate | self.api | {
            "http://:8000 {": f"http://:{self.port} {{\n\tbind 127.0.0.1",
            # During tests, it must not call other hosts or write elsewhere.
            "{\n\t# If there is": "{\n\tadmin off\n\tpersist_config off\n\t# If there is",
        }, self.more)
        return [found("caddy"), "run", "--adapter", "caddyfile", "--config", caddyfile]


class Traefik(Proxy):
    GRPC = {"url: http://127.0.0.1:9000": "url: h2c://127.0.0.1:9000"}

    def command(self):
        dynamic = example("traefik-dynamic.yml", self.directory, self.tollgate | self.api, self.more)
        static = example("traefik.yml", self.directory, {
            '":8000"': f'"127.0.0.1:{self.port}"',
            "/etc/traefik/traefik-dynamic.yml": str(dynamic),
        })
        return [found("traefik"), f"--configFile={static}"]


class Envoy(Proxy):
    GRPC = {f"      # {line}\n": f"      {line}\n" for line in [
        "typed_extension_protocol_options:",
        "  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:",
        '    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        "    explicit_http_config: { http2_protocol_options: {} }",
    ]}

    @staticmethod
    def idle(divisor):
        return {"idle_timeout: 60s": f"idle_timeout: {60 / divisor:.3f}s"}

    def command(self):
        port = {"{ address: 0.0.0.0, port_value: 8000 }": f"{{ address: 127.0.0.1, port_value: {self.port} }}"}
        address = "address: 127.0.0.1, port_value: "
        moved = {
            old.replace("127.0.0.1:", address): new.replace("127.0.0.1:", address)
            for old, new in (self.tollgate | self.api).items()
        }
        config = example("envoy.yaml", self.directory, port | moved | self.tollgate, self.more)
        return [found("envoy"), "--config-path", config, "--use-dynamic-base-id", "--concurrency", "1",
                "--log-level", "warning"]


class Haproxy(Proxy):
    GRPC = {"server api 127.0.0.1:9000": "server api 127.0.0.1:9000 proto h2"}

    def command(self):
        script = example("haproxy-tollgate.lua", self.directory, self.tollgate)
        config = example("haproxy.cfg", self.directory, self.api | {
            "bind :8000": f"bind 127.0.0.1:{self.port}",
            "/etc/haproxy/haproxy-tollgate.lua": str(script),
        }, self.more)
        return [found("haproxy"), "-db", "-f", config]


ALL = [Nginx, Apache, Caddy, Traefik, Envoy, Haproxy]


def started(kind, directory, name, tollgate_port, api_port, more=None):
    """A proxy in a directory of its own."""
    own = directory / f"{kind.__name__.lower()}-{name}"
    own.mkdir()
    own.chmod(0o755)
    return kind(own, tollgate_port, api_port, more)


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
                # RFC 6455 4.2.2: HAProxy checks this value.
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

        class Server(http.server.ThreadingHTTPServer):
            # The queue of connections that wait to be accepted. The default is 5.
            request_queue_size = 512

            def handle_error(self, *_):
                """A proxy that ends resets its connections."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
