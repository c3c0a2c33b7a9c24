import base64, hashlib, hmac, time


def is_genuine(secret, headers, body, now=None):
    """`secret` is the key's whsec_...; `headers` have lower-case names; `body` has the exact bytes."""
    at = headers["webhook-timestamp"]
    if abs((now or time.time()) - int(at)) > 300:
        return False  # an old webhook, sent again
    signed = f"{headers['webhook-id']}.{at}.".encode() + body
    mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    expected = "v1," + base64.b64encode(mac.digest()).decode()
    # During a rotation of the secret there are two signatures.
    return any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split(" "))
