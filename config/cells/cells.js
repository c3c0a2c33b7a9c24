// What nginx.conf cannot read itself, for the njs module. Nothing here decides whether a call may pass: what cannot be
// read shows no cell, and the server refuses it.

import crypto from 'crypto';
import qs from 'querystring';

// The cell of what moved: of the key, or without a key, of the session or id that the call is about or of its admin token.
function moved_cell(r) {
    const of = (carried) => {
        r.variables.looked_up = carried;
        return r.variables.cell_of_looked_up;
    };
    const key = r.variables.key;
    if (key) {
        return of(hash(key));
    }
    return of(r.variables.id_without_key) || of(hash(r.variables.admin_token));
}

// moved.map has the SHA-256 of a key or admin token, not the secret itself.
function hash(secret) {
    return secret ? crypto.createHash('sha256').update(secret).digest('hex') : '';
}

// The admin token. A service token may also be a client secret, in HTTP Basic or in the body.
function admin_token(r) {
    const header = r.headersIn['Authorization'] || '';
    const credentials = header.slice(header.indexOf(' ') + 1).trim();
    const scheme = header.slice(0, header.indexOf(' ') + 1).toLowerCase();
    if (scheme == 'bearer ') {
        return credentials;
    }
    if (scheme == 'basic ') {
        const pair = Buffer.from(credentials, 'base64').toString();
        return qs.unescape(pair.slice(pair.indexOf(':') + 1));
    }
    return r.variables.asked_with;
}

// Reads the token that a call is about, and sends the call to the cell of the token's session.
function by_token(r) {
    const fields = fields_of(r);
    r.variables.asked_session = session_of(fields.token);
    if (typeof fields.client_secret == 'string') {
        r.variables.asked_with = fields.client_secret;
    }
    r.internalRedirect('@cell');
}

// The fields of a form or of JSON. None if the body is neither, or was too long for nginx to keep in memory.
function fields_of(r) {
    try {
        const body = (r.requestText || '').trim();
        return (body.startsWith('{') ? JSON.parse(body) : qs.parse(body)) || {};
    } catch (_) {
        return {};
    }
}

// A token is 60 characters of base64url. It begins with a byte for its kind and the session's id.
function session_of(token) {
    if (typeof token != 'string' || token.length != 60) {
        return '';
    }
    return Buffer.from(token, 'base64url').slice(1, 17).toString('hex');
}

export default { admin_token, by_token, moved_cell };
