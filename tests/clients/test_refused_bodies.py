"""Calls that are refused before their body was read: the answer arrives, and the next call on the connection works.

curl sends over one connection, plain and TLS, HTTP/1.1 and HTTP/2; Node through an agent that keeps its connections.
"""

import os
import pathlib
import subprocess

import pytest

from world import PATIENCE_SECS, Program, free_port

NODE = pathlib.Path(os.environ["TOLLGATE_CLIENTS_CACHE"]) / "node"

# Less and more than the limit up to which the rest of a body is read and dropped.
SIZES = {"small": 20_000, "medium": 200_000, "large": 8_000_000}

REFUSED = [("/api/authorize", "401"), ("/api/nothing", "404"), ("/healthz", "405"), ("/api/verify", "401")]


@pytest.fixture(scope="module")
def secure(shop):
    """A Tollgate that speaks TLS."""
    directory, port = shop.world.directory, free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", "tls.key", "-out", "tls.pem"],
        cwd=directory, check=True, capture_output=True, timeout=PATIENCE_SECS)
    server = Program(
        "tollgate-tls", [shop.world.binary, "serve", "--data-dir", directory / "tls", "--listen", f"127.0.0.1:{port}"],
        directory, port,
        shop.world.environment(
            SERVER__TLS_CERTIFICATE_FILE=str(directory / "tls.pem"), SERVER__TLS_KEY_FILE=str(directory / "tls.key")))
    yield f"https://127.0.0.1:{port}"
    server.stop()


def curl(calls):
    """The status and the number of new connections of each call, over as few connections as curl makes."""
    command = ["curl"]
    for options in calls:
        command += [*options, "-sS", "-k", "-o", os.devnull, "-w", "%{http_code} %{num_connects}\n", "--next"]
    ended = subprocess.run(command[:-1], capture_output=True, text=True, timeout=PATIENCE_SECS * 3)
    assert ended.returncode == 0, ended.stderr
    return [tuple(line.split()) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_over_one_connection(secure, directory, version, size):
    body = directory / f"{size}.body"
    body.write_bytes(b"a" * SIZES[size])
    calls, expected = [], []
    for path, status in REFUSED * 3:
        calls += [[version, "--data-binary", f"@{body}", secure + path], [version, f"{secure}/healthz"]]
        expected += [status, "200"]
    answers = curl(calls)
    assert [status for status, _ in answers] == expected
    # Over HTTP/1.1, curl closes the connection if an answer comes before it has sent the body.
    if size == "small" or version == "--http2":
        assert sum(int(connects) for _, connects in answers) == 1


@pytest.mark.parametrize("size", SIZES)
def test_curl_over_http2_in_clear(shop, directory, size):
    body = directory / f"{size}.body"
    body.write_bytes(b"a" * SIZES[size])
    for path, status in REFUSED * 3:
        # One at a time, because curl 7.88 does not reuse such a connection.
        assert curl([["--http2-prior-knowledge", "--data-binary", f"@{body}", shop.world.issuer + path]]) == [(status, "1")]


@pytest.mark.parametrize("scheme", ["plain", "tls"])
@pytest.mark.parametrize("version", ["http1.1", "http2"])
def test_a_client_that_waits_to_be_asked_for_its_body(shop, secure, directory, version, scheme):
    base = secure if scheme == "tls" else shop.world.issuer
    option = "--http2-prior-knowledge" if (version, scheme) == ("http2", "plain") else f"--{version}"
    body = directory / "waiting.body"
    body.write_bytes(b"a" * SIZES["large"])
    # It waits much longer than the whole call may take.
    waits = [option, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "--max-time", "10"]
    # These are refused without the body, so nobody waits.
    for path, status in REFUSED:
        assert curl([[*waits, "--data-binary", f"@{body}", base + path]]) == [(status, "1")]


@pytest.mark.parametrize("version, patience", [("--http1.1", "60"), ("--http2-prior-knowledge", "0.3")])
def test_a_body_that_is_waited_for_is_read(shop, version, patience):
    """Over HTTP/2 hyper asks for no body, so the client sends it in the end of its own accord (RFC 9110 10.1.1)."""
    good = [version, "-H", "Expect: 100-continue", "--expect100-timeout", patience, "--max-time", "10",
            "-H", f"X-API-KEY: {shop.merchant.key}", "-d", f"client_id={shop.merchant.client_id}",
            "-d", f"client_secret={shop.merchant.client_secret}", f"{shop.world.issuer}/api/authorize"]
    assert curl([good]) == [("200", "1")]


def test_keep_alive_node_agent(shop):
    ended = subprocess.run(
        ["node", NODE / "keepalive.mjs"], capture_output=True, text=True, timeout=PATIENCE_SECS * 3,
        env=os.environ | {"ISSUER": shop.world.issuer, "API_KEY": shop.plain.key})
    assert ended.returncode == 0, ended.stdout + ended.stderr
