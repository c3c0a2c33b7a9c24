//! Texts for people: roles, times, notices after actions, and why a call was refused.

use std::fmt;

use ipnet::IpNet;

use crate::domain::admin::{Permission, Role};
use crate::domain::api_key::{Environment, WebhookFormat};
use crate::domain::clock::Timestamp;
use crate::domain::event::{Actor, ActorKind};
use crate::domain::licence::Product;
use crate::domain::reason::Reason;
use crate::flows::error::Refused;
use crate::flows::live::SESSIONS_COUNTED_MAX;
use crate::flows::token_advice::Advice;
use crate::http::layer::exchange_log::OBSERVED;
use crate::store::exchanges::Exchange;

/// A time as an HTML `time` element, in UTC. It needs no escaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When(pub(super) Timestamp);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, person) = (self.0.to_rfc3339(), self.0.to_published());
        // A narrow column breaks it between the day and the time, and nowhere else.
        let (day, time) = (&person[..10], &person[11..16]);
        write!(
            f,
            "<time datetime=\"{machine}\"><span class=\"nowrap\">{day}</span> <span class=\"nowrap\">{time}</span></time>"
        )
    }
}

impl askama::filters::HtmlSafe for When {}

/// The same with seconds, for lists of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exactly(pub(super) Timestamp);

impl fmt::Display for Exactly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time datetime=\"{}\">{}</time>", self.0.to_rfc3339(), self.0.to_published())
    }
}

impl askama::filters::HtmlSafe for Exactly {}

/// `in 3 days` or `5 minutes ago`, in the largest whole unit.
pub(super) fn relative(time: Timestamp, now: Timestamp) -> String {
    let secs = time.since(now).num_seconds();
    let (count, unit) = match secs.unsigned_abs() {
        0..60 => return if secs > 0 { "in less than a minute" } else { "just now" }.to_owned(),
        count @ 60..3600 => (count / 60, "minute"),
        count @ 3600..86_400 => (count / 3600, "hour"),
        count => (count / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if secs > 0 { format!("in {count} {unit}{plural}") } else { format!("{count} {unit}{plural} ago") }
}

pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Operator => "Operator",
        Role::MerchantAdmin => "Administrator",
        Role::MerchantViewer => "Viewer",
        Role::Service => "Service",
    }
}

pub(super) const fn environment(environment: Environment) -> &'static str {
    match environment {
        Environment::Sandbox => "Sandbox",
        Environment::Live => "Live",
    }
}

pub(super) const fn webhook_format(format: WebhookFormat) -> &'static str {
    match format {
        WebhookFormat::SingleJson => "Single JSON data",
        WebhookFormat::MultipleJson => "Multiple JSON data",
    }
}

pub(super) const fn product(product: Product) -> &'static str {
    match product {
        Product::ApiKeys => "API keys",
        Product::EnhancedSecurity => "Enhanced security",
    }
}

/// What a permission allows.
pub(super) const fn permission(permission: Permission) -> &'static str {
    match permission {
        Permission::Introspect => "See whether a token of any client is valid.",
        Permission::Revoke => "Revoke tokens and end sessions.",
        Permission::EventsWrite => "Publish events that webhooks deliver.",
        Permission::ExchangesRead => "Read API details, sessions and webhook deliveries.",
        Permission::AuditRead => "Read the audit trail.",
        Permission::LeaksReport => "Report secrets that were found in public.",
        Permission::MerchantsRead => "See merchants and their licences.",
        Permission::MerchantsWrite => "Create and change merchants.",
        Permission::LicencesWrite => "Grant and end licences.",
        Permission::KeysWrite => "Create and change API keys, credentials and webhook settings.",
    }
}

/// Why a token should be replaced by a narrower one.
pub(super) const fn advice(advice: Advice) -> &'static str {
    match advice {
        Advice::OnlyIntrospects => {
            "It is only used to introspect. A service token with the permission introspect is enough."
        }
        Advice::ChangesNothing => "It has changed nothing in 30 days. A service token may be enough.",
        Advice::NeverUsed => "It was never used.",
    }
}

