//! Short-lived credentials at their source: made for one session, destroyed with it.
//!
//! A source only makes and destroys; the order of steps, the durable intent and the retries are
//! `access::credential`'s. Both operations can be repeated safely: after a crash nobody knows
//! whether the last one happened.

pub mod postgres_admin;
pub mod postgres_role;

use std::fmt;

use async_trait::async_trait;

use crate::config::PostgresTarget;
use crate::domain::id::SessionId;
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

pub use postgres_admin::AdminError;

/// What opens a target for one session. Never shown to the principal.
pub struct Credential {
    pub user: String,
    pub password: Secret<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Which credential, where.
#[derive(Debug, Clone, Copy)]
pub struct SourceRequest<'a> {
    pub target: &'a PostgresTarget,
    /// The database role that the access stands for.
    pub access_role: &'a str,
    /// What the credential is called at the source.
    pub handle: &'a str,
    /// The session's end; the credential is worth nothing after it.
    pub ends_at: Timestamp,
}

/// Why a credential was not made or not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("`{role}` does not exist on the target: create it, or correct the target's `accesses`")]
    NoAccessRole { role: String },
    #[error("cannot {doing} `{handle}`")]
    Statement {
        doing: &'static str,
        handle: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("{count} server processes of `{handle}` do not end")]
    BackendsRemain { handle: String, count: u64 },
}

#[async_trait]
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// What the session's credential is called at the source; the same at every call.
    fn handle(&self, session: &SessionId) -> String;

    /// Makes the credential, or gives an existing one a new secret.
    async fn create(&self, request: &SourceRequest<'_>) -> Result<Credential, SourceError>;

    /// Destroys the credential and whatever uses it; `Ok` means that the source confirmed it. Gives
    /// the number of server processes that were terminated.
    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<u64, SourceError>;
}
