// oauth4webapi: grant, refresh, introspection and revocation, from the metadata document alone.

import * as oauth from 'oauth4webapi'

import { AUTH_METHOD, CLIENT_ID, CLIENT_SECRET, ISSUER, SERVICE_ID } from './common.mjs'
import { authentication, isService, life, withKey } from './common.mjs'

const local = { [oauth.allowInsecureRequests]: true }

const issuer = new URL(ISSUER)
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...local })
const server = await oauth.processDiscoveryResponse(issuer, found)

function calls(client, auth, options) {
  return {
    async grant() {
      const response = await oauth.clientCredentialsGrantRequest(server, client, auth, {}, options)
      return oauth.processClientCredentialsResponse(server, client, response)
    },
    async refresh(token) {
      const response = await oauth.refreshTokenGrantRequest(server, client, auth, token, options)
      return oauth.processRefreshTokenResponse(server, client, response)
    },
    async introspect(token) {
      const response = await oauth.introspectionRequest(server, client, auth, token, options)
      return oauth.processIntrospectionResponse(server, client, response)
    },
    async revoke(token) {
      return oauth.processRevocationResponse(await oauth.revocationRequest(server, client, auth, token, options))
    },
  }
}

const asClient = (auth) => calls({ client_id: CLIENT_ID }, auth, { [oauth.customFetch]: withKey, ...local })
if (isService) {
  const service = calls({ client_id: SERVICE_ID }, authentication(oauth), local)
  await life(asClient(oauth.ClientSecretBasic(CLIENT_SECRET)), service)
} else {
  const client = asClient(authentication(oauth))
  await life(client, client)
}
console.log(`ok ${AUTH_METHOD}`)
