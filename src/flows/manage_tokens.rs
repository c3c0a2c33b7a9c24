//! Admin tokens: made here, shown once, kept as a hash.

use serde_json::json;

use super::Core;
use super::manage::{By, Change, Managed, Refused, Stop, check_name};
use super::manage_keys::WithSecret;
use crate::domain::admin::{AdminToken, Permission, Role};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, MerchantId};
use crate::domain::secret::PlainSecret;
use crate::store::{merchants, users};

/// An admin token to be made.
#[derive(Clone, Debug)]
pub struct NewAdminToken {
    pub name: String,
    pub role: Role,
    pub merchant_id: Option<MerchantId>,
    pub permissions: Vec<Permission>,
    pub expires_at: Option<Timestamp>,
}

impl Core {
    /// # Errors
    /// A fault of the store.
    pub async fn create_admin_token(&self, by: &By, new: NewAdminToken) -> Managed<WithSecret<AdminToken>> {
        let mut change = self.change(by, "admin_token.created").await?;
        let result = create(&mut change, by, new).await;
        change.finish(result).await
    }
}

async fn create(
    change: &mut Change<'_>,
    by: &By,
    new: NewAdminToken,
) -> Result<WithSecret<AdminToken>, Stop> {
    let now = change.event.at;
    check(by, &new, now)?;
    if let Some(id) = new.merchant_id
        && merchants::by_id(&mut change.tx, id).await?.is_none()
    {
        return Err(Refused::invalid("merchant_id", "there is no such merchant").into());
    }
    let plain = PlainSecret::admin_token(&change.core.entropy);
    let token = AdminToken {
        id: AdminTokenId::generate(now, &change.core.entropy),
        name: new.name,
        role: new.role,
        merchant_id: new.merchant_id,
        permissions: new.permissions,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    users::insert_token(&mut change.tx, &token, plain.hash()).await?;
    change.concerns(token.merchant_id, token.id);
    change.event.detail = json!({ "name": token.name, "role": token.role, "permissions": token.permissions });
    Ok(WithSecret { object: token, secret: plain })
}

fn check(by: &By, new: &NewAdminToken, now: Timestamp) -> Result<(), Refused> {
    by.must_be_operator()?;
    check_name("name", &new.name)?;
    match (new.role, new.merchant_id) {
        (Role::Operator, Some(_)) => {
            return Err(Refused::invalid("merchant_id", "an operator has no merchant"));
        }
        (Role::MerchantAdmin | Role::MerchantViewer, None) => {
            return Err(Refused::invalid("merchant_id", "this role needs a merchant"));
        }
        _ => {}
    }
    if new.role != Role::Operator && !new.permissions.is_empty() {
        return Err(Refused::invalid(
            "permissions",
            "only operator tokens can introspect every merchant's tokens",
        ));
    }
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Refused::invalid("expires_at", "must be in the future"));
    }
    Ok(())
}
