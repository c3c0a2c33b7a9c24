//! The group-commit statements on sessions: open, rotate and look up many in one statement each.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use constcat::concat;

use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::scope::Scopes;
use crate::domain::session::Session;
use crate::store::StoreError;
use crate::store::columns::Column;
use crate::store::driver::{Connection, Sql};

/// A session to write if the merchant still has this `revision`.
#[derive(Clone)]
pub struct Open {
    pub session: Session,
    pub revision: i64,
}

const OPEN: Sql = Sql {
    postgres: "insert into sessions (id, merchant_id, credential_id, epoch, token_key_id, secret, generation, \
               started_at, rotated_at, expires_at, scopes) \
               select c.id, c.merchant_id, c.credential_id, c.epoch, c.token_key_id, c.secret, 1, \
               c.started_at, c.started_at, c.expires_at, c.scopes \
               from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], \
               $7::bytea[], $8::bigint[], $9::bigint[], $10::text[]) \
               as c (id, merchant_id, revision, credential_id, epoch, token_key_id, secret, started_at, expires_at, \
               scopes) \
               where c.revision = (select m.revision from merchants m where m.id = c.merchant_id)",
    sqlite: "insert into sessions (id, merchant_id, credential_id, epoch, token_key_id, secret, generation, \
             started_at, rotated_at, expires_at, scopes) \
             select unhex(c.value ->> 0), m.id, unhex(c.value ->> 3), c.value ->> 4, c.value ->> 5, \
             unhex(c.value ->> 6), 1, c.value ->> 7, c.value ->> 7, c.value ->> 8, c.value ->> 9 \
             from jsonb_each($1) as c \
             join merchants m on m.id = unhex(c.value ->> 1) and m.revision = c.value ->> 2",
};

const WRITTEN: Sql = Sql {
    postgres: "select id from sessions where id = any($1::uuid[])",
    sqlite: "select id from sessions where id in (select unhex(value ->> 0) from jsonb_each($1))",
};

/// Writes new sessions in one statement. `false` for a session whose merchant has another revision by now.
/// That session was not written.
pub(super) async fn open(db: &mut Connection, opens: &[Open]) -> Result<Vec<bool>, StoreError> {
    let sessions = || opens.iter().map(|open| &open.session);
    let columns = vec![
        Column::ids(sessions().map(|session| session.id)),
        Column::ids(sessions().map(|session| session.merchant_id)),
        Column::ints(opens.iter().map(|open| open.revision)),
        Column::ids(sessions().map(|session| session.credential_id)),
        Column::ints(sessions().map(|session| session.epoch)),
        Column::ints(sessions().map(|session| session.token_key_id)),
        Column::bytes(sessions().map(|session| session.secret.as_slice())),
        Column::times(sessions().map(|session| session.started_at)),
        Column::times(sessions().map(|session| session.expires_at)),
        Column::text(sessions().map(|session| session.scopes.as_ref().map(Scopes::as_str))),
    ];
    if db.batch(&OPEN, columns).execute().await? == opens.len() as u64 {
        return Ok(vec![true; opens.len()]);
    }
    let ids = Column::ids(sessions().map(|session| session.id));
    let written: HashSet<_> =
        db.batch(&WRITTEN, vec![ids]).all::<(SessionId,)>().await?.into_iter().collect();
    Ok(opens.iter().map(|open| written.contains(&(open.session.id,))).collect())
}

/// A rotation of a session from its current generation to the next.
#[derive(Clone)]
pub struct Rotate {
    pub session: SessionId,
    pub generation: u32,
    pub revision: i64,
    pub now: Timestamp,
}

/// The row after a rotation.
#[derive(Clone, Copy)]
pub struct Rotated {
    pub generation: u32,
    pub rotated_at: Timestamp,
}

/// The revision is read by a subquery that the planner cannot turn into a join. With a join on the merchant,
/// PostgreSQL may walk all of the merchant's sessions, and does so while it has no statistics yet.
const ROTATE: Sql = Sql {
    postgres: "update sessions set generation = sessions.generation + 1, rotated_at = c.now \
               from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) \
               as c (id, generation, revision, now) \
               where sessions.id = c.id and sessions.generation = c.generation \
               and sessions.revoked_at is null \
               and c.revision = (select m.revision from merchants m where m.id = sessions.merchant_id) \
               returning sessions.id, sessions.generation, sessions.rotated_at",
    sqlite: "update sessions set generation = sessions.generation + 1, rotated_at = c.now \
             from (select unhex(value ->> 0) as id, value ->> 1 as generation, value ->> 2 as revision, \
             value ->> 3 as now from jsonb_each($1)) as c \
             where sessions.id = c.id and sessions.generation = c.generation \
             and sessions.revoked_at is null \
             and c.revision = (select m.revision from merchants m where m.id = sessions.merchant_id) \
             returning id, generation, rotated_at",
};

