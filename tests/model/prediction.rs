//! The model: a few merchants, keys, clients and sessions in plain vectors, and the answers that
//! the server must give. Times are microseconds of the manual clock.

use crate::support::Tokens;

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const ACCESS_TTL: i64 = 3600 * SECOND;
pub(super) const REFRESH_TTL: i64 = 30 * 24 * 3600 * SECOND;
pub(super) const SESSION_TTL: i64 = 365 * 24 * 3600 * SECOND;
pub(super) const RETRY_WINDOW: i64 = 60 * SECOND;
pub(super) const RESTORE_WINDOW: i64 = 3600 * SECOND;

#[derive(Clone, Copy, Debug)]
pub(super) struct Licence {
    pub(super) active: bool,
    pub(super) expires_at: Option<i64>,
}

impl Licence {
    pub(super) const GOOD: Self = Self { active: true, expires_at: None };

    pub(super) fn is_good(self, now: i64) -> bool {
        self.active && self.expires_at.is_none_or(|end| now < end)
    }
}

#[derive(Debug)]
pub(super) struct Merchant {
    pub(super) suspended: bool,
    pub(super) api_keys: Licence,
    pub(super) enhanced_security: Licence,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) merchant: usize,
    pub(super) revoked_at: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) key: usize,
    pub(super) enabled: bool,
    pub(super) epoch: u32,
}

/// The tokens of one rotation.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) tokens: Tokens,
    pub(super) access_ends: i64,
    pub(super) refresh_ends: i64,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: usize,
    pub(super) epoch: u32,
    pub(super) rotated_at: i64,
    pub(super) ends_at: i64,
    pub(super) revoked: bool,
    /// One for each generation, in order.
    pub(super) issued: Vec<Issued>,
}

/// The expected result of a call for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A new pair.
    Fresh,
    /// Exactly the last pair of the session.
    Same,
    Refused(u16, &'static str),
    /// `invalid_grant`, and the end of the session.
    Replay,
}

const INVALID_CLIENT: Expected = Expected::Refused(401, "invalid_client");
const UNAUTHORIZED: Expected = Expected::Refused(400, "unauthorized_client");
const INVALID_GRANT: Expected = Expected::Refused(400, "invalid_grant");

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) merchants: Vec<Merchant>,
    pub(super) keys: Vec<Key>,
    pub(super) clients: Vec<Client>,
    pub(super) sessions: Vec<Session>,
    pub(super) replays: i64,
}

impl Model {
    pub(super) fn merchant_of(&self, client: usize) -> usize {
        self.keys[self.clients[client].key].merchant
    }

    fn key_works(&self, key: usize, now: i64) -> bool {
        let key = &self.keys[key];
        let merchant = &self.merchants[key.merchant];
        key.revoked_at.is_none() && !merchant.suspended && merchant.api_keys.is_good(now)
    }

    fn is_on(&self, client: usize, now: i64) -> bool {
        self.clients[client].enabled
            && self.merchants[self.merchant_of(client)].enhanced_security.is_good(now)
    }

    /// `None` if the client is accepted.
    pub(super) fn admission(&self, client: usize, now: i64) -> Option<Expected> {
        if !self.key_works(self.clients[client].key, now) {
            Some(INVALID_CLIENT)
        } else if !self.is_on(client, now) {
            Some(UNAUTHORIZED)
        } else {
            None
        }
    }

    /// A refresh by `client` with the token of a generation, counted from 0, of a session.
    pub(super) fn refresh(&self, client: usize, session: usize, generation: usize, now: i64) -> Expected {
        if let Some(refused) = self.admission(client, now) {
            return refused;
        }
        let session = &self.sessions[session];
        let is_live = session.client == client
            && session.epoch == self.clients[client].epoch
            && !session.revoked
            && now < session.ends_at;
        if !is_live {
            return INVALID_GRANT;
        }
        match session.issued.len() - 1 - generation {
            0 if now < session.issued[generation].refresh_ends => Expected::Fresh,
            0 => INVALID_GRANT,
            1 if now < session.rotated_at + RETRY_WINDOW => Expected::Same,
            _ => Expected::Replay,
        }
    }

    /// Whether everything that a session depends on is valid. Whether a token is active then depends only on
    /// the token.
    fn is_backed(&self, session: &Session, now: i64) -> bool {
        self.admission(session.client, now).is_none()
            && session.epoch == self.clients[session.client].epoch
            && !session.revoked
            && now < session.ends_at
    }

    pub(super) fn access_is_active(&self, session: usize, generation: usize, now: i64) -> bool {
        let session = &self.sessions[session];
        self.is_backed(session, now) && now < session.issued[generation].access_ends
    }

    pub(super) fn refresh_is_active(&self, session: usize, generation: usize, now: i64) -> bool {
        let session = &self.sessions[session];
        self.is_backed(session, now)
            && generation + 1 == session.issued.len()
            && now < session.issued[generation].refresh_ends
    }

    /// The status of forward authentication with a key and an access token.
    pub(super) fn verify(&self, key: usize, session: usize, generation: usize, now: i64) -> u16 {
        let of = self.sessions[session].client;
        if !self.key_works(key, now) || self.keys[key].merchant != self.merchant_of(of) {
            return 401;
        }
        let key_of_session = self.clients[of].key;
        if self.key_works(key_of_session, now) && !self.is_on(of, now) {
            return 403;
        }
        if key == key_of_session && self.access_is_active(session, generation, now) { 200 } else { 401 }
    }

    pub(super) fn start(&mut self, client: usize, tokens: Tokens, now: i64) {
        self.sessions.push(Session {
            client,
            epoch: self.clients[client].epoch,
            rotated_at: now,
            ends_at: now + SESSION_TTL,
            revoked: false,
            issued: Vec::new(),
        });
        self.rotate(self.sessions.len() - 1, tokens, now);
    }

    pub(super) fn rotate(&mut self, session: usize, tokens: Tokens, now: i64) {
        let session = &mut self.sessions[session];
        session.rotated_at = now;
        // Tokens carry whole seconds.
        let ends = |ttl: i64| (now + ttl).min(session.ends_at).div_euclid(SECOND) * SECOND;
        let (access_ends, refresh_ends) = (ends(ACCESS_TTL), ends(REFRESH_TTL));
        session.issued.push(Issued { tokens, access_ends, refresh_ends });
    }

    pub(super) fn switch(&mut self, client: usize, on: bool) {
        let client = &mut self.clients[client];
        if client.enabled && !on {
            client.epoch += 1;
        }
        client.enabled = on;
    }

    /// Moments at which something ends.
    pub(super) fn ends(&self) -> Vec<i64> {
        let licences = self.merchants.iter().flat_map(|m| [m.api_keys, m.enhanced_security]);
        let sessions = self.sessions.iter().flat_map(|session| {
            let last = session.issued.last().expect("a session begins with a pair");
            [last.access_ends, last.refresh_ends, session.ends_at, session.rotated_at + RETRY_WINDOW]
        });
        licences.filter_map(|licence| licence.expires_at).chain(sessions).collect()
    }
}
