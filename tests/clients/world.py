"""A Tollgate for the tests: starts it, sets it up through the admin API, and stops it.

Clients come from 127.0.0.2 or 127.0.0.3, proxies from 127.0.0.1, which is the one trusted proxy: so a caller and a
proxy are never mistaken for each other.
"""

import base64
import dataclasses
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.parse

CALLER = "127.0.0.2"
OFFICE = "127.0.0.3"
PROXY = "127.0.0.1"

# The longest time to wait for anything. No test sleeps this long.
PATIENCE_SECS = 20


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def until(what, is_so, patience_secs=PATIENCE_SECS):
    """Waits for an event by looking for it."""
    end = time.monotonic() + patience_secs
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {patience_secs:.0f} s"
        time.sleep(0.02)


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Program:
    """A program in a process group of its own, with its output in a file, that listens on a port once it is up."""

    def __init__(self, name, command, directory, port, env=None):
        self.log = pathlib.Path(directory) / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=directory, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        self.name = name
        try:
            until(f"{name} listens", lambda: self.is_running() and accepts(port))
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.log.read_text(errors='replace')[-4000:]}") from None

    def is_running(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}"
        return True

    def stop(self):
        try:
            self.process.terminate()
            self.process.wait(PATIENCE_SECS)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        # Its child processes have ended as well.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


@dataclasses.dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name):
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def header(self, name):
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in {self}"
        return values[0]

    def json(self):
        return json.loads(self.body)


def call(base, method, path, headers=(), body=None, source=CALLER):
    """One request, from the address `source`. Headers are pairs, so that one name can be sent twice."""
    where = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(
        where.hostname, where.port, timeout=PATIENCE_SECS, source_address=(source, 0))
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in [*headers, ("Connection", "close")]:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        return Answer(reply.status, reply.getheaders(), reply.read())
    finally:
        connection.close()


@dataclasses.dataclass
class Client:
    """An API key and, with Enhanced Security, a client of it."""

    merchant_id: str
    key_id: str
    key: str
    client_id: str = ""
    client_secret: str = ""


class World:
    """The running server, and what an operator does with it."""

    def __init__(self, binary, directory):
        self.binary = binary
        self.directory = directory
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        added = subprocess.run(
            [binary, "operator", "add", "Tests", "--json", "--data-dir", self.directory / "data"],
            check=True, capture_output=True, text=True, env=self.environment())
        self.operator = json.loads(added.stdout)
        self.server = None

    def environment(self, **settings):
        # Remove settings for another Tollgate from the environment.
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("TOLLGATE__") and name != "DATABASE_URL"}
        return env | {f"TOLLGATE__{name}": value for name, value in settings.items()}

    def start(self, **settings):
        self.server = Program(
            "tollgate", [self.binary, "serve", "--data-dir", self.directory / "data", "--listen", f"127.0.0.1:{self.port}"],
            self.directory, self.port,
            self.environment(
                SERVER__ISSUER=self.issuer,
                SERVER__TRUSTED_PROXIES=PROXY,
                LIMITS__FAILURES_PER_ADDRESS_PER_MINUTE="1000000",
                **settings))

    def stop(self):
        if self.server is not None:
            self.server.stop()
            assert self.server.process.returncode == 0, self.server.log.read_text()[-4000:]
            self.server = None

    def kill(self):
        """kill -9: it gets no chance to finish anything."""
        self.server.kill()
        self.server = None

    def admin(self, method, path, body=None):
        answer = call(
            self.issuer, method, f"/admin/v1{path}",
            [("Authorization", f"Bearer {self.operator['token']}"), ("Content-Type", "application/json")],
            b"" if body is None else json.dumps(body).encode())
        assert 200 <= answer.status < 300, answer
        return answer.json() if answer.body else None

    def merchant(self, name, gateway="demo_gateway"):
        made = self.admin("POST", "/merchants", {"name": name, "gateway": gateway})
        for product in ["api_keys", "enhanced_security"]:
            self.admin("PUT", f"/merchants/{made['id']}/licences/{product}", {"active": True})
        return made["id"]

    def plain_key(self, merchant_id, **settings):
        made = self.admin(
            "POST", f"/merchants/{merchant_id}/api-keys", {"name": "Till", "environment": "sandbox", **settings})
        return Client(merchant_id, made["id"], made["key"])

    def client(self, merchant_id, **settings):
        """A key with Enhanced Security ON."""
        client = self.plain_key(merchant_id, **settings)
        made = self.admin("POST", f"/api-keys/{client.key_id}/credentials")
        self.admin("PATCH", f"/credentials/{made['client_id']}", {"enabled": True})
        return dataclasses.replace(client, client_id=made["client_id"], client_secret=made["client_secret"])

    def service_token(self):
        return self.admin("POST", "/tokens", {"name": "Gateway", "role": "operator", "permissions": ["introspect"]})

    def post(self, path, client, source=CALLER, **fields):
        fields |= {"client_id": client.client_id, "client_secret": client.client_secret}
        return call(
            self.issuer, "POST", path,
            [("X-API-KEY", client.key), ("Content-Type", "application/x-www-form-urlencoded")],
            urllib.parse.urlencode(fields).encode(), source)

    def tokens(self, client, source=CALLER):
        answer = self.post("/api/authorize", client, source)
        assert answer.status == 200, answer
        return answer.json()

    def revoke(self, client, token):
        assert self.post("/api/revoke", client, token=token).status == 200

    def is_active(self, token, service):
        answer = call(
            self.issuer, "POST", "/api/introspect",
            [basic(service["id"], service["token"]), ("Content-Type", "application/x-www-form-urlencoded")],
            urllib.parse.urlencode({"token": token}).encode())
        assert answer.status == 200, answer
        return answer.json()["active"]


def basic(user, password):
    return "Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
