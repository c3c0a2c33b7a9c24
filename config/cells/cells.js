// What nginx.conf cannot read itself, for the njs module. Nothing here decides whether a call may pass: what cannot be
// read shows no cell, and the server refuses it.

import crypto from 'crypto';
import qs from 'querystring';

// moved.map has the SHA-256 of an API key, not the key.
function key_hash(r) {
    return crypto.createHash('sha256').update(r.headersIn['X-API-KEY']).digest('hex');
}

// Reads the token that a call is about, and sends the call to the cell of the token's session.
function by_token(r) {
    r.variables.asked_session = session_of(token_in(r));
    r.internalRedirect('@cell');
}

// The token in a form or in JSON. Undefined if there is none, or if the body was too long for nginx to keep in memory.
function token_in(r) {
    try {
        const body = (r.requestText || '').trim();
        return (body.startsWith('{') ? JSON.parse(body) : qs.parse(body)).token;
    } catch (_) {
        return undefined;
    }
}

// A token is 60 characters of base64url. It begins with a byte for its kind and the session's id.
function session_of(token) {
    if (typeof token != 'string' || token.length != 60) {
        return '';
    }
    return Buffer.from(token, 'base64url').slice(1, 17).toString('hex');
}

export default { key_hash, by_token };
