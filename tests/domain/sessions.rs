//! The rotation rule, as a table.

use chrono::TimeDelta;
use tollgate::domain::clock::Timestamp;
use tollgate::domain::entropy::Entropy;
use tollgate::domain::ids::{CredentialId, MerchantId, SessionId};
use tollgate::domain::reason::Reason;
use tollgate::domain::session::{Lifetimes, Session, Verdict, judge_refresh};
use tollgate::domain::token::{Claims, TokenKind};
use zeroize::Zeroizing;

const START: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

fn lifetimes(window_secs: i64) -> Lifetimes {
    Lifetimes {
        access_ttl: TimeDelta::hours(1),
        refresh_ttl: TimeDelta::days(30),
        session_ttl: TimeDelta::days(365),
        retry_window: TimeDelta::seconds(window_secs),
    }
}

/// A session in its fifth generation since `START`.
fn session() -> Session {
    let entropy = Entropy::seeded(1);
    Session {
        id: SessionId::generate(START, &entropy),
        merchant_id: MerchantId::generate(START, &entropy),
        credential_id: CredentialId::generate(START, &entropy),
        epoch: 1,
        token_key_id: 1,
        secret: Zeroizing::new(vec![7; 32]),
        scopes: None,
        generation: 5,
        started_at: START,
        rotated_at: START,
        expires_at: START.plus(TimeDelta::days(365)),
        revoked_at: None,
    }
}

fn verdict(session: &Session, generation: u32, window_secs: i64, after: TimeDelta) -> Verdict {
    let expires_at = START.plus(TimeDelta::days(30));
    let claims = Claims { kind: TokenKind::Refresh, session: session.id, generation, expires_at };
    judge_refresh(session, claims, lifetimes(window_secs), START.plus(after))
}

#[test]
fn a_refresh_token_earns_what_its_generation_and_age_say() {
    use Verdict::{Refuse, Repeat, Replay, Rotate};
    let (now, window, idle) = (TimeDelta::zero(), TimeDelta::seconds(60), TimeDelta::days(30));
    let table = [
        // The current generation works until the idle time is over.
        (5, 60, now, Rotate),
        (5, 0, now, Rotate),
        (5, 60, idle - MOMENT, Rotate),
        (5, 60, idle, Refuse(Reason::TokenExpired)),
        // The previous generation, within the window and at its end.
        (4, 60, now, Repeat),
        (4, 60, window - MOMENT, Repeat),
        (4, 60, window, Replay),
        (4, 60, window + MOMENT, Replay),
        (4, 60, idle + idle, Replay),
        // A clock that was set back does not cause a replay.
        (4, 60, -window, Repeat),
        // Without a window.
        (4, 0, now, Replay),
        (4, 1, TimeDelta::seconds(1), Replay),
        // Older generations, at any time.
        (3, 60, now, Replay),
        (1, 3600, now, Replay),
        (0, 60, now, Replay),
        // Generations that this row has not reached.
        (6, 60, now, Refuse(Reason::TokenUnknown)),
        (u32::MAX, 60, now, Refuse(Reason::TokenUnknown)),
    ];
    for (generation, window_secs, after, expected) in table {
        assert_eq!(
            verdict(&session(), generation, window_secs, after),
            expected,
            "generation {generation}, window {window_secs} s, after {after}"
        );
    }
}

#[test]
fn of_a_session_that_is_over_no_token_earns_anything() {
    let revoked = Session { revoked_at: Some(START), ..session() };
    let expired = Session { expires_at: START.plus(TimeDelta::hours(2)), ..session() };
    for generation in 0..8 {
        let after = TimeDelta::hours(2);
        assert_eq!(verdict(&revoked, generation, 60, after), Verdict::Refuse(Reason::SessionRevoked));
        assert_eq!(verdict(&expired, generation, 60, after), Verdict::Refuse(Reason::SessionExpired));
    }
    assert_eq!(verdict(&expired, 5, 60, TimeDelta::hours(2) - MOMENT), Verdict::Rotate);
}
