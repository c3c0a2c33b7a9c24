// The whole job through the types that openapi-typescript makes of the server's document. The compiler holds each call
// to it, and the run shows that the server does what the types say.

import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { paths } from "./schema.js";

const [baseUrl, adminToken] = process.argv.slice(2) as [string, string];

function client(headers: Record<string, string>) {
  const succeeds: Middleware = {
    async onResponse({ request, response }) {
      assert.ok(response.ok, `${request.method} ${request.url}: ${response.status} ${await response.clone().text()}`);
    },
  };
  const made = createClient<paths>({ baseUrl, headers });
  made.use(succeeds);
  return made;
}

const admin = client({ Authorization: `Bearer ${adminToken}` });

const merchant = (await admin.POST("/admin/v1/merchants", { body: { name: "Types", gateway: "demo_gateway" } })).data!;
for (const product of ["api_keys", "enhanced_security"] as const) {
  await admin.PUT("/admin/v1/merchants/{id}/licences/{product}", {
    params: { path: { id: merchant.id, product } }, body: { active: true },
  });
}
const key = (await admin.POST("/admin/v1/merchants/{id}/api-keys", {
  params: { path: { id: merchant.id } }, body: { name: "Till", environment: "sandbox" },
})).data!;
const made = (await admin.POST("/admin/v1/api-keys/{id}/credentials", {
  params: { path: { id: key.id } }, body: {},
})).data!;
await admin.PATCH("/admin/v1/credentials/{client_id}", {
  params: { path: { client_id: made.client_id } }, body: { enabled: true },
});

const integrator = client({ "X-API-KEY": key.key });
const secrets = { client_id: made.client_id, client_secret: made.client_secret };
const first = (await integrator.POST("/api/authorize", { body: secrets })).data!;
assert.equal(first.expires_in, 3600);
const second = (await integrator.POST("/api/refresh_token", {
  body: { ...secrets, refresh_token: first.refresh_token },
})).data!;
const told = (await integrator.POST("/api/introspect", { body: { ...secrets, token: second.access_token } })).data!;
assert.ok("client_id" in told && told.active && told.client_id === made.client_id);
assert.equal((await integrator.GET("/api/whoami")).data!.merchant_id, merchant.id);

const sessions = (await admin.GET("/admin/v1/merchants/{id}/sessions", {
  params: { path: { id: merchant.id }, query: { limit: 10 } },
})).data!;
assert.equal(sessions.items.length, 1);
await integrator.POST("/api/revoke", { body: { ...secrets, token: second.refresh_token } });
const after = (await integrator.POST("/api/introspect", { body: { ...secrets, token: second.access_token } })).data!;
assert.equal(after.active, false);
