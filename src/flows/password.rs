//! Passwords of users: the rules for a new one, setting one's own, and hashing.
//!
//! We use Argon2id with the crate's defaults, which are OWASP's (19 MiB, 2 passes). It is slow and needs much
//! memory on purpose, so a caller must not be able to cause many hashes at once. One hash is computed at a
//! time, and a few callers wait. Further callers get 503 before anything else is checked.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use argon2::password_hash::phc::{Output, ParamsString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version, password_hash};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::Core;
use super::console_session::SignedIn;
use super::error::{Fault, Managed, Refused};
use super::manage::Change;
use super::principal::Principal;
use crate::domain::entropy::Entropy;
use crate::domain::event::EventType;
use crate::domain::ids::UserId;
use crate::domain::secret::PlainSecret;
use crate::store::attempts::{self, Count};
use crate::store::{console, users};

/// NIST SP 800-63B asks for at least 8 characters, and 15 where a password is the only factor.
const CHARS_MIN: usize = 12;

/// Longer passwords take more time to hash and give no more protection.
const BYTES_MAX: usize = 256;

/// The most calls that hash or wait. They take about half a second together.
const CALLS_MAX: usize = 16;

/// How long the buffer is kept for the next hash.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// Limits how many passwords are hashed at a time.
pub struct Hashing {
    places: Semaphore,
    turn: Semaphore,
    /// One thread computes all hashes in one buffer of 19 MiB. With a buffer for each hash, the allocator would
    /// keep several of them for a while.
    thread: LazyLock<mpsc::Sender<Job>>,
}

type Job = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

fn start_thread() -> mpsc::Sender<Job> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    let work = move || {
        // An idle thread keeps no buffer.
        while let Ok(first) = waiting.recv() {
            let (mut memory, mut next) = (Vec::new(), Some(first));
            while let Some(job) = next {
                // A panic drops the answer's sender, so the caller learns of it. The next job must still run.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
                next = waiting.recv_timeout(BUFFER_KEPT).ok();
            }
        }
    };
    thread::Builder::new().name("passwords".to_owned()).spawn(work).expect("the system can start a thread");
    jobs
}

/// A caller's turn. Dropping it lets the next caller continue.
pub(super) struct Turn<'a> {
    thread: &'a mpsc::Sender<Job>,
    _place: SemaphorePermit<'a>,
    _turn: SemaphorePermit<'a>,
}

impl Hashing {
    pub const fn new() -> Self {
        Self {
            places: Semaphore::const_new(CALLS_MAX),
            turn: Semaphore::const_new(1),
            thread: LazyLock::new(start_thread),
        }
    }

    /// Waits for a turn. [`Fault::Busy`], which is answered with 503, if too many callers already wait.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Fault> {
        let place = self.places.try_acquire().map_err(|_| Fault::Busy)?;
        let turn = self.turn.acquire().await.map_err(|_| Fault::Busy)?;
        Ok(Turn { thread: &self.thread, _place: place, _turn: turn })
    }
}

impl Default for Hashing {
    fn default() -> Self {
        Self::new()
    }
}

impl Turn<'_> {
    async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Vec<Block>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (answer, computed) = oneshot::channel();
        let job = Box::new(move |memory: &mut Vec<Block>| drop(answer.send(job(memory))));
        self.thread.send(job).map_err(|_| Fault::Busy)?;
        computed.await.map_err(|_| Fault::Busy)?
    }

    /// Which of these hashes the password matches. All users of one address have the same salt, so a single
    /// computation is compared with every hash. It takes the same time however many match.
    pub(super) async fn matches(
        &self,
        password: PlainSecret,
        hashes: Vec<String>,
    ) -> Result<Vec<bool>, Fault> {
        let check = move |memory: &mut Vec<Block>| {
            let like = hashes.first().map_or(NOBODY, String::as_str);
            let computed = computed(&password, PasswordHash::new(like).ok().as_ref(), &[], memory)?;
            let is_of = |hash: &String| PasswordHash::new(hash).is_ok_and(|hash| is_same(&hash, &computed));
            Ok(hashes.iter().map(is_of).collect())
        };
        self.compute(check).await
    }

    /// Hashes a new password. `like` is the hash of any user of the address, and the new hash gets its salt
    /// and parameters.
    async fn hash(
        &self,
        password: &PlainSecret,
        like: Option<String>,
        entropy: &Entropy,
    ) -> Result<String, Fault> {
        let password = PlainSecret::new(password.expose().to_owned());
        let salt: [u8; 16] = entropy.bytes();
        let hash = move |memory: &mut Vec<Block>| {
            let like = like.as_deref().and_then(|like| PasswordHash::new(like).ok());
            computed(&password, like.as_ref(), &salt, memory).map(|hash| hash.to_string())
        };
        self.compute(hash).await
    }
}

