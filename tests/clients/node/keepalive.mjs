// Good and refused calls, mixed, over the few connections of an agent that keeps them: every one gets its own answer.
// Bodies follow their head in a packet of their own, as from most clients, and are sent whatever the answer is.

import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'

const { ISSUER, API_KEY } = process.env
const agent = new Agent({ keepAlive: true, maxSockets: 4 })

function call([method, path, key, bytes]) {
  return new Promise((resolve, reject) => {
    const headers = { 'x-api-key': key, ...(bytes && { 'content-length': bytes }) }
    const sent = request(`${ISSUER}${path}`, { method, agent, headers }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode))
    })
    sent.on('error', reject).flushHeaders()
    if (bytes) setImmediate(() => sent.end(Buffer.alloc(bytes, 'a')))
    else sent.end()
  })
}

const GOOD = [['GET', '/api/verify', API_KEY, 0], 200]
const REFUSED = [27, 20_000, 200_000, 2_000_000].flatMap((bytes) => [
  [['POST', '/api/authorize', 'wrong', bytes], 401],
  [['POST', '/api/authorize/', API_KEY, bytes], 404],
  [['POST', '/healthz', API_KEY, bytes], 405],
  [['POST', '/admin/v1/merchants', API_KEY, bytes], 401],
  [['POST', '/api/verify', 'wrong', bytes], 401],
])

const calls = Array.from({ length: 20 }, () => REFUSED.flatMap((refused) => [refused, GOOD])).flat()
const answers = await Promise.allSettled(calls.map(([what]) => call(what)))
const wrong = answers.flatMap(({ value, reason }, at) =>
  value === calls[at][1] ? [] : [`${calls[at][0]}: ${value ?? reason}`])
assert.deepEqual(wrong, [])
agent.destroy()
