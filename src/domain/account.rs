//! A local user and their login tokens, as the store keeps them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::{PrincipalId, TokenId};
use super::name::{DomainName, GroupName};
use super::principal::Principal;
use super::time::Timestamp;

#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    pub principal: Principal,
    /// Argon2id, in PHC text form.
    pub password_hash: String,
    /// Shared by all of the user's tokens: SCRAM sends a salt before it knows which token comes.
    pub scram_salt: [u8; 16],
    pub disabled: bool,
    pub created_at: Timestamp,
    /// SSH certificates that were issued to the user before this instant are void.
    pub ssh_certificates_void_before: Option<Timestamp>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("principal", &self.principal)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// What is to change of an account; `None` leaves as it is, whatever it is by then.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    pub domain: Option<DomainName>,
    pub groups: Option<BTreeSet<GroupName>>,
    /// Argon2id, in PHC text form.
    pub password_hash: Option<String>,
    pub disabled: Option<bool>,
}

impl AccountChange {
    /// Whoever holds a token or an SSH certificate from before a new password, or from before the
    /// account was disabled, must log in again.
    pub fn ends_tokens(&self) -> bool {
        self.password_hash.is_some() || self.disabled == Some(true)
    }
}

impl std::fmt::Debug for AccountChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountChange")
            .field("domain", &self.domain)
            .field("groups", &self.groups)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// A login token: only what checks it is kept, never the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub principal: PrincipalId,
    /// SHA-256 of the token, for the API's bearer check.
    pub hash: [u8; 32],
    /// SCRAM keys of the token, for the Postgres gateway's check.
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A user as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSummary {
    #[serde(flatten)]
    pub principal: Principal,
    pub disabled: bool,
    pub created_at: Timestamp,
}
