//! Publishes events about keys and licences that expire soon or have expired.
//!
//! The expiry itself needs no job, because each call compares it with the clock. This only announces it.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Core;
use crate::domain::clock::Timestamp;
use crate::domain::event::{EventType, WebhookEvent};
use crate::domain::ids::MerchantId;
use crate::store::deadlines::{self, PAGE, Stage};
use crate::store::outbox::{self, Audience};
use crate::store::{StoreError, Tx};

/// How long before a deadline it is announced.
pub const NOTICE: TimeDelta = TimeDelta::days(7);

/// Deadlines that passed longer ago than this, while no server ran, are not announced any more.
const NEWS: TimeDelta = TimeDelta::days(30);

impl Core {
    /// Announces every deadline that is near or has passed, each once. Returns how many. After an error, the
    /// rest is announced next time.
    pub async fn announce_deadlines(&self) -> Result<u64, StoreError> {
        let mut announced = 0;
        for stage in [Stage::Expiring, Stage::Expired] {
            announced += self.announce_keys(stage).await?;
            announced += self.announce_licences(stage).await?;
        }
        Ok(announced)
    }

    fn span(&self, stage: Stage) -> (Timestamp, Timestamp) {
        let now = self.now();
        match stage {
            Stage::Expiring => (now, now.plus(NOTICE)),
            Stage::Expired => (now.minus(NEWS), now),
        }
    }

    async fn announce_keys(&self, stage: Stage) -> Result<u64, StoreError> {
        let (after, until) = self.span(stage);
        let event_type = match stage {
            Stage::Expiring => EventType::ApiKeyExpiring,
            Stage::Expired => EventType::ApiKeyExpired,
        };
        let mut announced = 0;
        loop {
            let page = deadlines::of_keys(&mut self.store.read().await?, stage, after, until).await?;
            for deadline in &page {
                // Use one transaction for each, because several replicas may do this in any order.
                let mut tx = self.store.begin().await?;
                if deadlines::tell_key(&mut tx, stage, deadline).await? {
                    let data = json!({
                        "api_key_id": deadline.id,
                        "name": deadline.name,
                        "expires_at": deadline.expires_at,
                    });
                    let audience = Audience::Key(deadline.id);
                    self.announce(&mut tx, deadline.merchant_id, event_type, data, audience).await?;
                    announced += 1;
                }
                tx.commit().await?;
            }
            if page.len() < PAGE {
                return Ok(announced);
            }
        }
    }

    async fn announce_licences(&self, stage: Stage) -> Result<u64, StoreError> {
        let (after, until) = self.span(stage);
        let event_type = match stage {
            Stage::Expiring => EventType::LicenceExpiring,
            Stage::Expired => EventType::LicenceExpired,
        };
        let mut announced = 0;
        loop {
            let page = deadlines::of_licences(&mut self.store.read().await?, stage, after, until).await?;
            for deadline in &page {
                let mut tx = self.store.begin().await?;
                if deadlines::tell_licence(&mut tx, stage, deadline).await? {
                    let data = json!({ "product": deadline.product, "expires_at": deadline.expires_at });
                    let audience = Audience::Merchant;
                    self.announce(&mut tx, deadline.merchant_id, event_type, data, audience).await?;
                    announced += 1;
                }
                tx.commit().await?;
            }
            if page.len() < PAGE {
                return Ok(announced);
            }
        }
    }

    async fn announce(
        &self,
        tx: &mut Tx,
        merchant: MerchantId,
        event_type: EventType,
        data: Value,
        audience: Audience,
    ) -> Result<(), StoreError> {
        let event = WebhookEvent::new(event_type, merchant, data, self.now(), &self.entropy);
        outbox::publish(tx, &event, audience, &self.entropy).await
    }
}
