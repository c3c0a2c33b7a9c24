import { createHmac, timingSafeEqual } from "node:crypto";

// `secret` is the key's whsec_...; `headers` have lower-case names; `body` is a Buffer with the exact bytes.
export function isGenuine(secret, headers, body, now = Date.now() / 1000) {
  const at = headers["webhook-timestamp"];
  if (Math.abs(now - Number(at)) > 300) return false; // an old webhook, sent again
  const expected = createHmac("sha256", Buffer.from(secret.slice("whsec_".length), "base64"))
    .update(`${headers["webhook-id"]}.${at}.`).update(body).digest();
  // During a rotation of the secret there are two signatures.
  return headers["webhook-signature"].split(" ").some((one) => {
    const given = Buffer.from(one.replace(/^v1,/, ""), "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}
