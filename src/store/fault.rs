//! The meaning of database errors: one table for SQLSTATE codes, SQLite's result codes and broken
//! connections. It says what the caller gets, what happens to the connection, and how the error is logged.

use std::io::{self, ErrorKind};

use strum::{EnumCount, IntoStaticStr};
use tracing::Level;

/// What is wrong. The log uses these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    /// Gone, starting, stopping, or cut off.
    Unreachable,
    /// Wrong password, unknown role, or refused by `pg_hba.conf`.
    LoginRefused,
    NoSuchDatabase,
    TooManyConnections,
    /// A standby, or a primary that does not accept writes.
    ReadOnly,
    /// A statement reached its time limit, or a file is locked.
    TooSlow,
    /// No room on the disk or in memory, or the disk fails.
    NoRoom,
    /// Tables are missing: a migration or a restore is under way.
    NoSchema,
    /// The role lacks a privilege.
    NotPermitted,
    /// No connection of the pool became free in time.
    PoolExhausted,
    /// A queue of the hot path is full, or a call waited in it too long.
    QueueFull,
    Contention,
    Conflict,
    /// A pooler runs our statements on a connection on which they were not prepared.
    Pooler,
    Other,
}

impl Fault {
    /// Whether this is caused by another fault that was already logged, or by load.
    pub(super) const fn is_consequence(self) -> bool {
        matches!(self, Self::PoolExhausted | Self::QueueFull)
    }
}

/// What the caller gets for the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 503 with `Retry-After`.
    ComeBack,
    /// Retry the statement, then 503.
    TryAgain,
    /// The caller's mistake: 409, or what the flow makes of it.
    Taken,
    /// 500.
    Defect,
}

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Keep,
    Close,
    /// Close this one and every other connection that was made before now.
    CloseAll,
}

#[derive(Debug)]
pub(super) struct Row {
    /// SQLSTATE codes of five characters, or classes of two.
    codes: &'static [&'static str],
    pub(super) fault: Fault,
    pub(super) answer: Answer,
    pub(super) link: Link,
    /// The level of the outage's log line. `ERROR` if somebody has to do something.
    pub(super) level: Level,
}

const fn row(codes: &'static [&'static str], fault: Fault, answer: Answer, link: Link, level: Level) -> Row {
    Row { codes, fault, answer, link, level }
}

/// The first row with the code applies.
static POSTGRES: [Row; 15] = {
    use Answer::{ComeBack, Defect, Taken, TryAgain};
    use Link::{Close, CloseAll, Keep};
    const WARN: Level = Level::WARN;
    const ERROR: Level = Level::ERROR;
    [
        row(&["25006"], Fault::ReadOnly, ComeBack, CloseAll, WARN),
        // Idle in a transaction too long, or a transaction that took too long.
        row(&["25P03", "25P04"], Fault::TooSlow, ComeBack, Close, WARN),
        row(&["57014"], Fault::TooSlow, ComeBack, Keep, WARN),
        row(&["55P03", "40"], Fault::Contention, TryAgain, Keep, WARN),
        row(&["28"], Fault::LoginRefused, ComeBack, Close, ERROR),
        row(&["3D", "57P04"], Fault::NoSuchDatabase, ComeBack, Close, ERROR),
        row(&["53300"], Fault::TooManyConnections, ComeBack, Close, WARN),
        row(&["53", "58"], Fault::NoRoom, ComeBack, Keep, ERROR),
        // 55000 and 55006: a database that does not accept connections at the moment.
        row(&["08", "57", "55000", "55006"], Fault::Unreachable, ComeBack, Close, WARN),
        // 0A000: a plan from before the tables changed.
        row(&["42P01", "42703", "3F000", "0A000"], Fault::NoSchema, ComeBack, Close, ERROR),
        row(&["42501"], Fault::NotPermitted, ComeBack, Keep, ERROR),
        row(&["23505"], Fault::Conflict, Taken, Keep, WARN),
        row(&["26000", "42P05"], Fault::Pooler, Defect, Keep, ERROR),
        // Continuing a transaction after an error is a bug of ours.
        row(&["25"], Fault::Other, Defect, Close, ERROR),
        row(&[""], Fault::Other, Defect, Keep, ERROR),
    ]
};

/// By primary result code. The extended codes only add details.
static SQLITE: [(&[u32], Row); 6] = {
    use Answer::{ComeBack, Defect};
    use Link::Keep;
    [
        // Busy, locked, and a failed locking protocol.
        (&[5, 6, 15], row(&[], Fault::TooSlow, ComeBack, Keep, Level::WARN)),
        // Out of memory, I/O error, full.
        (&[7, 10, 13], row(&[], Fault::NoRoom, ComeBack, Keep, Level::ERROR)),
        (&[8], row(&[], Fault::ReadOnly, ComeBack, Keep, Level::ERROR)),
        (&[14], row(&[], Fault::Unreachable, ComeBack, Keep, Level::ERROR)),
        (&[3, 23], row(&[], Fault::NotPermitted, ComeBack, Keep, Level::ERROR)),
        (&[], row(&[], Fault::Other, Defect, Keep, Level::ERROR)),
    ]
};

