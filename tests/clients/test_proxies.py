"""The same tests for every proxy: which calls get through, and which headers the API gets."""

import contextlib
import fcntl
import os
import socket

import pytest

import proxies
from world import CALLER, OFFICE, World, call, until

IDENTITY = ["x-merchant-id", "x-api-key-id", "x-client-id", "x-environment", "x-token-expires", "x-scopes"]


@pytest.fixture(scope="module")
def api():
    running = proxies.Api()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=proxies.ALL, ids=lambda kind: kind.__name__.lower())
def proxy(request, shop, api, directory):
    running = proxies.started(request.param, directory, "whole", shop.world.port, api.port)
    yield running
    running.stop()


def key(client):
    return "X-API-KEY", client.key


def get(proxy, *headers, source=CALLER, path="/orders/7?open=1"):
    return call(proxy.base, "GET", path, headers, source=source)


def seen(answer):
    """What the API saw of a call that got through: its headers by name, each with all its values."""
    assert answer.status == 200, answer
    headers = {}
    for name, value in answer.json()["headers"]:
        headers.setdefault(name.lower(), []).append(value)
    return headers


def refused(answer, status, error):
    """Held to the contract: the status, its own JSON body, a challenge, an id, and nothing to be cached."""
    assert answer.status == status, answer
    body = answer.json()
    assert (body["httpStatus"], body["error"], body["status"]["statusCode"]) == (False, error, status)
    assert body["request_id"] == answer.header("X-Request-Id")
    assert "no-store" in answer.header("Cache-Control")
    if status == 401:
        assert answer.header("WWW-Authenticate").startswith("Bearer ")


def test_key_and_fresh_token_pass_and_the_api_is_told_who_calls(proxy, shop):
    token = shop.world.tokens(shop.merchant)
    for credentials in [("ACCESS-TOKEN", token["access_token"]), ("Authorization", f"Bearer {token['access_token']}")]:
        answer = get(proxy, key(shop.merchant), credentials)
        headers = seen(answer)
        assert headers["x-merchant-id"] == [shop.merchant.merchant_id]
        assert headers["x-api-key-id"] == [shop.merchant.key_id]
        assert headers["x-client-id"] == [shop.merchant.client_id]
        assert headers["x-environment"] == ["sandbox"]
        assert headers["x-token-expires"][0].endswith("Z")
        assert answer.json()["path"] == "/orders/7?open=1"


def test_the_api_gets_the_call_whole_but_not_the_credentials(proxy, shop):
    token = shop.world.tokens(shop.merchant)["access_token"]
    body = b'{"amount": 12}' * 1000
    answer = call(
        proxy.base, "POST", "/orders", [key(shop.merchant), ("ACCESS-TOKEN", token), ("X-Own", "kept")], body)
    headers = seen(answer)
    assert (answer.json()["method"], answer.json()["body"]) == ("POST", body.decode())
    assert headers["x-own"] == ["kept"]
    assert not headers.keys() & {"x-api-key", "access-token"}


def test_a_key_without_enhanced_security_passes_alone(proxy, shop):
    headers = seen(get(proxy, key(shop.plain)))
    assert headers["x-merchant-id"] == [shop.plain.merchant_id]
    assert headers.get("x-client-id", [""]) == [""]
    assert headers.get("x-token-expires", [""]) == [""]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_every_method_is_judged(proxy, shop, method):
    refused(call(proxy.base, method, "/orders"), 401, "invalid_client")
    answer = call(proxy.base, method, "/orders", [key(shop.plain)])
    seen(answer)
    assert answer.json()["method"] == method


def test_no_credentials(proxy):
    answer = get(proxy)
    refused(answer, 401, "invalid_client")
    # A call without credentials gets a challenge without an error (RFC 6750 3.1).
    assert answer.header("WWW-Authenticate") == 'Bearer realm="tollgate"'


def test_a_body_does_not_hinder_a_refusal(proxy):
    refused(call(proxy.base, "POST", "/orders", body=b"x" * 20_000), 401, "invalid_client")


def test_bad_keys(proxy, shop):
    for bad in ["0" * 64, shop.plain.key[:-1], shop.plain.key.upper(), "", "'; drop table"]:
        refused(get(proxy, ("X-API-KEY", bad)), 401, "invalid_client")


def test_a_key_sent_twice(proxy, shop):
    refused(get(proxy, key(shop.plain), key(shop.plain)), 401, "invalid_client")
    refused(get(proxy, ("X-API-KEY", "0" * 64), key(shop.plain)), 401, "invalid_client")


def test_enhanced_security_asks_for_a_token(proxy, shop):
    refused(get(proxy, key(shop.merchant)), 401, "invalid_grant")


