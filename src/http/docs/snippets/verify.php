<?php
/** $secret is the key's whsec_...; $headers have lower-case names; $body has the exact bytes from php://input. */
function isGenuine(string $secret, array $headers, string $body, ?int $now = null): bool
{
    $at = $headers['webhook-timestamp'];
    if (abs(($now ?? time()) - (int) $at) > 300) return false; // an old webhook, sent again
    $key = base64_decode(substr($secret, strlen('whsec_')));
    $mac = hash_hmac('sha256', "{$headers['webhook-id']}.$at.$body", $key, true);
    $expected = 'v1,' . base64_encode($mac);
    // During a rotation of the secret there are two signatures.
    foreach (explode(' ', $headers['webhook-signature']) as $one) {
        if (hash_equals($expected, $one)) return true;
    }
    return false;
}