/// Computes a hash with the salt and parameters of `like`. Without it, uses `salt` and the current parameters.
fn computed(
    password: &PlainSecret,
    like: Option<&PasswordHash>,
    salt: &[u8],
    memory: &mut Vec<Block>,
) -> Result<PasswordHash, Fault> {
    let params = like.and_then(|like| Params::try_from(like).ok()).unwrap_or_default();
    let salt = like.and_then(|like| like.salt.as_deref()).unwrap_or(salt);
    hashed(password.expose().as_bytes(), salt, &params, memory).map_err(Fault::NotHashed)
}

fn hashed(
    password: &[u8],
    salt: &[u8],
    params: &Params,
    memory: &mut Vec<Block>,
) -> password_hash::Result<PasswordHash> {
    let salt = Salt::new(salt)?;
    let mut output = [0; Output::MAX_LENGTH];
    let output = output
        .get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))
        .ok_or(password_hash::Error::OutputSize)?;
    memory.resize(params.block_count(), Block::new());
    Argon2::from(params).hash_password_into_with_memory(password, &salt, output, memory)?;
    Ok(PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(params)?,
        salt: Some(salt),
        hash: Some(Output::new(output)?),
    })
}

/// Compares in constant time if salt and parameters are the same, which they are for all users of an address.
fn is_same(one: &PasswordHash, other: &PasswordHash) -> bool {
    has_same_salt(one, other) && one.hash.is_some() && one.hash == other.hash
}

fn has_same_salt(one: &PasswordHash, other: &PasswordHash) -> bool {
    (one.algorithm, one.version, &one.params, &one.salt)
        == (other.algorithm, other.version, &other.params, &other.salt)
}

/// Whether one computation can check a password against both hashes.
pub(super) fn is_like(hash: &str, like: &str) -> bool {
    match (PasswordHash::new(hash), PasswordHash::new(like)) {
        (Ok(hash), Ok(like)) => has_same_salt(&hash, &like),
        _ => false,
    }
}

impl Core {
    /// Sets the user's own password. This needs the current password, unless the session began with a
    /// one-time link. Wrong attempts count like failed sign-ins. The user's other sessions end.
    pub async fn set_own_password(
        &self,
        principal: &Principal,
        who: &SignedIn,
        current: PlainSecret,
        new: PlainSecret,
    ) -> Managed<()> {
        let event = self.event_by(principal, EventType::UserPasswordSet).about(who.user.id);
        let hash = self.on_record(&event, async {
            check(&new)?;
            let turn = self.console.hashing.turn().await?;
            let is_proven = who.session.by_link || self.knows_password(&turn, who.user.id, current).await?;
            if !is_proven {
                return Err(Refused::Conflict("the current password is wrong".to_owned()).into());
            }
            Ok(self.hash_for(&who.user.email, &new, turn).await?)
        });
        let hash = hash.await?;
        self.change(principal, EventType::UserPasswordSet, async |change| set_own(change, who, &hash).await)
            .await
    }

    /// Checks the user's password. A wrong one counts as a failed attempt.
    pub(super) async fn knows_password(
        &self,
        turn: &Turn<'_>,
        user: UserId,
        password: PlainSecret,
    ) -> Result<bool, Fault> {
        match self.claim(user).await? {
            Some(attempt) => Ok(turn.matches(password, vec![attempt.password_hash]).await? == [true]),
            None => Ok(false),
        }
    }

    /// Hashes a new password for a user of this address, with the salt of the address if it has one.
    pub(super) async fn hash_for(
        &self,
        email: &str,
        password: &PlainSecret,
        turn: Turn<'_>,
    ) -> Result<String, Fault> {
        let like = users::any_password_hash(&mut self.store.read().await?, email).await?;
        turn.hash(password, like, &self.entropy).await
    }
}

async fn set_own(change: &mut Change<'_>, who: &SignedIn, hash: &str) -> Managed<()> {
    change.concerns(who.user.merchant_id, who.user.id);
    if !who.session.by_link {
        attempts::take_back(&mut change.tx, who.user.id, Count::Proofs).await?;
    }
    let mut user = users::by_id(&mut change.tx, who.user.id).await?.ok_or(Refused::NotFound)?;
    // The hash has the salt of the address.
    if user.email != who.user.email {
        return Err(Fault::Busy.into());
    }
    user.updated_at = change.event.at;
    users::update(&mut change.tx, &user, Some(hash)).await?;
    console::forget_link(&mut change.tx, who.session.hash).await?;
    console::end_sessions_of(&mut change.tx, user.id, Some(who.session.hash)).await?;
    Ok(())
}

/// Checks the rules for a new password, before it is hashed.
pub(super) fn check(password: &PlainSecret) -> Result<(), Refused> {
    let text = password.expose();
    if text.chars().count() < CHARS_MIN {
        Err(Refused::invalid("password", format!("must have at least {CHARS_MIN} characters")))
    } else if text.len() > BYTES_MAX {
        Err(Refused::invalid("password", format!("must have at most {BYTES_MAX} bytes")))
    } else {
        Ok(())
    }
}

/// A salt and the parameters of a real hash. The password of an unknown user is computed with them.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm8gdXNlciBoYXMgdGhpcw";