def test_bad_tokens(proxy, shop):
    token = shop.world.tokens(shop.merchant)
    last = "A" if token["access_token"][-1] != "A" else "E"
    bad_ones = {
        "junk": "junk",
        "forged": token["access_token"][:-1] + last,
        "a refresh token": token["refresh_token"],
        "of another client": shop.world.tokens(shop.foreign)["access_token"],
    }
    for bad in bad_ones.values():
        refused(get(proxy, key(shop.merchant), ("ACCESS-TOKEN", bad)), 401, "invalid_grant")


def test_an_expired_token(proxy, shop):
    refused(get(proxy, key(shop.merchant), ("ACCESS-TOKEN", shop.expired)), 401, "invalid_grant")


def test_after_revocation_the_next_request_is_401(proxy, shop):
    token = shop.world.tokens(shop.merchant)
    credentials = [key(shop.merchant), ("ACCESS-TOKEN", token["access_token"])]
    seen(get(proxy, *credentials))
    shop.world.revoke(shop.merchant, token["refresh_token"])
    refused(get(proxy, *credentials), 401, "invalid_grant")


def test_after_the_key_is_revoked_the_next_request_is_401(proxy, shop):
    client = shop.world.plain_key(shop.merchant.merchant_id)
    seen(get(proxy, key(client)))
    shop.world.admin("DELETE", f"/api-keys/{client.key_id}")
    refused(get(proxy, key(client)), 401, "invalid_client")


def test_a_client_that_may_not_any_more_is_told_403(proxy, shop):
    client = shop.world.client(shop.world.merchant("Lapsed"))
    credentials = [key(client), ("ACCESS-TOKEN", shop.world.tokens(client)["access_token"])]
    seen(get(proxy, *credentials))
    shop.world.admin("PUT", f"/merchants/{client.merchant_id}/licences/enhanced_security", {"active": False})
    refused(get(proxy, *credentials), 403, "unauthorized_client")


def test_the_allow_list_holds_for_the_callers_address(proxy, shop):
    token = shop.world.tokens(shop.office, source=OFFICE)["access_token"]
    for credentials in [[key(shop.office_plain)], [key(shop.office), ("ACCESS-TOKEN", token)]]:
        seen(get(proxy, *credentials, source=OFFICE))
        refused(get(proxy, *credentials, source=CALLER), 401, "invalid_client")


@pytest.mark.parametrize("claim", [
    [("X-Forwarded-For", OFFICE)],
    [("X-Forwarded-For", f"{OFFICE}, 127.0.0.1")],
    [("X-Forwarded-For", f"127.0.0.1, {OFFICE}")],
    [("X-Forwarded-For", OFFICE), ("X-Forwarded-For", OFFICE)],
    [("X-Forwarded-For", ""), ("X-Forwarded-For", OFFICE)],
    [("x-forwarded-for", OFFICE), ("X-Real-IP", OFFICE), ("True-Client-IP", OFFICE), ("CF-Connecting-IP", OFFICE)],
    [("X_Forwarded_For", OFFICE)],
    [("Forwarded", f"for={OFFICE}")],
    [("Connection", "X-Forwarded-For"), ("X-Forwarded-For", OFFICE)],
    [("Connection", "X-Forwarded-For")],
], ids=lambda claim: "+".join(f"{name}={value}" for name, value in claim))
def test_no_caller_talks_itself_onto_the_allow_list(proxy, shop, claim):
    # A caller cannot pretend to be the proxy either.
    for client in [shop.office_plain, shop.proxy_plain]:
        answer = get(proxy, key(client), *claim)
        if isinstance(proxy, proxies.Envoy) and claim[0][0] == "Connection":
            assert answer.status == 400, answer
        else:
            refused(answer, 401, "invalid_client")


def test_a_claim_does_not_lock_out_who_is_on_the_list(proxy, shop):
    seen(get(proxy, key(shop.office_plain), ("X-Forwarded-For", "6.6.6.6"), source=OFFICE))


def test_the_api_can_believe_the_last_forwarded_address(proxy, shop):
    headers = seen(get(proxy, key(shop.plain), ("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6")))
    assert ",".join(headers["x-forwarded-for"]).split(",")[-1].strip() == CALLER
    assert "forwarded" not in headers


@pytest.mark.parametrize("change", [str.lower, str.title, str.upper, lambda name: name.replace("-", "_"),
                                    lambda name: "_".join(name.rsplit("-", 1))],
                         ids=["lower", "title", "upper", "underscores", "last_underscore"])
def test_identity_from_outside_is_overwritten(proxy, shop, change):
    spoofed = [(change(name), "spoofed") for name in IDENTITY]
    for twice in [spoofed, spoofed + spoofed]:
        # This call has no client and no token. Empty headers must overwrite the caller's as well.
        headers = seen(get(proxy, key(shop.plain), *twice))
        assert headers["x-merchant-id"] == [shop.plain.merchant_id]
        told = {name: values for name, values in headers.items() if name.replace("_", "-") in IDENTITY}
        assert not [name for name, values in told.items() if "spoofed" in "".join(values)], told