static CONFLICT: Row = row(&[], Fault::Conflict, Answer::Taken, Link::Keep, Level::WARN);
/// After such an error we do not know how much of an answer is still to come.
static BROKEN: Row = row(&[], Fault::Unreachable, Answer::ComeBack, Link::Close, Level::WARN);
static FOUND_READ_ONLY: Row = row(&[], Fault::ReadOnly, Answer::ComeBack, Link::CloseAll, Level::WARN);
static EXHAUSTED: Row = row(&[], Fault::PoolExhausted, Answer::ComeBack, Link::Keep, Level::WARN);
static OURS: Row = row(&[], Fault::Other, Answer::Defect, Link::Keep, Level::ERROR);

/// The row of the table for an error.
pub(super) fn of(error: &sqlx::Error) -> &'static Row {
    match error {
        // Not by the constraint's name, because names differ between engines.
        sqlx::Error::Database(database) if database.is_unique_violation() => &CONFLICT,
        sqlx::Error::Database(database) => of_code(&database.code().unwrap_or_default()),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => &FOUND_READ_ONLY,
        sqlx::Error::PoolTimedOut => &EXHAUSTED,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => &BROKEN,
        _ => &OURS,
    }
}

fn of_code(code: &str) -> &'static Row {
    // SQLSTATE codes have five characters, SQLite's codes have at most four digits.
    if code.len() == 5 {
        let has = |row: &&Row| row.codes.iter().any(|known| code.starts_with(known));
        return POSTGRES.iter().find(has).unwrap_or(&OURS);
    }
    let primary = code.parse::<u32>().map_or(0, |code| code & 0xff);
    SQLITE.iter().find(|(codes, _)| codes.contains(&primary)).map_or(&OURS, |(_, row)| row)
}

/// The error for a server that does not accept writes.
pub(super) fn read_only() -> sqlx::Error {
    io::Error::new(ErrorKind::ReadOnlyFilesystem, "the server takes no writes: a standby, or read-only")
        .into()
}

/// The error for a statement that took too long.
pub(super) fn no_answer() -> sqlx::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer in time").into()
}

/// Whether a failed connection may succeed a moment later.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem
        ),
        // 57P03: starting up.
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("53300" | "57P03")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_answer_and_its_fate_for_the_connection() {
        for (code, fault, answer, link) in [
            ("25006", Fault::ReadOnly, Answer::ComeBack, Link::CloseAll),
            ("25P03", Fault::TooSlow, Answer::ComeBack, Link::Close),
            ("25P02", Fault::Other, Answer::Defect, Link::Close),
            ("57014", Fault::TooSlow, Answer::ComeBack, Link::Keep),
            ("57P01", Fault::Unreachable, Answer::ComeBack, Link::Close),
            ("57P04", Fault::NoSuchDatabase, Answer::ComeBack, Link::Close),
            ("08006", Fault::Unreachable, Answer::ComeBack, Link::Close),
            ("28P01", Fault::LoginRefused, Answer::ComeBack, Link::Close),
            ("28000", Fault::LoginRefused, Answer::ComeBack, Link::Close),
            ("3D000", Fault::NoSuchDatabase, Answer::ComeBack, Link::Close),
            ("53300", Fault::TooManyConnections, Answer::ComeBack, Link::Close),
            ("53100", Fault::NoRoom, Answer::ComeBack, Link::Keep),
            ("42P01", Fault::NoSchema, Answer::ComeBack, Link::Close),
            ("40P01", Fault::Contention, Answer::TryAgain, Link::Keep),
            ("55P03", Fault::Contention, Answer::TryAgain, Link::Keep),
            ("42601", Fault::Other, Answer::Defect, Link::Keep),
            ("22021", Fault::Other, Answer::Defect, Link::Keep),
            ("5", Fault::TooSlow, Answer::ComeBack, Link::Keep),
            ("517", Fault::TooSlow, Answer::ComeBack, Link::Keep),
            ("13", Fault::NoRoom, Answer::ComeBack, Link::Keep),
            ("1032", Fault::ReadOnly, Answer::ComeBack, Link::Keep),
            ("1", Fault::Other, Answer::Defect, Link::Keep),
        ] {
            let row = of_code(code);
            assert_eq!((row.fault, row.answer, row.link), (fault, answer, link), "{code}");
        }
    }
}
