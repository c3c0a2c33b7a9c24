import { createHmac, timingSafeEqual } from "node:crypto";

// `secret` is the key's whsec_...; `headers` have lower-case names; `body` is a Buffer with the bytes as they came.
export function isGenuine(secret, headers, body, now = Date.now() / 1000) {
  const at = headers["webhook-timestamp"];
  if (Math.abs(now - Number(at)) > 300) return false; // an old one, played again
  const expected = createHmac("sha256", Buffer.from(secret.slice("whsec_".length), "base64"))
    .update(`${headers["webhook-id"]}.${at}.`).update(body).digest();
  // While a secret is being replaced there are two signatures.
  return headers["webhook-signature"].split(" ").some((one) => {
    const given = Buffer.from(one.replace(/^v1,/, ""), "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}
