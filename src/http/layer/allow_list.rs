//! Checks the caller's address against the allow list of its key, and then counts the call for the key's
//! limit. Calls from other addresses are not counted, so an outsider cannot use up the limit.
//!
//! Failed authentications and new sessions are counted elsewhere, where they happen: see
//! [`crate::flows::limits`].

use crate::domain::access::AddressVerdict;
use crate::domain::reason::Reason;
use crate::flows::admission::Caller;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;

pub(in crate::http) async fn admit(
    shared: &Shared,
    context: &RequestContext,
    caller: &mut Caller,
) -> Result<(), Failure> {
    let verdict = shared.core.admit_address(caller).await?;
    let ending = caller.ending(context.at());
    context.note(|notes| {
        notes.observed = verdict == AddressVerdict::Observed;
        notes.ending = ending;
    });
    if shared.core.limits.count_call(caller.key_id) {
        Ok(())
    } else {
        Err(Failure::refused(Reason::TooManyCalls))
    }
}