/// Moves sessions to their next generation in one statement. `None` if the row has changed: another call
/// rotated it, it was revoked, or the merchant has another revision.
///
/// Callers that ask for the same rotation in one batch all get its result if they used the same revision. A
/// caller that used an older revision gets `None`, because it decided with an outdated record.
pub(super) async fn rotate(
    db: &mut Connection,
    rotations: &[Rotate],
) -> Result<Vec<Option<Rotated>>, StoreError> {
    // Use one row for each rotation, sorted by id, so that all batches lock rows in the same order. Keep the
    // latest revision, because only that one can be current.
    let mut distinct: Vec<&Rotate> = rotations.iter().collect();
    distinct.sort_by_key(|rotation| (rotation.session, rotation.generation, Reverse(rotation.revision)));
    distinct.dedup_by_key(|rotation| (rotation.session, rotation.generation));
    let columns = vec![
        Column::ids(distinct.iter().map(|rotation| rotation.session)),
        Column::ints(distinct.iter().map(|rotation| rotation.generation.into())),
        Column::ints(distinct.iter().map(|rotation| rotation.revision)),
        Column::times(distinct.iter().map(|rotation| rotation.now)),
    ];
    let revisions: HashMap<_, _> = distinct
        .iter()
        .map(|rotation| ((rotation.session, rotation.generation), rotation.revision))
        .collect();
    let rows = db.batch(&ROTATE, columns).all::<(SessionId, i64, Timestamp)>().await?;
    let mut rotated = HashMap::with_capacity(rows.len());
    for (id, generation, rotated_at) in rows {
        rotated.insert(id, Rotated { generation: generation_of(id, generation)?, rotated_at });
    }
    let outcome = |rotation: &Rotate| {
        let decided_by = revisions.get(&(rotation.session, rotation.generation));
        rotated
            .get(&rotation.session)
            .copied()
            .filter(|rotated| rotated.generation == rotation.generation + 1)
            .filter(|_| decided_by == Some(&rotation.revision))
    };
    Ok(rotations.iter().map(outcome).collect())
}

/// A session with its merchant's revision, both current.
#[derive(Clone, sqlx::FromRow)]
pub struct Found {
    #[sqlx(flatten)]
    pub session: Session,
    pub revision: i64,
}

fn generation_of(id: SessionId, generation: i64) -> Result<u32, StoreError> {
    u32::try_from(generation).map_err(|_| StoreError::Impossible {
        table: "sessions",
        what: format!("generation {generation} of {id}"),
    })
}

const FOUND: &str = "select s.id, s.merchant_id, s.credential_id, s.epoch, s.token_key_id, s.secret, s.scopes, s.generation, \
     s.started_at, s.rotated_at, s.expires_at, s.revoked_at, m.revision \
     from sessions s join merchants m on m.id = s.merchant_id";

const LOOK_UP: Sql = Sql {
    postgres: concat!(FOUND, " where s.id = any($1::uuid[])"),
    sqlite: concat!(FOUND, " where s.id in (select unhex(value ->> 0) from jsonb_each($1))"),
};

/// Reads the current state of sessions and the revisions of their merchants, in one statement.
pub(super) async fn look_up(
    db: &mut Connection,
    ids: &[SessionId],
) -> Result<Vec<Option<Found>>, StoreError> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows = db.batch(&LOOK_UP, vec![Column::ids(distinct.into_iter())]).all::<Found>().await?;
    let found: HashMap<_, _> = rows.into_iter().map(|found| (found.session.id, found)).collect();
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

const REVISIONS: Sql = Sql {
    postgres: "select id, revision from merchants where id = any($1::uuid[])",
    sqlite: "select id, revision from merchants where id in (select unhex(value ->> 0) from jsonb_each($1))",
};

/// Reads the current revisions of merchants.
pub(super) async fn revisions(
    db: &mut Connection,
    ids: &[MerchantId],
) -> Result<Vec<Option<i64>>, StoreError> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows =
        db.batch(&REVISIONS, vec![Column::ids(distinct.into_iter())]).all::<(MerchantId, i64)>().await?;
    let found: HashMap<_, _> = rows.into_iter().collect();
    Ok(ids.iter().map(|id| found.get(id).copied()).collect())
}
