"""Standard OAuth clients. They get only the issuer, their credentials and the header for every call.

Endpoints come from the metadata document alone (RFC 8414). Each client takes the whole life of a session: grant,
introspection, refresh, revocation, and the answers after it; by every way of authenticating that is advertised.
"""

import os
import pathlib
import subprocess

import authlib.integrations.base_client
import oauthlib.oauth2
import pytest
import requests
import requests_oauthlib
from authlib.integrations.requests_client import OAuth2Session
from requests.auth import HTTPBasicAuth

from world import PATIENCE_SECS, call

BY_CLIENTS = ["client_secret_basic", "client_secret_post"]
BY_SERVICES = ["service_token_bearer", "service_token_basic"]

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ["TOLLGATE_CLIENTS_CACHE"])


@pytest.fixture(scope="module")
def metadata(shop):
    # RFC 8414 3: its URL follows from the issuer.
    answer = requests.get(f"{shop.world.issuer}/.well-known/oauth-authorization-server", timeout=PATIENCE_SECS)
    assert answer.status_code == 200
    document = answer.json()
    assert document["issuer"] == shop.world.issuer
    return document


def passes(shop, access_token):
    headers = [("X-API-KEY", shop.merchant.key), ("Authorization", f"Bearer {access_token}")]
    return call(shop.world.issuer, "GET", "/api/verify", headers).status == 200


def test_every_advertised_method_is_tried_here(metadata):
    assert metadata["token_endpoint_auth_methods_supported"] == BY_CLIENTS
    assert metadata["revocation_endpoint_auth_methods_supported"] == BY_CLIENTS
    assert metadata["introspection_endpoint_auth_methods_supported"] == [*BY_CLIENTS, "Bearer"]
    assert metadata["grant_types_supported"] == ["client_credentials", "refresh_token"]
    assert metadata["response_types_supported"] == []


@pytest.mark.parametrize("method", BY_CLIENTS)
def test_authlib(shop, metadata, method):
    session = OAuth2Session(
        shop.merchant.client_id, shop.merchant.client_secret,
        token_endpoint_auth_method=method, revocation_endpoint_auth_method=method, **metadata)
    session.headers["X-API-KEY"] = shop.merchant.key

    def introspect(token, hint):
        answer = session.introspect_token(metadata["introspection_endpoint"], token, hint)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = dict(session.fetch_token(grant_type="client_credentials"))
    assert first["expires_in"] == 3600
    active = introspect(first["access_token"], "access_token")
    assert (active["active"], active["client_id"], active["iss"]) == (True, shop.merchant.client_id, metadata["issuer"])
    assert passes(shop, first["access_token"])

    second = dict(session.refresh_token())
    assert second["refresh_token"] != first["refresh_token"]
    assert introspect(second["refresh_token"], "refresh_token")["active"]

    # The hint is wrong, but it is only a hint.
    assert session.revoke_token(
        metadata["revocation_endpoint"], second["refresh_token"], "access_token").status_code == 200
    for token in [*first.values(), *second.values()]:
        if isinstance(token, str) and token not in ("Bearer", first["expire_time"], second["expire_time"]):
            assert introspect(token, None) == {"active": False}
    assert not passes(shop, second["access_token"])
    with pytest.raises(authlib.integrations.base_client.OAuthError, match="^invalid_grant"):
        session.refresh_token()


@pytest.mark.parametrize("method", BY_CLIENTS)
def test_authlib_hears_of_a_wrong_secret(shop, metadata, method):
    session = OAuth2Session(shop.merchant.client_id, "wrong", token_endpoint_auth_method=method, **metadata)
    session.headers["X-API-KEY"] = shop.merchant.key
    with pytest.raises(authlib.integrations.base_client.OAuthError, match="^invalid_client"):
        session.fetch_token(grant_type="client_credentials")


