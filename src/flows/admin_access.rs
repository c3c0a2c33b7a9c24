//! Who an admin token stands for.

use super::Core;
use crate::domain::admin::AdminToken;
use crate::domain::secret::{ADMIN_TOKEN_CHARS, ADMIN_TOKEN_PREFIX, PlainSecret};
use crate::store::StoreError;

impl Core {
    /// The live admin token that was presented; `None` for any other text.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn admin_token(&self, presented: &PlainSecret) -> Result<Option<AdminToken>, StoreError> {
        let text = presented.expose();
        if text.len() != ADMIN_TOKEN_CHARS || !text.starts_with(ADMIN_TOKEN_PREFIX) {
            return Ok(None);
        }
        let token = self.store.hot().admin_token(presented.hash()).await?;
        let live = token.filter(|token| token.is_live(self.now()));
        if let Some(token) = &live {
            self.note_admin_token_use(token.id);
        }
        Ok(live)
    }
}
