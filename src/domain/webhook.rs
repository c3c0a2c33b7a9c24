//! Webhook messages: the exact bytes of the body in both formats, and the signature over those bytes
//! (Standard Webhooks 1.0.0).
//!
//! One event, `{"type","timestamp","data"}`, as `single_json`:
//!
//! ```text
//! {"type":"payment.settled","timestamp":"2026-11-23T17:05:57.000Z","data":{"amount":10.10,"lines":[1,2],"note":{}}}
//! ```
//!
//! The same event as `multiple_json` has every field and every element on its own line. Each level is
//! indented by two more spaces, there is one space after each colon, and no `\n` at the end:
//!
//! ```text
//! {
//!   "type": "payment.settled",
//!   "timestamp": "2026-11-23T17:05:57.000Z",
//!   "data": {
//!     "amount": 10.10,
//!     "lines": [
//!       1,
//!       2
//!     ],
//!     "note": {}
//!   }
//! }
//! ```
//!
//! The two differ only in white space. The data is sent as it was published: we do not change the order of
//! fields, the digits of numbers or the escapes in strings, because a receiver may compare an amount such
//! as `10.10` as text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::api_key::WebhookFormat;
use super::destination::WebhookUrl;
use super::entropy::Entropy;
use super::event::WebhookEvent;
use super::secret::PlainSecret;

/// The most bytes of an event's data, without white space. Many receivers refuse bodies larger than a few
/// tens of kilobytes.
pub const EVENT_DATA_MAX: usize = 32 * 1024;

/// How deep an event's data may be nested. Each level makes every line inside it longer.
pub const EVENT_DEPTH_MAX: usize = 16;

/// The `data` of an event: a JSON object, stored as text without white space.
#[derive(Clone, PartialEq, Eq)]
pub struct EventData(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEventData {
    #[error("must be a JSON object")]
    NotAnObject,
    #[error("must be nested at most {EVENT_DEPTH_MAX} deep")]
    TooDeep,
    #[error("must have at most {EVENT_DATA_MAX} characters")]
    TooLong,
}

impl EventData {
    /// Checks data from outside.
    pub fn parse(json: &RawValue) -> Result<Self, BadEventData> {
        let json = json.get();
        if !json.starts_with('{') {
            return Err(BadEventData::NotAnObject);
        }
        if depth(json) > EVENT_DEPTH_MAX {
            return Err(BadEventData::TooDeep);
        }
        let json = lay_out(json, WebhookFormat::SingleJson);
        if json.len() > EVENT_DATA_MAX {
            return Err(BadEventData::TooLong);
        }
        Ok(Self(json))
    }

    /// Takes text that came from [`EventData::as_str`].
    pub const fn from_stored(json: String) -> Self {
        Self(json)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for EventData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: &RawValue = serde_json::from_str(&self.0).expect("it was JSON when it was taken");
        json.serialize(serializer)
    }
}

impl From<Value> for EventData {
    /// For data that this program made.
    fn from(value: Value) -> Self {
        debug_assert!(value.is_object(), "the data of an event is an object");
        Self(value.to_string())
    }
}

impl fmt::Debug for EventData {
    /// The data may be about a payer, so it must not appear in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventData(..)")
    }
}

impl WebhookEvent {
    /// The body that is signed and sent.
    pub fn body(&self, format: WebhookFormat) -> String {
        let json = format!(
            r#"{{"type":{},"timestamp":"{}","data":{}}}"#,
            Value::from(self.event_type.as_str()),
            self.created_at,
            self.data.as_str(),
        );
        match format {
            WebhookFormat::SingleJson => json,
            WebhookFormat::MultipleJson => lay_out(&json, format),
        }
    }
}

/// Rewrites valid JSON with the white space of `format`.
fn lay_out(json: &str, format: WebhookFormat) -> String {
    let breaks_lines = format == WebhookFormat::MultipleJson;
    let mut out = String::with_capacity(json.len() * if breaks_lines { 2 } else { 1 });
    let break_line = |out: &mut String, depth: usize| {
        if breaks_lines {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
    };
    let mut depth = 0;
    let mut tokens = Outside::of(json).peekable();
    while let Some(piece) = tokens.next() {
        match piece {
            Piece::String(text) => out.push_str(text),
            Piece::Mark(open @ ('{' | '[')) => {
                out.push(open);
                if let Some(Piece::Mark(close @ ('}' | ']'))) = tokens.peek() {
                    out.push(*close);
                    tokens.next();
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            Piece::Mark(close @ ('}' | ']')) => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(close);
            }
            Piece::Mark(',') => {
                out.push(',');
                break_line(&mut out, depth);
            }
            Piece::Mark(':') => out.push_str(if breaks_lines { ": " } else { ":" }),
            Piece::Mark(other) => out.push(other),
        }
    }
    out
}

fn depth(json: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for piece in Outside::of(json) {
        match piece {
            Piece::Mark('{' | '[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            Piece::Mark('}' | ']') => depth = depth.saturating_sub(1),
            Piece::Mark(_) | Piece::String(_) => {}
        }
    }
    deepest
}

/// A string with its quotes, or any other single character that is not white space.
enum Piece<'a> {
    String(&'a str),
    Mark(char),
}

/// Splits valid JSON into pieces.
struct Outside<'a> {
    rest: &'a str,
}

impl<'a> Outside<'a> {
    const fn of(rest: &'a str) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Outside<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let first = rest.chars().next()?;
        if first != '"' {
            self.rest = &rest[first.len_utf8()..];
            return Some(Piece::Mark(first));
        }
        let mut is_escaped = false;
        let close = rest.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            closes
        });
        let (string, after) = rest.split_at(close.map_or(rest.len(), |index| index + 2));
        self.rest = after;
        Some(Piece::String(string))
    }
}