@pytest.mark.parametrize("method", BY_CLIENTS)
def test_requests_oauthlib(shop, metadata, method, monkeypatch):
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    own = {"client_id": shop.merchant.client_id, "client_secret": shop.merchant.client_secret}
    is_basic = method == "client_secret_basic"
    auth = HTTPBasicAuth(*own.values()) if is_basic else None
    fields = {} if is_basic else own
    client = oauthlib.oauth2.BackendApplicationClient(shop.merchant.client_id)
    session = requests_oauthlib.OAuth2Session(client=client)
    session.headers["X-API-KEY"] = shop.merchant.key

    def introspect(token):
        answer = session.post(
            metadata["introspection_endpoint"], {"token": token, **fields}, auth=auth, withhold_token=True)
        assert answer.status_code == 200, answer.text
        return answer.json()

    grant = {"auth": auth} if is_basic else {"include_client_id": True, "client_secret": own["client_secret"]}
    first = dict(session.fetch_token(metadata["token_endpoint"], **grant))
    assert introspect(first["access_token"])["active"]
    # The library sends the access token as Bearer.
    verify = f"{metadata['issuer']}/api/verify/anything"
    assert session.get(verify).status_code == 200

    second = dict(session.refresh_token(metadata["token_endpoint"], auth=auth, **fields))
    assert second["access_token"] != first["access_token"]
    assert session.get(verify).status_code == 200

    url, headers, body = client.prepare_token_revocation_request(
        metadata["revocation_endpoint"], second["access_token"], **fields)
    answer = session.post(url, body, headers=headers, auth=auth, withhold_token=True)
    assert answer.status_code == 200
    for token in [first["access_token"], second["access_token"], second["refresh_token"]]:
        assert introspect(token) == {"active": False}
    assert session.get(verify).status_code == 401
    with pytest.raises(oauthlib.oauth2.InvalidGrantError):
        session.refresh_token(metadata["token_endpoint"], auth=auth, **fields)


@pytest.mark.parametrize("method", BY_SERVICES)
def test_a_service_token_sees_every_merchants_tokens_without_a_key(shop, metadata, method):
    """As Authlib's `IntrospectTokenValidator` and its like do it: one POST with requests."""
    if method == "service_token_basic":
        how = {"auth": (shop.service["id"], shop.service["token"])}
    else:
        how = {"headers": {"Authorization": f"Bearer {shop.service['token']}"}}

    def post(endpoint, token):
        answer = requests.post(metadata[endpoint], {"token": token}, timeout=PATIENCE_SECS, **how)
        assert answer.status_code == 200, answer.text
        return answer

    for client in [shop.merchant, shop.foreign]:
        token = shop.world.tokens(client)["access_token"]
        active = post("introspection_endpoint", token).json()
        assert (active["active"], active["sub"], active["token_type"]) == (True, client.merchant_id, "Bearer")
        post("revocation_endpoint", token)
        assert post("introspection_endpoint", token).json() == {"active": False}


@pytest.mark.parametrize("headers", [
    lambda service: {"Authorization": f"Bearer {service['token'][:-1]}"},
    lambda service: {"Authorization": "Bearer tga_" + "A" * 43},
], ids=["cut", "unknown"])
def test_a_bad_service_token_is_told_so_in_the_words_of_rfc_6750(shop, metadata, headers):
    answer = requests.post(
        metadata["introspection_endpoint"], {"token": "junk"}, headers=headers(shop.service), timeout=PATIENCE_SECS)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tollgate", error="invalid_token"'


def run(command, shop, method):
    """A client program in another language: it ends with 0, or says what did not hold."""
    told = {
        "ISSUER": shop.world.issuer,
        "API_KEY": shop.merchant.key,
        "CLIENT_ID": shop.merchant.client_id,
        "CLIENT_SECRET": shop.merchant.client_secret,
        "SERVICE_ID": shop.service["id"],
        "SERVICE_TOKEN": shop.service["token"],
        "AUTH_METHOD": method,
    }
    ended = subprocess.run(
        command, env=os.environ | told, capture_output=True, text=True, timeout=PATIENCE_SECS * 3)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("method", BY_CLIENTS + BY_SERVICES)
@pytest.mark.parametrize("program", ["oauth4webapi", "openid-client"])
def test_node(shop, program, method):
    run(["node", CACHE / "node" / f"{program}.mjs"], shop, method)


@pytest.fixture(scope="module")
def go_client():
    """golang.org/x/oauth2 as Debian ships it, in its source tree and not in a module cache."""
    program = CACHE / "go-client"
    subprocess.run(
        ["go", "build", "-o", program, HERE / "go" / "main.go"], check=True, timeout=300,
        env=os.environ | {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "CGO_ENABLED": "0",
                          "GOCACHE": str(CACHE / "go-cache")})
    return program


@pytest.mark.parametrize("method", BY_CLIENTS + BY_SERVICES)
def test_go(shop, go_client, method):
    run([go_client], shop, method)