/// What the page says after a redirect. The redirect names the action and maybe a count, such as
/// `session-ended` or `switched-off.3`. Unknown names say nothing.
pub(super) fn done(name: &str) -> Option<String> {
    let (name, count) = match name.split_once('.') {
        Some((name, count)) => (name, count.parse::<u32>().ok()?),
        None => (name, 0),
    };
    let sessions = match count {
        0 => "No session was active.".to_owned(),
        1 => "1 session ended.".to_owned(),
        count if i64::from(count) > SESSIONS_COUNTED_MAX => {
            format!("More than {SESSIONS_COUNTED_MAX} sessions ended.")
        }
        count => format!("{count} sessions ended."),
    };
    let words = match name {
        "saved" => "Saved. Changes apply immediately.",
        "shown" => "This was shown once and cannot be shown again. If you did not copy it, create a new one.",
        "form-restored" => {
            "You were signed out before you saved. Your values are below. Check them, and save again."
        }
        "revoked" => {
            return Some(format!(
                "The key was revoked. {sessions} You can restore the key within 60 minutes."
            ));
        }
        "webhook-enabled" => "The webhook is enabled again. New events are sent immediately.",
        "restored" => "The key was restored and is active.",
        "secret-ended" => "The secret ended. Calls with it are refused.",
        "session-ended" => "The session ended. Its tokens no longer work.",
        "switched-on" => "Enhanced Security is ON.",
        "switched-off" => return Some(format!("Enhanced Security is OFF. {sessions}")),
        "suspended" => "The account is suspended. All calls with its keys are refused.",
        "reinstated" => "The account is active. Calls with its keys work again.",
        "address-added" => "The address was added to the key's allowed addresses.",
        "user-disabled" => "The user is disabled and signed out everywhere.",
        "user-enabled" => "The user can sign in again.",
        "renamed" => "Saved.",
        "token-revoked" => "The token was revoked.",
        "password-set" => "Your password was saved. All other browsers are signed out.",
        "factor-removed" => "Your second factor was removed. You now sign in with your password alone.",
        "factor-removed-of" => {
            "The second factor was removed. The user now signs in with the password alone."
        }
        "others-ended" => "All other browsers are signed out.",
        "merchant-made" => "The merchant was added. Grant it a licence for API keys next.",
        "licence-saved" => "The licence was saved. The change applies immediately.",
        "resent" => "The webhook is being sent again.",
        "all-resent" if count == 1 => "1 webhook is being sent again.",
        "all-resent" => return Some(format!("{count} webhooks are being sent again.")),
        _ => return None,
    };
    Some(words.to_owned())
}

/// A refusal as a sentence to show beside a form.
pub(super) fn refusal(refused: &Refused) -> String {
    match refused {
        Refused::Invalid { field, detail } => {
            let field = match *field {
                "allowed_ips" => "Allowed addresses",
                "webhook_url" => "Webhook URL",
                "webhook_format" => "Output type",
                "scopes" => "Scopes",
                "expires_at" => "Expiry",
                "overlap_secs" => "Overlap",
                "email" => "E-mail",
                "password" => "Password",
                "code" => "The code",
                "merchant_id" => "Merchant",
                "gateway" => "Gateway",
                "permissions" => "Permissions",
                "role" => "Role",
                "name" => "Name",
                other => other,
            };
            format!("{field}: {detail}.")
        }
        Refused::NotLicensed(missing) => {
            format!("This account has no active licence for {}.", product(*missing).to_lowercase())
        }
        Refused::NotFound => "This does not exist, or no longer exists.".to_owned(),
        Refused::VersionMismatch => {
            "Somebody else changed this in the meantime. Reload the page to see the current values."
                .to_owned()
        }
        Refused::Forbidden(why) => sentence(why),
        Refused::InsufficientPermission => sentence(&refused.to_string()),
        Refused::Conflict(why) => sentence(why),
    }
}

/// Adds a capital letter and a full stop.
pub(super) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// Explains the result of a call in one sentence.
pub(super) fn exchange(exchange: &Exchange) -> String {
    let ip = &exchange.client_ip;
    let through = match exchange.hops.as_slice() {
        [] => String::new(),
        hops => format!("; the call came through {}", hops.join(", ")),
    };
    match exchange.reason.as_deref() {
        None if exchange.status < 400 => "OK".to_owned(),
        None => format!("Failed with status {}.", exchange.status),
        Some("address_not_allowed") => {
            format!("{ip} is not in this key's allowed addresses{through}.")
        }
        Some(OBSERVED) => {
            format!(
                "{ip} is not in this key's allowed addresses{through}. The call was allowed, because this key only records such calls."
            )
        }
        Some(name) => {
            name.parse().map_or_else(|_| format!("Refused: {name}."), |reason| why(reason).to_owned())
        }
    }
}

