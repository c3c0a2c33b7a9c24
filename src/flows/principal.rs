//! The principal of a call: who acts, from where, and what their role allows.

use std::net::IpAddr;

use super::error::Refused;
use super::idempotency::IdempotencyKey;
use crate::domain::admin::{AdminToken, Role, User};
use crate::domain::api_key::Environment;
use crate::domain::event::{Actor, ActorKind};
use crate::domain::ids::MerchantId;

/// Where a call comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub client_ip: IpAddr,
    pub request_id: String,
}

/// Who acts, and from where.
#[derive(Clone, Debug)]
pub struct Principal {
    pub actor: Actor,
    pub role: Role,
    /// The only merchant that this principal may see, for the merchant roles and some service tokens.
    pub merchant_id: Option<MerchantId>,
    /// The settings require a second factor for live keys, and this console user has none.
    pub lacks_second_factor: bool,
    pub client_ip: Option<String>,
    pub request_id: Option<String>,
    /// The `Idempotency-Key` of the call, if it has one.
    pub idempotency: Option<IdempotencyKey>,
}

impl Principal {
    /// Somebody who runs the program on the command line.
    pub const fn command_line() -> Self {
        Self {
            actor: Actor::of(ActorKind::CommandLine),
            role: Role::Operator,
            merchant_id: None,
            lacks_second_factor: false,
            client_ip: None,
            request_id: None,
            idempotency: None,
        }
    }

    pub fn admin_token(token: &AdminToken, client_ip: String, request_id: String) -> Self {
        Self {
            actor: Actor {
                kind: ActorKind::AdminToken,
                id: Some(token.id.to_string()),
                name: Some(token.name.clone()),
            },
            role: token.role,
            merchant_id: token.merchant_id,
            lacks_second_factor: false,
            client_ip: Some(client_ip),
            request_id: Some(request_id),
            idempotency: None,
        }
    }

    pub fn user(user: &User, lacks_second_factor: bool, origin: Origin) -> Self {
        Self {
            actor: Actor::user(user),
            role: user.role,
            merchant_id: user.merchant_id,
            lacks_second_factor,
            client_ip: Some(origin.client_ip.to_string()),
            request_id: Some(origin.request_id),
            idempotency: None,
        }
    }

    /// A client that changes its own credentials.
    pub fn client(merchant: MerchantId, client_id: String, client_ip: String, request_id: String) -> Self {
        Self {
            actor: Actor { kind: ActorKind::Client, id: Some(client_id), name: None },
            role: Role::MerchantAdmin,
            merchant_id: Some(merchant),
            lacks_second_factor: false,
            client_ip: Some(client_ip),
            request_id: Some(request_id),
            idempotency: None,
        }
    }

    pub fn with_idempotency(self, key: Option<IdempotencyKey>) -> Self {
        Self { idempotency: key, ..self }
    }

    /// Whether the principal may work with keys of this environment. Live keys may require a second factor.
    pub fn may_handle(&self, environment: Environment) -> Result<(), Refused> {
        if self.lacks_second_factor && environment == Environment::Live {
            return Err(Refused::Forbidden("live keys need a second factor: set one up under Your account"));
        }
        Ok(())
    }

    /// Whether the principal may give somebody access. If live keys require a second factor, this does too:
    /// otherwise the new user could do what the principal may not.
    pub fn may_let_in(&self) -> Result<(), Refused> {
        self.may_handle(Environment::Live)
    }

    /// # Errors
    /// [`Refused::NotFound`] for another merchant, because its objects do not exist for this principal.
    pub fn may_see(&self, merchant: MerchantId) -> Result<(), Refused> {
        match self.role {
            Role::Operator => Ok(()),
            Role::Service if self.merchant_id.is_none() => Ok(()),
            Role::MerchantAdmin | Role::MerchantViewer | Role::Service => {
                if self.merchant_id == Some(merchant) { Ok(()) } else { Err(Refused::NotFound) }
            }
        }
    }

    /// # Errors
    /// [`Refused::NotFound`] for another merchant, [`Refused::Forbidden`] for a viewer.
    pub fn may_change(&self, merchant: MerchantId) -> Result<(), Refused> {
        self.may_see(merchant)?;
        self.must_not_only_look()
    }

    /// # Errors
    /// [`Refused::Forbidden`] for a viewer.
    pub fn must_not_only_look(&self) -> Result<(), Refused> {
        if self.role == Role::MerchantViewer {
            return Err(Refused::Forbidden("this role can only read"));
        }
        Ok(())
    }

    /// Allows operators and service tokens. That the token has the permission for the call was checked
    /// before.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] for the merchant roles.
    pub fn must_be_of_platform(&self) -> Result<(), Refused> {
        if self.role == Role::Service { Ok(()) } else { self.must_be_operator() }
    }

    /// # Errors
    /// [`Refused::Forbidden`] for everybody but operators.
    pub fn must_be_operator(&self) -> Result<(), Refused> {
        if self.role == Role::Operator { Ok(()) } else { Err(Refused::Forbidden("for operators only")) }
    }
}
