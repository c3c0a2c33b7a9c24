// Cargo.toml: base64 = "0.22", hmac = "0.13", sha2 = "0.11"
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Takes the key's whsec_..., the request's headers by name, and the body as the bytes that came.
pub fn is_genuine<'a>(secret: &str, header: impl Fn(&str) -> Option<&'a str>, body: &[u8], now: SystemTime) -> bool {
    check(secret, header, body, now).unwrap_or(false)
}

fn check<'a>(secret: &str, header: impl Fn(&str) -> Option<&'a str>, body: &[u8], now: SystemTime) -> Option<bool> {
    let at = header("webhook-timestamp")?;
    let sent = UNIX_EPOCH.checked_add(Duration::from_secs(at.parse().ok()?))?;
    let age = now.duration_since(sent).unwrap_or_else(|early| early.duration());
    if age > Duration::from_secs(300) {
        return Some(false); // an old one, played again
    }
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{}.{at}.", header("webhook-id")?).as_bytes());
    mac.update(body);
    // While a secret is being replaced there are two signatures.
    let signatures = header("webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let mut decoded = signatures.filter_map(|one| BASE64_STANDARD.decode(one).ok());
    Some(decoded.any(|signature| mac.clone().verify_slice(&signature).is_ok())) // in constant time
}