/// A signing secret. Those made here have 32 random bytes. The receiver has it too.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    pub fn generate(entropy: &Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes::<32>().to_vec()))
    }

    pub const fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Reads the format that [`Self::to_plain`] writes. Standard Webhooks allows 24 to 64 bytes.
    pub fn from_plain(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.strip_prefix("whsec_")?).ok()?);
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// For sealing only: never show these bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `whsec_` and base64, as the Standard Webhooks libraries expect it.
    pub fn to_plain(&self) -> PlainSecret {
        PlainSecret::new(format!("whsec_{}", STANDARD.encode(&*self.0)))
    }

    /// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
    pub fn sign(&self, id: &str, timestamp_secs: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{timestamp_secs}.").as_bytes());
        mac.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// A message for one attempt. Each attempt has its own timestamp and signature.
#[derive(Debug)]
pub struct SignedMessage {
    pub url: WebhookUrl,
    /// `webhook-id`: the event's id. It is the same in every attempt and redelivery.
    pub id: String,
    pub timestamp_secs: i64,
    /// One signature for each live secret, newest first, separated by spaces.
    pub signature: String,
    pub body: String,
}

impl SignedMessage {
    /// Signs with each of `secrets`. During a rotation there are two.
    pub fn new(
        url: WebhookUrl,
        event: &WebhookEvent,
        format: WebhookFormat,
        secrets: &[WebhookSecret],
        timestamp_secs: i64,
    ) -> Self {
        let id = event.id.to_string();
        let body = event.body(format);
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(&id, timestamp_secs, &body)).collect();
        Self { url, id, timestamp_secs, signature: signatures.join(" "), body }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::ids::{EventId, MerchantId};

    const PUBLISHED: &str = "{ \"amount\" : 10.10,\n\t\"lines\":[1, 2 ], \"note\":{ } }";

    fn event(event_type: &str, data: &str) -> WebhookEvent {
        let raw: &RawValue = serde_json::from_str(data).expect("the data is JSON");
        WebhookEvent {
            id: "019ab0a5-0000-7000-8000-000000000001".parse::<EventId>().expect("a UUID"),
            merchant_id: "019ab0a5-0000-7000-8000-000000000002".parse::<MerchantId>().expect("a UUID"),
            event_type: event_type.to_owned(),
            data: EventData::parse(raw).expect("the data is an object"),
            idempotency_key: None,
            created_at: Timestamp::from_unix_secs(1_795_453_557),
        }
    }

    #[test]
    fn single_json_is_one_line() {
        let body = event("payment.settled", PUBLISHED).body(WebhookFormat::SingleJson);
        assert_eq!(
            body,
            r#"{"type":"payment.settled","timestamp":"2026-11-23T17:05:57.000Z","data":{"amount":10.10,"lines":[1,2],"note":{}}}"#
        );
    }

    #[test]
    fn multiple_json_has_every_field_on_a_line_of_its_own() {
        let body = event("payment.settled", PUBLISHED).body(WebhookFormat::MultipleJson);
        let expected = r#"{
  "type": "payment.settled",
  "timestamp": "2026-11-23T17:05:57.000Z",
  "data": {
    "amount": 10.10,
    "lines": [
      1,
      2
    ],
    "note": {}
  }
}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn strings_digits_and_order_are_not_touched() {
        let data = r#"{"z":"a \"b\": {c, [d]\\","a":1e400,"é":"\u0000\/","n":12345678901234567890.0100}"#;
        assert!(event("x", data).body(WebhookFormat::SingleJson).ends_with(&format!("{data}}}")));
        let lines = event("x", data).body(WebhookFormat::MultipleJson);
        assert!(lines.contains("\n    \"z\": \"a \\\"b\\\": {c, [d]\\\\\",\n    \"a\": 1e400,\n"));
    }

    #[test]
    fn data_from_outside_is_held_to_its_limits() {
        let parse = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).expect("the text is JSON");
            EventData::parse(raw).map(drop)
        };
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(parse("[1]"), Err(BadEventData::NotAnObject));
        assert_eq!(parse("\"{}\""), Err(BadEventData::NotAnObject));
        assert_eq!(parse(&nested(EVENT_DEPTH_MAX)), Ok(()));
        assert_eq!(parse(&nested(EVENT_DEPTH_MAX + 1)), Err(BadEventData::TooDeep));
        let of_length = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
        assert_eq!(parse(&of_length(EVENT_DATA_MAX)), Ok(()));
        assert_eq!(parse(&of_length(EVENT_DATA_MAX + 1)), Err(BadEventData::TooLong));
    }

    #[test]
    fn the_signature_is_the_one_of_the_published_example() {
        // The test vector of the Standard Webhooks libraries.
        let bytes = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let secret = WebhookSecret::from_bytes(Zeroizing::new(bytes));
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(secret.to_plain().expose(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// serde_json writes the same two layouts, and `lay_out` must agree with it whichever one it reads.
        #[test]
        fn the_layouts_are_those_of_the_json_library(value in any_json()) {
            let line = value.to_string();
            let lines = serde_json::to_string_pretty(&value).expect("a value can be written");
            for json in [&line, &lines] {
                prop_assert_eq!(&lay_out(json, WebhookFormat::SingleJson), &line);
                prop_assert_eq!(&lay_out(json, WebhookFormat::MultipleJson), &lines);
            }
        }
    }
}
