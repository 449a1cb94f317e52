//! The life of a short-lived credential, as the store keeps it:
//! `intended → issued → releasing → released`. Each step is durable before the next is taken, so
//! that after a crash the janitor knows what may exist at the source.

use serde::{Deserialize, Serialize};

use super::id::{LeaseId, SessionId};
use super::name::{AccessName, TargetName};
use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// About to be made: it may or may not exist at the source.
    Intended,
    /// Exists at the source.
    Issued,
    /// Being destroyed; retried until it is gone.
    Releasing,
    /// Confirmed gone at the source.
    Released,
}

impl LeaseState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Issued => "issued",
            Self::Releasing => "releasing",
            Self::Released => "released",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub id: LeaseId,
    pub session: SessionId,
    pub target: TargetName,
    pub access: AccessName,
    /// What it is called at the source: for Postgres, the role's name. Never a secret.
    pub handle: String,
    /// Where it was made: it is destroyed there and nowhere else.
    pub address: String,
    /// What the access stood for when it was made: for Postgres, a database role.
    pub access_role: String,
    pub ends_at: Timestamp,
    pub state: LeaseState,
    pub changed_at: Timestamp,
    /// Why the last attempt to destroy it failed.
    pub last_error: Option<String>,
}
