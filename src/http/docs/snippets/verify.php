<?php
/** $secret is the key's whsec_...; $headers have lower-case names; $body is the bytes as they came: php://input. */
function isGenuine(string $secret, array $headers, string $body, ?int $now = null): bool
{
    $at = $headers['webhook-timestamp'];
    if (abs(($now ?? time()) - (int) $at) > 300) return false; // an old one, played again
    $key = base64_decode(substr($secret, strlen('whsec_')));
    $mac = hash_hmac('sha256', "{$headers['webhook-id']}.$at.$body", $key, true);
    $expected = 'v1,' . base64_encode($mac);
    // While a secret is being replaced there are two signatures.
    foreach (explode(' ', $headers['webhook-signature']) as $one) {
        if (hash_equals($expected, $one)) return true;
    }
    return false;
}
