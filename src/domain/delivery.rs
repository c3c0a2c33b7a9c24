//! Webhook deliveries: attempts, what an answer means, and when to try again.
//!
//! A delivery is pending until it is delivered or given up. Redelivering starts a new round: the schedule
//! starts again, and the attempts are still numbered from the very first one.

use std::time::UNIX_EPOCH;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::clock::Timestamp;
use super::ids::{ApiKeyId, DeliveryId, EventId, MerchantId};
use super::stored::SmallNumber;
use super::webhook::EventData;

/// The pauses after the first three attempts of a round. After that the pause is [`HOURLY`].
const FIRST_PAUSES: [TimeDelta; 3] = [TimeDelta::minutes(1), TimeDelta::minutes(5), TimeDelta::minutes(30)];

const HOURLY: TimeDelta = TimeDelta::hours(1);

/// The length of a round: no attempt starts later than this after the first one.
pub const ROUND: TimeDelta = TimeDelta::hours(24);

/// When a round is given up and every attempt of the last seven days has failed, the endpoint is disabled.
pub const PATIENCE: TimeDelta = TimeDelta::days(7);

/// How many bytes of an answer are kept.
pub const ANSWER_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, EnumString, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryState {
    /// Will be attempted, now or later.
    Pending,
    Delivered,
    /// Was given up, or its endpoint is disabled or gone. It can be redelivered.
    Failed,
}

/// Why an attempt got no answer. Stored by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SendError {
    /// The settings do not allow this URL.
    UrlNotAllowed,
    NameNotResolved,
    /// Webhooks may not go to one of the host's addresses. No connection was made.
    AddressNotAllowed,
    ConnectionRefused,
    ConnectFailed,
    /// The connection broke or the receiver gave up during the TLS handshake.
    TlsFailed,
    /// The receiver's certificate is for another name.
    TlsNameMismatch,
    /// The certificate has expired or is not valid yet.
    TlsCertificateExpired,
    /// No trusted certificate authority has signed it.
    TlsUnknownAuthority,
    /// The receiver shares no TLS version or cipher with us, or does not speak TLS at all.
    TlsProtocol,
    /// The proxy in `[webhooks] proxy` cannot be reached.
    ProxyUnreachable,
    /// The proxy answered, but did not connect to the receiver.
    ProxyRefused,
    ConnectionLost,
    /// The answer was not HTTP.
    AnswerMalformed,
    TimedOut,
    /// No signing secret can be read. We never send an unsigned webhook.
    SecretMissing,
}

/// The result of one attempt.
#[derive(Clone, Debug)]
pub struct Answer {
    pub result: Result<Received, SendError>,
    pub latency_us: i64,
}

impl Answer {
    /// Only 2xx is success.
    pub fn is_success(&self) -> bool {
        matches!(&self.result, Ok(received) if (200..300).contains(&received.status))
    }

    /// 410: the endpoint says that it no longer exists.
    pub fn is_gone(&self) -> bool {
        matches!(&self.result, Ok(received) if received.status == 410)
    }
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub struct Received {
    pub status: u16,
    /// The `Retry-After` header, not parsed yet.
    pub retry_after: Option<String>,
    /// The first [`ANSWER_MAX`] bytes of the body, as text.
    pub text: String,
}

#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[schema(as = AttemptView)]
pub struct Attempt {
    // From 1.
    pub number: i64,
    pub at: Timestamp,
    /// The HTTP status of the answer; null if there was none.
    #[sqlx(try_from = "SmallNumber")]
    pub status: Option<u16>,
    /// Why there was no answer, such as `connection_refused`.
    #[schema(value_type = Option<String>)]
    pub error: Option<SendError>,
    /// In microseconds.
    pub latency_us: i64,
    /// The first 1 KiB of the answer's body.
    pub response: String,
}

#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[schema(as = DeliveryView)]
pub struct Delivery {
    pub id: DeliveryId,
    /// The `webhook-id` of every attempt.
    pub event_id: EventId,
    #[serde(skip)]
    pub merchant_id: MerchantId,
    pub api_key_id: ApiKeyId,
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    pub event_type: String,
    /// The event's `data` as sent.
    #[schema(value_type = Object)]
    pub data: EventData,
    pub state: DeliveryState,
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub finished_at: Option<Timestamp>,
    // While an attempt is under way: when it counts as abandoned.
    /// When the next attempt is due; null when the delivery is finished.
    pub next_attempt_at: Option<Timestamp>,
    /// Oldest first.
    #[sqlx(skip)]
    pub attempts: Vec<Attempt>,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    RetryAt(Timestamp),
    GiveUp,
    Gone,
}

/// Where a round stands after an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Attempts made in this round, including the last one.
    pub tries: i64,
    pub began_at: Timestamp,
}

/// `jitter` is a random number that adds up to a tenth to the pause, to spread retries.
pub fn judge(answer: &Answer, round: Round, now: Timestamp, jitter: u16) -> Verdict {
    if answer.is_success() {
        return Verdict::Delivered;
    }
    if answer.is_gone() {
        return Verdict::Gone;
    }
    let retry_after = answer.result.as_ref().ok().and_then(|received| received.retry_after.as_deref());
    let retry_after = retry_after.and_then(|value| parse_retry_after(value, now));
    next_attempt(round, now, retry_after, jitter).map_or(Verdict::GiveUp, Verdict::RetryAt)
}

