"""The whole job through the client that openapi-python-client made, which is on the path as `tollgate_client`."""

import sys

from tollgate_client import AuthenticatedClient
from tollgate_client import models
from tollgate_client.api.api_keys import api_keys_create
from tollgate_client.api.credentials import credentials_generate, credentials_update
from tollgate_client.api.merchants import merchants_create, merchants_put_licence
from tollgate_client.api.sessions import sessions_list
from tollgate_client.api.tokens import (
    tokens_authorize, tokens_introspect, tokens_refresh_token, tokens_revoke, tokens_whoami)

url, admin_token = sys.argv[1:]
admin = AuthenticatedClient(base_url=url, token=admin_token)


def good(answer):
    """An error is an object of another type."""
    assert not isinstance(answer, (models.Problem, models.IntegratorError)), answer
    return answer


merchant = good(merchants_create.sync(client=admin, body=models.NewMerchant(name="Types", gateway="demo_gateway")))
for product in models.Product:
    good(merchants_put_licence.sync(
        merchant.id, product, client=admin, body=models.LicenceGrant(active=True)))
key = good(api_keys_create.sync(
    merchant.id, client=admin, body=models.NewKey(name="Till", environment=models.Environment.SANDBOX)))
made = good(credentials_generate.sync(key.id, client=admin, body=models.NewCredentials()))
good(credentials_update.sync(made.client_id, client=admin, body=models.CredentialPatch(enabled=True)))

integrator = AuthenticatedClient(base_url=url, token=key.key, prefix="", auth_header_name="X-API-KEY")
secrets = {"client_id": made.client_id, "client_secret": made.client_secret}
first = good(tokens_authorize.sync(client=integrator, body=models.TokenRequestForm(**secrets)))
assert first.expires_in == 3600
second = good(tokens_refresh_token.sync(
    client=integrator, body=models.TokenRequest(**secrets, refresh_token=first.refresh_token)))
question = models.TokenQuestionForm(**secrets, token=second.access_token)
told = good(tokens_introspect.sync(client=integrator, body=question))
assert told.active and told.client_id == made.client_id
assert good(tokens_whoami.sync(client=integrator)).merchant_id == merchant.id
assert len(good(sessions_list.sync(merchant.id, client=admin, limit=10)).items) == 1
good(tokens_revoke.sync(
    client=integrator, body=models.TokenQuestionForm(**secrets, token=second.refresh_token)))
assert not good(tokens_introspect.sync(client=integrator, body=question)).active
