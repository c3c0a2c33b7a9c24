// What both clients are told, by the environment, and what they demand of the server.

import assert from 'node:assert/strict'
import { webcrypto } from 'node:crypto'

// Node 18 has it, but not as a global.
globalThis.crypto ??= webcrypto

export const { ISSUER, API_KEY, CLIENT_ID, CLIENT_SECRET, SERVICE_ID, SERVICE_TOKEN, AUTH_METHOD } = process.env

export const isService = AUTH_METHOD.startsWith('service_token')

/** The way of authenticating that is on trial, from a library that knows the standard ones. */
export function authentication(library) {
  switch (AUTH_METHOD) {
    case 'client_secret_basic':
      return library.ClientSecretBasic(CLIENT_SECRET)
    case 'client_secret_post':
      return library.ClientSecretPost(CLIENT_SECRET)
    case 'service_token_basic':
      return library.ClientSecretBasic(SERVICE_TOKEN)
    case 'service_token_bearer':
      return (_server, _client, _body, headers) => headers.set('authorization', `Bearer ${SERVICE_TOKEN}`)
    default:
      throw new Error(`no such method: ${AUTH_METHOD}`)
  }
}

/** fetch, with the key that clients add to every call. A service needs none. */
export function withKey(url, options) {
  return fetch(url, { ...options, headers: { ...options.headers, 'x-api-key': API_KEY } })
}

/** The life of a session, by the four calls of a client; `asker` is who introspects and revokes. */
export async function life(client, asker) {
  const first = await client.grant()
  assert.equal(first.token_type, 'bearer')
  assert.ok(first.expires_in > 3590 && first.expires_in <= 3600)
  const active = await asker.introspect(first.access_token)
  assert.equal(active.active, true)
  assert.equal(active.client_id, CLIENT_ID)
  assert.equal(active.iss, ISSUER)
  assert.ok(active.exp - active.iat === 3600)

  const second = await client.refresh(first.refresh_token)
  assert.notEqual(second.access_token, first.access_token)
  assert.equal((await asker.introspect(second.access_token)).active, true)

  await asker.revoke(second.refresh_token)
  for (const token of [first.access_token, second.access_token, second.refresh_token]) {
    assert.deepEqual(await asker.introspect(token), { active: false })
  }
  await asker.revoke('a token that never was')
  await assert.rejects(client.refresh(second.refresh_token), { error: 'invalid_grant', status: 400 })
}