@pytest.mark.parametrize("kept", ["close", "keep-alive"])
def test_identity_cannot_be_dropped_as_hop_by_hop(proxy, shop, kept):
    """`Connection` names headers that a proxy must not pass on (RFC 9110 7.6.1): not those that Tollgate set."""
    for name in IDENTITY[:2]:
        for connection in [name, f"{kept}, {name.upper()}", f"{name},{kept}"]:
            answer = get(proxy, key(shop.plain), ("Connection", connection), (name, "spoofed"))
            assert seen(answer)[name] in ([shop.plain.merchant_id], [shop.plain.key_id])


def test_paths_that_look_like_ours_are_the_apis(proxy, shop):
    for path in ["/api/verify", "/_tollgate/verify", "/_tollgate/refusal", "//", "/a/../b", "/%2e%2e/x", "/?a=%00"]:
        assert get(proxy, path=path).status in (400, 401, 404), path


def raw(proxy, target, *headers):
    """A call as it is typed, and its open connection."""
    connection = socket.create_connection(("127.0.0.1", proxy.port), 20, source_address=(CALLER, 0))
    lines = [f"{name}: {value}" for name, value in headers]
    connection.sendall("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode())
    return connection, int(connection.recv(4096)[9:12])


@pytest.mark.parametrize("query", ["amount>10", 'filter={"state":"open"}', "q=<a>"])
def test_a_query_that_is_no_uri_changes_nothing(proxy, shop, query):
    for own, status in [(key(shop.plain), 200), (("X-API-KEY", "0" * 64), 401)]:
        connection, answered = raw(proxy, f"/orders?{query}", own, ("Connection", "close"))
        connection.close()
        assert answered == status


def test_a_websocket_is_opened_for_a_good_key_alone(proxy, shop):
    wish = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    connection, status = raw(proxy, "/live", ("X-API-KEY", "0" * 64), *wish)
    connection.close()
    assert status == 401
    connection, status = raw(proxy, "/live", key(shop.plain), *wish)
    with connection:
        assert status == 101
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_a_failure_of_the_api_is_its_own(proxy, shop):
    answer = get(proxy, key(shop.plain), path="/broken")
    assert answer.status == 500
    assert answer.json()["path"] == "/broken"


def test_exchanges_have_the_callers_address(proxy, shop):
    """The merchant sees in API details from where it was called, not the proxy."""
    def addresses():
        items = shop.world.admin("GET", f"/merchants/{shop.office.merchant_id}/exchanges?limit=5")["items"]
        return [item["client_ip"] for item in items if item["api_key_id"] == shop.office_plain.key_id]
    seen(get(proxy, key(shop.office_plain), source=OFFICE))
    until("the exchange is on record", lambda: OFFICE in addresses()[:1])


@pytest.fixture(params=proxies.ALL, ids=lambda kind: kind.__name__.lower())
def lonely(request, directory, api):
    """A proxy and a Tollgate that are about to lose each other, and a key."""
    own = directory / f"lonely-{request.param.__name__.lower()}"
    own.mkdir()
    own.chmod(0o711)
    world = World(os.environ["TOLLGATE_BINARY"], own)
    running = None
    try:
        world.start(DATABASE__TIMEOUT_SECS="1")
        client = world.plain_key(world.merchant("Corner shop"))
        running = proxies.started(request.param, directory, "lonely", world.port, api.port)
        yield running, world, client
    finally:
        if running is not None:
            running.stop()
        world.stop()


@contextlib.contextmanager
def nobody_may_read(world):
    """Holds the locks of SQLite's readers (the bytes 120 to 127 of the WAL index): the store does not answer."""
    with (world.directory / "data" / "tollgate.db-shm").open("r+b") as index:
        fcntl.lockf(index, fcntl.LOCK_EX, 8, 120)
        yield


def test_without_tollgate_or_its_store_nobody_gets_through(lonely):
    proxy, world, client = lonely
    seen(get(proxy, key(client)))

    with nobody_may_read(world):
        answer = get(proxy, key(client))
        assert answer.status == 503, answer
        if isinstance(proxy, proxies.Envoy):
            assert answer.body == b""
        else:
            assert answer.json()["error"] == "temporarily_unavailable"
            assert answer.header("Retry-After") == "1"

    # It works again without a restart.
    until("the store answers again", lambda: get(proxy, key(client)).status == 200)

    world.stop()
    answer = get(proxy, key(client))
    # Traefik has no setting for this and answers an empty 500.
    assert answer.status == (500 if isinstance(proxy, proxies.Traefik) else 503), answer
