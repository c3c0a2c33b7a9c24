//! The errors of the integrators' API, and what to do about them.

/// A paragraph of the page about errors. Its anchor is the code.
pub(super) struct ErrorHelp {
    pub(super) code: &'static str,
    pub(super) status: &'static str,
    pub(super) meaning: &'static str,
    pub(super) remedy: &'static str,
}

pub(super) const ERRORS: [ErrorHelp; 12] = [
    ErrorHelp {
        code: "invalid_request",
        status: "400, 404, 405, 408, 413, 414, 415, 422",
        meaning: "The request is malformed: a field is missing, duplicate or too long, the body has none of the three \
                  types, or the path or the method is wrong. The description says what is wrong.",
        remedy: "Correct the request. Sending the same one again gives the same answer.",
    },
    ErrorHelp {
        code: "invalid_client",
        status: "401",
        meaning: "The API key, the address that you call from, the client id or the client secret is not accepted. The answer \
                  does not say which one.",
        remedy: "Look up the request id under API details in the console: it has the exact reason. Check for a line end in \
                 the key, for a key that was rotated, and for your address with /api/whoami.",
    },
    ErrorHelp {
        code: "invalid_grant",
        status: "400",
        meaning: "The refresh token is unknown, has expired, was revoked, belongs to another client, or was used before.",
        remedy: "Start a new session with /api/authorize, without a refresh token. If it happens often, two programs share \
                 one refresh token: give each its own session.",
    },
    ErrorHelp {
        code: "unauthorized_client",
        status: "400",
        meaning: "The credentials are right, but Enhanced Security is switched off for them or its licence is not active.",
        remedy: "Switch it on in the console, under access keys, or ask the platform about the licence.",
    },
    ErrorHelp {
        code: "unsupported_grant_type",
        status: "400",
        meaning: "grant_type may be client_credentials, or refresh_token together with a refresh token.",
        remedy: "Send one of these, or leave the field out.",
    },
    ErrorHelp {
        code: "invalid_scope",
        status: "400",
        meaning: "A scope is malformed, unknown, or more than the client may have. A refresh keeps the scopes of its session.",
        remedy: "Ask for scopes that the key has, or leave scope out for all of them. /api/whoami lists those of the key.",
    },
    ErrorHelp {
        code: "insufficient_scope",
        status: "403",
        meaning: "The key or the token is valid, but does not have the scope that this call needs.",
        remedy: "Ask for a token with that scope, or have a merchant admin add it to the key.",
    },
    ErrorHelp {
        code: "insufficient_permission",
        status: "403",
        meaning: "The service token is valid, but does not have the permission that this call needs.",
        remedy: "Use a token with the permission introspect or revoke. An operator can make one.",
    },
    ErrorHelp {
        code: "conflict",
        status: "409",
        meaning: "/api/rotate_secret cannot make another secret now: as many as there may be work already, or the \
                  Idempotency-Key was used for another request.",
        remedy: "End an earlier secret in the console, or wait until it has ended. Use a new Idempotency-Key for a new request.",
    },
    ErrorHelp {
        code: "slow_down",
        status: "429",
        meaning: "A limit is reached: too many failed attempts from an address, or too many calls with a key.",
        remedy: "Wait for as long as Retry-After says, in seconds. Keep tokens for their hour instead of asking for each call.",
    },
    ErrorHelp {
        code: "temporarily_unavailable",
        status: "503",
        meaning: "The server cannot answer now: its database does not answer, or it is too busy.",
        remedy: "Wait for as long as Retry-After says and send the same request again. A refresh may be repeated safely.",
    },
    ErrorHelp {
        code: "server_error",
        status: "500",
        meaning: "The server has failed.",
        remedy: "Try again later, and report the request id to the platform.",
    },
];