/// When to try again. Never before the pause is over. Later if the endpoint asked for that, but not after
/// the end of the round. `None` when the round is over.
fn next_attempt(
    round: Round,
    now: Timestamp,
    retry_after: Option<Timestamp>,
    jitter: u16,
) -> Option<Timestamp> {
    let pause = usize::try_from(round.tries - 1).ok().and_then(|index| FIRST_PAUSES.get(index).copied());
    let pause = pause.unwrap_or(HOURLY);
    let spread = TimeDelta::microseconds(
        pause.num_microseconds().unwrap_or(0) / 10 * i64::from(jitter) / i64::from(u16::MAX),
    );
    let end = round.began_at.plus(ROUND);
    let scheduled = now.plus(pause).plus(spread);
    let asked_for = retry_after.map_or(scheduled, |time| time.min(end));
    let next = scheduled.max(asked_for);
    (next <= end).then_some(next)
}

/// Seconds, or a date in any of the three forms (RFC 9110 10.2.3 and 5.6.7).
fn parse_retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with too many digits means "very late", not "now".
        let secs = value.parse::<u32>().unwrap_or(u32::MAX);
        return Some(now.plus(TimeDelta::seconds(secs.into())));
    }
    let since_epoch = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_secs()).ok().map(Timestamp::from_unix_secs)
}

/// Whether an endpoint has only failed for so long that it should be disabled.
pub fn is_hopeless(failing_since: Option<Timestamp>, now: Timestamp) -> bool {
    failing_since.is_some_and(|since| now >= since.plus(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_secs(1_795_453_557);

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let retry_after = retry_after.map(str::to_owned);
        Answer { result: Ok(Received { status, retry_after, text: String::new() }), latency_us: 1 }
    }

    fn after(tries: i64, at: TimeDelta, answer: &Answer, jitter: u16) -> Verdict {
        judge(answer, Round { tries, began_at: START }, START.plus(at), jitter)
    }

    #[test]
    fn attempts_come_after_1_5_and_30_minutes_and_then_hourly_up_to_24_hours() {
        let mut minutes = vec![0];
        let mut now = START;
        for tries in 1.. {
            let round = Round { tries, began_at: START };
            match judge(&answer(500, None), round, now, 0) {
                Verdict::RetryAt(next) => now = next,
                verdict => {
                    assert_eq!(verdict, Verdict::GiveUp);
                    break;
                }
            }
            minutes.push(now.since(START).num_minutes());
        }
        let hourly = (1..=23).map(|hour| 36 + hour * 60);
        assert_eq!(minutes, [0, 1, 6, 36].into_iter().chain(hourly).collect::<Vec<_>>());
    }

    #[test]
    fn the_jitter_adds_at_most_a_tenth() {
        let wait = |jitter| match after(2, TimeDelta::zero(), &answer(500, None), jitter) {
            Verdict::RetryAt(next) => next.since(START),
            verdict => unreachable!("a second attempt is tried again, not {verdict:?}"),
        };
        assert_eq!(wait(0), TimeDelta::seconds(300));
        assert_eq!(wait(u16::MAX / 3), TimeDelta::seconds(310));
        assert_eq!(wait(u16::MAX), TimeDelta::seconds(330));
    }

    #[test]
    fn retry_after_makes_it_later_and_never_sooner() {
        let first = |value: &str| after(1, TimeDelta::zero(), &answer(503, Some(value)), 0);
        let at = |secs| Verdict::RetryAt(START.plus(TimeDelta::seconds(secs)));
        assert_eq!(first("600"), at(600));
        assert_eq!(first("1"), at(60));
        for date in
            ["Mon, 23 Nov 2026 17:15:57 GMT", "Monday, 23-Nov-26 17:15:57 GMT", "Mon Nov 23 17:15:57 2026"]
        {
            assert_eq!(first(date), at(600), "{date}");
        }
        assert_eq!(first("Mon, 23 Nov 2020 17:15:57 GMT"), at(60));
        for nonsense in ["", "soon", "-5", "1.5", "+600"] {
            assert_eq!(first(nonsense), at(60), "{nonsense}");
        }
        // Past the end of the round: once more, at its end.
        assert_eq!(first("99999999999999999999"), at(24 * 3600));
        assert_eq!(after(9, ROUND, &answer(503, Some("99999")), 0), Verdict::GiveUp);
    }

    #[test]
    fn only_2xx_is_success_and_410_is_the_end() {
        let verdict = |status| after(1, TimeDelta::zero(), &answer(status, None), 0);
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status), Verdict::Delivered, "{status}");
        }
        assert_eq!(verdict(410), Verdict::Gone);
        for status in [100, 199, 300, 301, 302, 304, 400, 404, 409, 429, 500, 503] {
            assert!(matches!(verdict(status), Verdict::RetryAt(_)), "{status}");
        }
        let lost = Answer { result: Err(SendError::ConnectionLost), latency_us: 1 };
        assert!(matches!(after(1, TimeDelta::zero(), &lost, 0), Verdict::RetryAt(_)));
        assert_eq!(after(40, ROUND, &lost, 0), Verdict::GiveUp);
    }

    #[test]
    fn an_endpoint_is_hopeless_after_a_week_of_nothing_but_failures() {
        let week = START.plus(TimeDelta::days(7));
        assert!(!is_hopeless(None, week));
        assert!(!is_hopeless(Some(START), week.minus(TimeDelta::seconds(1))));
        assert!(is_hopeless(Some(START), week));
    }
}
