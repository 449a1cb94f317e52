//! Short-lived credentials at their source: made for one session, destroyed with it.
//!
//! A source only makes and destroys; the order of steps, the durable intent and the retries are
//! `access::credential`'s. Both operations can be repeated safely: after a crash nobody knows
//! whether the last one happened.

pub mod aws_role;
pub mod postgres_admin;
pub mod postgres_role;
pub mod ssh_certificate;

use std::fmt;
use std::future::Future;
use std::time::Duration;

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

/// A credential that opens the target until it is shut ([`CredentialSource::shut`]).
#[derive(Debug)]
pub struct Opened {
    pub credential: Credential,
    admin: postgres_admin::Admin,
}

/// Which credential, where.
#[derive(Debug, Clone, Copy)]
pub struct SourceRequest<'a> {
    pub target: &'a PostgresTarget,
    /// The database role that the access stood for when the credential was intended.
    pub access_role: &'a str,
    /// What the credential is called at the source.
    pub handle: &'a str,
    /// The session's end; the credential is worth nothing after it.
    pub ends_at: Timestamp,
}

/// A credential that a source holds and that looks like one of Sallyport's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub handle: String,
    pub session: SessionId,
    /// It says of itself that this installation made it.
    pub ours: bool,
    /// It opens the target at this moment.
    pub open: bool,
    /// The database role that it was made for, where that can still be seen.
    pub access_role: Option<String>,
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
    #[error("the target does not answer within {} s", WITHIN.as_secs())]
    TimedOut,
}

#[async_trait]
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// What the session's credential is called at the source; the same at every call.
    fn handle(&self, session: &SessionId) -> String;

    /// Makes the credential or, where it exists, gives it a new secret; it opens the target from now on.
    async fn open(&self, request: &SourceRequest<'_>) -> Result<Opened, SourceError>;

    /// Makes the credential open nothing any more; connections that it has opened go on.
    async fn shut(&self, request: &SourceRequest<'_>, opened: Opened) -> Result<(), SourceError>;

    /// As [`Self::shut`], for one that somebody else opened and left open.
    async fn lock(&self, request: &SourceRequest<'_>) -> Result<(), SourceError>;

    /// Shuts the credential and ends whatever uses it, for a session whose connections all ended
    /// without us (a crash). Gives the number of server processes that were terminated.
    async fn quiet(&self, request: &SourceRequest<'_>) -> Result<u64, SourceError>;

    /// Destroys the credential and whatever uses it; `Ok` means that the source confirmed it. Gives
    /// the number of server processes that were terminated.
    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<u64, SourceError>;

    /// All credentials at the target that look like ours, whoever's they are.
    async fn list(&self, target: &PostgresTarget) -> Result<Vec<Found>, SourceError>;
}

/// How long one operation at a source may take. Longer than the server is given for a statement, so
/// that what we no longer wait for does not take effect later.
const WITHIN: Duration = Duration::from_secs(20);

/// Waits for an operation, [`WITHIN`] at most.
async fn bounded<T>(work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    tokio::time::timeout(WITHIN, work).await.unwrap_or(Err(SourceError::TimedOut))
}
