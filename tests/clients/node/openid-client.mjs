// openid-client: grant, refresh, introspection and revocation, from the metadata document alone.

import * as openid from 'openid-client'

import { AUTH_METHOD, CLIENT_ID, CLIENT_SECRET, ISSUER, SERVICE_ID } from './common.mjs'
import { authentication, isService, life, withKey } from './common.mjs'

async function calls(id, auth, options) {
  const execute = [openid.allowInsecureRequests]
  const config = await openid.discovery(new URL(ISSUER), id, undefined, auth, { algorithm: 'oauth2', execute })
  Object.assign(config, options)
  return {
    grant: () => openid.clientCredentialsGrant(config),
    refresh: (token) => openid.refreshTokenGrant(config, token),
    introspect: (token) => openid.tokenIntrospection(config, token),
    revoke: (token) => openid.tokenRevocation(config, token),
  }
}

const asClient = (auth) => calls(CLIENT_ID, auth, { [openid.customFetch]: withKey })
if (isService) {
  const service = await calls(SERVICE_ID, authentication(openid), {})
  await life(await asClient(openid.ClientSecretBasic(CLIENT_SECRET)), service)
} else {
  const client = await asClient(authentication(openid))
  await life(client, client)
}
console.log(`ok ${AUTH_METHOD}`)
