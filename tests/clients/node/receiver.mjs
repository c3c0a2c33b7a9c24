// A receiver of webhooks on `standardwebhooks` from npm: receiver.mjs PORT ORDERS LOG. Its twin, ../receiver.py, says
// what the two files are.

import { appendFileSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { Webhook, WebhookVerificationError } from 'standardwebhooks'

const [PORT, ORDERS, LOG] = process.argv.slice(2)

/** The secret of a new key comes with the answer that made it, which a first webhook may overtake: it waits. */
async function orders(path) {
  for (;;) {
    const { secrets, holds } = JSON.parse(readFileSync(ORDERS, 'utf8'))
    if (path in secrets) return [secrets[path], holds]
    await sleep(50)
  }
}

function verifies(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers)
    return true
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false
    throw error
  }
}

createServer(async (request, response) => {
  const { url: path, headers } = request
  const body = await buffer(request)
  const [secrets, held] = await orders(path)
  const verified = secrets.map((secret) => verifies(secret, body, headers))
  const came = {
    path,
    id: headers['webhook-id'],
    timestamp: headers['webhook-timestamp'],
    signatures: headers['webhook-signature'].split(' '),
    body: body.toString('base64'),
    verified,
    held,
  }
  appendFileSync(LOG, `${JSON.stringify(came)}\n`)
  if (!held) response.writeHead(verified.includes(true) ? 204 : 400).end()
}).listen(Number(PORT), '127.0.0.1')
