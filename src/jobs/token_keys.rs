//! Says every few seconds that this replica runs and with which token keys, and takes up new ones: see
//! [`crate::flows::token_keys`].

use std::time::Duration;

use crate::flows::SharedCore;
use crate::flows::token_keys::BEAT;

/// However often a missing key is met, the file is read no more often.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks at the key file again and again, and at once on SIGHUP or when a key is missed, until it is aborted.
pub async fn run(core: SharedCore) {
    let mut is_behind = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = core.key_source.wanted.notified() => {}
        }
        core.reread_token_keys();
        match core.choose_token_key().await {
            Ok(()) => is_behind = false,
            Err(error) if is_behind => tracing::debug!(%error, "the choice of a token key is still put off"),
            Err(error) => {
                is_behind = true;
                tracing::warn!(%error, "the choice of a token key is put off");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