/// A reason by its name. `other` is a failure without a reason.
pub(super) fn reason(name: &str) -> String {
    name.parse().map_or_else(|_| "Other failures".to_owned(), |reason| why(reason).to_owned())
}

/// Who did something.
pub(super) fn actor(actor: &Actor) -> String {
    match (&actor.name, actor.kind) {
        (Some(name), _) => name.clone(),
        (None, ActorKind::CommandLine) => "Command line".to_owned(),
        (None, ActorKind::Server) => "Tollgate".to_owned(),
        (None, ActorKind::Anonymous) => "Not signed in".to_owned(),
        (None, ActorKind::AdminToken | ActorKind::User | ActorKind::Client) => {
            actor.id.clone().unwrap_or_default()
        }
    }
}

/// A range of addresses. A range of one is that address.
pub(super) fn range(range: &IpNet) -> String {
    if range.prefix_len() == range.max_prefix_len() { range.addr().to_string() } else { range.to_string() }
}

/// A reason as a sentence.
pub(super) const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::KeyMissing => "The call had no X-API-KEY header.",
        Reason::KeyRepeated => "The call had two X-API-KEY headers.",
        Reason::KeyUnknown => "The API key is unknown.",
        Reason::KeyOfAnotherCell => "The API key is unknown, and was made in another cell.",
        Reason::KeyReplaced => "The API key was rotated, and this secret has ended.",
        Reason::KeyRevoked => "The API key is revoked.",
        Reason::KeyExpired => "The API key has expired.",
        Reason::MerchantSuspended => "The account is suspended.",
        Reason::ApiKeysLicenceInactive => "The account has no active licence for API keys.",
        Reason::AddressUnreadable => "A proxy did not send the address of the caller.",
        Reason::AddressNotAllowed => "The address is not in this key's allowed addresses.",
        Reason::ClientMissing => "The call had no client ID and client secret.",
        Reason::ClientUnknown => "The client ID does not exist.",
        Reason::ClientOfAnotherKey => "The client ID belongs to another API key.",
        Reason::ClientSecretWrong => "The client secret is wrong.",
        Reason::ClientSecretReplaced => "The client secret was rotated, and this one has ended.",
        Reason::EnhancedSecurityOff => "Enhanced Security is switched OFF for this client ID.",
        Reason::EnhancedSecurityLicenceInactive => "The account has no active licence for enhanced security.",
        Reason::ServiceTokenUnknown => "The service token does not exist or has ended.",
        Reason::ServiceTokenUnfit => {
            "The service token may not be used from this address or for this call, or has another id."
        }
        Reason::PermissionMissing => "The caller may not do this.",
        Reason::ObjectUnknown => "There is no such object.",
        Reason::Conflict => "The change did not fit the state of its object.",
        Reason::SignInRefused => "The sign-in was refused.",
        Reason::TokenMissing => "The call had no token.",
        Reason::TokenUnknown => "The token is unknown or was altered.",
        Reason::TokenOfAnotherClient => "The token belongs to another client ID.",
        Reason::TokenExpired => "The token has expired.",
        Reason::TokenReplayed => "The refresh token was already used, so its session ended.",
        Reason::SessionRevoked => "The token's session was revoked.",
        Reason::SessionExpired => "The token's session has expired.",
        Reason::ScopeInvalid => "The requested scope is malformed or does not exist.",
        Reason::ScopeNotAllowed => "The client requested more scopes than it may have.",
        Reason::ScopeNotGranted => "The refresh requested scopes that its session does not have.",
        Reason::ScopeInsufficient => "The key or token does not have the scope that the resource needs.",
        Reason::ScopesTakenAway => {
            "The key and client ID have lost every scope that the session was granted."
        }
        Reason::SessionEnded => "The token's session ended when Enhanced Security was switched OFF.",
        Reason::GrantTypeUnsupported => "The grant_type is neither client_credentials nor refresh_token.",
        Reason::NulCharacter => "A field contained a NUL character.",
        Reason::RequestInvalid => "The request was malformed.",
        Reason::TooManyFailures => "Too many failed calls from this address.",
        Reason::TooManyCalls => "Too many calls with this API key.",
        Reason::TooManySessions => {
            "This client ID started too many sessions. It should use its refresh token."
        }
    }
}
