//! Texts for people: roles, times, notices after actions, and why a call was refused.

use std::fmt;

use crate::domain::admin::{Permission, Role};
use crate::domain::api_key::{Environment, WebhookFormat};
use crate::domain::clock::Timestamp;
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
        write!(f, "<time datetime=\"{machine}\">{}</time>", &person[..16])
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
        Permission::EventsWrite => "Hand in events that webhooks deliver.",
        Permission::ExchangesRead => "Read API details, sessions and webhook deliveries.",
        Permission::AuditRead => "Read the audit trail.",
        Permission::LeaksReport => "Report secrets that were found in public.",
        Permission::MerchantsWrite => "Make and change merchants.",
        Permission::LicencesWrite => "Grant and end licences.",
        Permission::KeysWrite => "Make and change API keys, credentials and webhook settings.",
    }
}

/// Why a token should be replaced by a narrower one.
pub(super) const fn advice(advice: Advice) -> &'static str {
    match advice {
        Advice::OnlyIntrospects => {
            "It may introspect and has changed nothing. A service token with introspect is enough."
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
        0 => "No session was live.".to_owned(),
        1 => "1 session has ended.".to_owned(),
        count if i64::from(count) > SESSIONS_COUNTED_MAX => {
            format!("More than {SESSIONS_COUNTED_MAX} sessions have ended.")
        }
        count => format!("{count} sessions have ended."),
    };
    let words = match name {
        "saved" => "Saved. Changes apply immediately.",
        "revoked" => {
            return Some(format!(
                "The key is revoked. {sessions} You can restore the key within 60 minutes."
            ));
        }
        "restored" => "The key is restored and active.",
        "secret-ended" => "The earlier secret has ended.",
        "session-ended" => "The session and its tokens have ended.",
        "switched-on" => "Enhanced Security is ON.",
        "switched-off" => return Some(format!("Enhanced Security is OFF. {sessions}")),
        "suspended" => "The account is suspended. Every call with its keys is refused.",
        "reinstated" => "The account is active. Calls with its keys work again.",
        "address-added" => "The address was added to the key's allowed addresses.",
        "user-disabled" => "The user is disabled and signed out everywhere.",
        "user-enabled" => "The user can sign in again.",
        "token-revoked" => "The token is revoked.",
        "password-set" => "Your password is set. Your other sessions have ended.",
        "factor-removed" => "The second factor is removed.",
        "others-ended" => "Your other sessions have ended.",
        "merchant-made" => "The merchant is created. Grant it a licence so that it can make API keys.",
        "licence-saved" => "The licence is saved. The change applies immediately.",
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
        Refused::NotFound => "That does not exist, or no longer exists.".to_owned(),
        Refused::VersionMismatch => {
            "Somebody else has changed this in the meantime. Reload the page to see the current values."
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
        hops => format!("; it came through {}", hops.join(", ")),
    };
    match exchange.reason.as_deref() {
        None if exchange.status < 400 => "OK".to_owned(),
        None => format!("Failed with status {}.", exchange.status),
        Some("address_not_allowed") => {
            format!("{ip} is not in this key's allowed addresses{through}.")
        }
        Some(OBSERVED) => {
            format!("{ip} is not in this key's allowed addresses{through}. It passed: the key only observes.")
        }
        Some(name) => {
            name.parse().map_or_else(|_| format!("Refused: {name}."), |reason| why(reason).to_owned())
        }
    }
}

/// A reason as a sentence.
pub(super) const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::KeyMissing => "The call had no X-API-KEY header.",
        Reason::KeyRepeated => "The call had two X-API-KEY headers.",
        Reason::KeyUnknown => "The API key is not one of ours.",
        Reason::KeyReplaced => "The API key was rotated, and the old one has ended.",
        Reason::KeyRevoked => "The API key is revoked.",
        Reason::KeyExpired => "The API key has expired.",
        Reason::MerchantSuspended => "The account is suspended.",
        Reason::ApiKeysLicenceInactive => "The account has no active licence for API keys.",
        Reason::AddressUnreadable => "A proxy did not say which address the call came from.",
        Reason::AddressNotAllowed => "The address is not in this key's allowed addresses.",
        Reason::ClientMissing => "The call had neither client ID nor client secret.",
        Reason::ClientUnknown => "The client ID does not exist.",
        Reason::ClientOfAnotherKey => "The client ID belongs to another API key.",
        Reason::ClientSecretWrong => "The client secret is wrong.",
        Reason::ClientSecretReplaced => "The client secret was rotated, and the old one has ended.",
        Reason::EnhancedSecurityOff => "Enhanced Security is switched OFF for this client ID.",
        Reason::EnhancedSecurityLicenceInactive => "The account has no active licence for enhanced security.",
        Reason::ServiceTokenUnknown => "The service token does not exist, or has ended.",
        Reason::SignInRefused => "The sign-in was refused.",
        Reason::TokenMissing => "The call had no token.",
        Reason::TokenUnknown => "The token is not one of ours, or was altered.",
        Reason::TokenOfAnotherClient => "The token belongs to another client ID.",
        Reason::TokenExpired => "The token has expired.",
        Reason::TokenReplayed => "The refresh token was used before, so its session was ended.",
        Reason::SessionRevoked => "The token's session was revoked.",
        Reason::SessionExpired => "The token's session has expired.",
        Reason::ScopeInvalid => "The scope that was asked for is malformed, or does not exist.",
        Reason::ScopeNotAllowed => "The client asked for more scopes than it may have.",
        Reason::ScopeNotGranted => "The refresh asked for other scopes than its session has.",
        Reason::ScopeInsufficient => "The key or token lacks a scope that the resource needs.",
        Reason::ScopesTakenAway => {
            "The key and client ID have lost every scope that the session was granted."
        }
        Reason::SessionEnded => "The token's session ended when Enhanced Security was switched OFF.",
        Reason::GrantTypeUnsupported => "The grant_type is neither client_credentials nor refresh_token.",
        Reason::NulCharacter => "A field had a NUL character in it.",
        Reason::RequestInvalid => "The request was malformed.",
        Reason::TooManyFailures => "Too many failed calls came from this address.",
        Reason::TooManyCalls => "Too many calls came with this API key.",
        Reason::TooManySessions => {
            "This client ID started too many sessions; it should use its refresh token."
        }
    }
}
