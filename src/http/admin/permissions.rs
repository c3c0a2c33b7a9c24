//! Which calls a service token may make: only those for which it has a permission.
//!
//! If the token is for one merchant, the flows also check the merchant, as they do for every caller.

use axum::extract::{MatchedPath, Request};

use crate::domain::admin::Permission::{
    self, AuditRead, EventsWrite, ExchangesRead, KeysWrite, LeaksReport, LicencesWrite, MerchantsRead,
    MerchantsWrite, Revoke,
};
use crate::domain::admin::{AdminToken, Role};

/// A method and path, and the permissions that allow the call; one of them is enough. Service tokens cannot
/// make any other call.
pub const CALLS: &[(&str, &str, &[Permission])] = &[
    ("POST", "/admin/v1/merchants", &[MerchantsWrite]),
    ("GET", "/admin/v1/merchants", &[MerchantsRead, MerchantsWrite]),
    ("GET", "/admin/v1/merchants/{id}", &[MerchantsRead, MerchantsWrite, LicencesWrite]),
    ("PATCH", "/admin/v1/merchants/{id}", &[MerchantsWrite]),
    ("PUT", "/admin/v1/merchants/{id}/licences/{product}", &[LicencesWrite]),
    ("POST", "/admin/v1/merchants/{id}/api-keys", &[KeysWrite]),
    ("GET", "/admin/v1/merchants/{id}/api-keys", &[KeysWrite]),
    ("GET", "/admin/v1/api-keys/{id}", &[KeysWrite]),
    ("PATCH", "/admin/v1/api-keys/{id}", &[KeysWrite]),
    ("DELETE", "/admin/v1/api-keys/{id}", &[KeysWrite]),
    ("POST", "/admin/v1/api-keys/{id}/restore", &[KeysWrite]),
    ("POST", "/admin/v1/api-keys/{id}/rotate", &[KeysWrite]),
    ("DELETE", "/admin/v1/api-keys/{id}/secrets/{secret_id}", &[KeysWrite]),
    ("GET", "/admin/v1/api-keys/{id}/suggested-ips", &[KeysWrite]),
    ("POST", "/admin/v1/api-keys/{id}/test-webhook", &[KeysWrite]),
    ("POST", "/admin/v1/api-keys/{id}/rotate-webhook-secret", &[KeysWrite]),
    ("GET", "/admin/v1/api-keys/{id}/webhook-secrets", &[KeysWrite]),
    ("POST", "/admin/v1/api-keys/{id}/credentials", &[KeysWrite]),
    ("GET", "/admin/v1/api-keys/{id}/credentials", &[KeysWrite]),
    ("GET", "/admin/v1/credentials/{client_id}", &[KeysWrite]),
    ("PATCH", "/admin/v1/credentials/{client_id}", &[KeysWrite]),
    ("POST", "/admin/v1/credentials/{client_id}/rotate-secret", &[KeysWrite]),
    ("DELETE", "/admin/v1/credentials/{client_id}/secrets/{secret_id}", &[KeysWrite]),
    ("GET", "/admin/v1/merchants/{id}/sessions", &[ExchangesRead]),
    ("GET", "/admin/v1/merchants/{id}/exchanges", &[ExchangesRead]),
    ("GET", "/admin/v1/merchants/{id}/webhook-deliveries", &[ExchangesRead]),
    ("GET", "/admin/v1/sessions/{id}", &[ExchangesRead]),
    ("DELETE", "/admin/v1/sessions/{id}", &[Revoke]),
    ("POST", "/admin/v1/merchants/{id}/events", &[EventsWrite]),
    ("GET", "/admin/v1/merchants/{id}/audit-events", &[AuditRead]),
    ("GET", "/admin/v1/audit-events", &[AuditRead]),
    ("GET", "/admin/v1/audit-events/latest", &[AuditRead]),
    ("POST", "/admin/v1/leaked-keys", &[LeaksReport]),
];

/// Whether a token may make this call. For other roles than `service`, the flows decide.
pub fn may_call(token: &AdminToken, request: &Request) -> bool {
    if token.role != Role::Service {
        return true;
    }
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    CALLS.iter().any(|(method, of, any_of)| {
        request.method().as_str() == *method
            && path == Some(of)
            && any_of.iter().any(|permission| token.permissions.contains(permission))
    })
}
