"""A standard resource server: Apache with mod_auth_openidc, which calls /api/introspect for each bearer token."""

import os
import subprocess

import pytest

import proxies
from world import Program, call, free_port

SITE = """
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port}
# The module uses only TLS, so something has to terminate it in front of Tollgate.
<VirtualHost 127.0.0.1:{tls_port}>
    SSLEngine on
    SSLCertificateFile {directory}/tls.pem
    SSLCertificateKeyFile {directory}/tls.key
    ProxyPass "/" "{issuer}/"
</VirtualHost>
OIDCOAuthSSLValidateServer Off
# Without the module's cache, so that it asks about each token again.
OIDCCacheType shm
OIDCOAuthIntrospectionEndpoint https://127.0.0.1:{tls_port}/api/introspect
OIDCOAuthIntrospectionEndpointAuth {method}
OIDCOAuthClientID {client_id}
OIDCOAuthClientSecret {client_secret}
OIDCOAuthRemoteUserClaim client_id
OIDCOAuthTokenIntrospectionInterval -1
<VirtualHost 127.0.0.1:{port}>
    <Location "/">
        AuthType oauth20
        Require valid-user
    </Location>
    ProxyPass "/" "http://127.0.0.1:{api}/"
</VirtualHost>
"""
MODULES = ["mpm_event", "authn_core", "authz_core", "authz_user", "auth_openidc", "proxy", "proxy_http", "ssl"]


@pytest.fixture(scope="module", params=["client_secret_basic", "client_secret_post"])
def guarded(request, shop, directory):
    """Where callers reach it; it authenticates itself in each of the ways that the metadata promises."""
    api = proxies.Api()
    port, tls_port = free_port(), free_port()
    own = directory / f"openidc-{request.param}"
    own.mkdir()
    own.chmod(0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-keyout", own / "tls.key", "-out", own / "tls.pem"],
        check=True, capture_output=True)
    site, main = own / "site.conf", own / "main.conf"
    site.write_text(SITE.format(
        port=port, tls_port=tls_port, directory=own, issuer=shop.world.issuer, method=request.param, client_id=shop.service["id"],
        client_secret=shop.service["token"], api=api.port))
    modules = "\n".join(f"LoadModule {name}_module {proxies.MODULES}/mod_{name}.so" for name in MODULES)
    user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
    main.write_text(proxies.APACHE_MAIN.format(directory=own, user=user, modules=modules, example=site))
    running = Program("openidc", [proxies.found("apache2"), "-f", main, "-DFOREGROUND"], own, port)
    yield f"http://127.0.0.1:{port}"
    running.stop()
    api.stop()


def status(guarded, token):
    return call(guarded, "GET", "/orders", [("Authorization", f"Bearer {token}")]).status


def test_an_access_token_opens_it_until_it_is_revoked(guarded, shop):
    token = shop.world.tokens(shop.merchant)["access_token"]
    assert status(guarded, token) == 200
    shop.world.revoke(shop.merchant, token)
    assert status(guarded, token) == 401


def test_nothing_else_does(guarded, shop):
    tokens = shop.world.tokens(shop.merchant)
    for other in [tokens["refresh_token"], shop.expired, "junk", "e" * 5000, tokens["access_token"][:-1]]:
        assert status(guarded, other) == 401
    assert call(guarded, "GET", "/orders").status == 401
