//! Every few seconds, announces that this replica runs and which token keys it has, and loads new keys: see
//! [`crate::flows::token_keys`].

use std::time::Duration;

use crate::flows::SharedCore;
use crate::flows::token_keys::BEAT;

/// The file is read at most this often, even if many tokens need a missing key.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads the key file regularly, and at once on SIGHUP or when a key is missing. Runs until it is aborted.
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
            Err(error) if is_behind => tracing::debug!(%error, "still no token key could be chosen"),
            Err(error) => {
                is_behind = true;
                tracing::warn!(%error, "no token key could be chosen yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
