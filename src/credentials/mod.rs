//! Short-lived credentials at their source: made for one session, destroyed with it.
//!
//! A source only makes and destroys; the order of steps, the durable intent and the retries are
//! `access::credential`'s. Both operations can be repeated safely: after a crash nobody knows
//! whether the last one happened.

mod accounts;
pub mod aws_role;
pub mod keep;
mod kept_admins;
pub mod postgres_admin;
pub mod postgres_role;
pub mod rds_iam;
pub mod secrets_manager;
pub mod sources;
pub mod ssh_authority;
pub mod ssh_certificate;
pub mod ssh_kms;
pub mod static_secret;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::aws_role::RoleCredential;
use crate::config::PostgresTarget;
use crate::domain::id::{RequestId, SessionId};
use crate::domain::name::{TargetName, UserName};
use crate::domain::secret::Secret;
use crate::domain::time::Timestamp;

pub use postgres_admin::AdminError;

/// What opens a target for one session. Never shown to the principal.
pub struct Credential {
    pub user: String,
    pub password: Secret<String>,
    pub sent: Sent,
    /// When it opens nothing any more by itself, where that is known.
    pub valid_until: Option<Timestamp>,
}

/// How it may reach the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// As a proof alone (SCRAM).
    Proved,
    /// As [`Self::Proved`], and where the target asks for that, as an MD5 hash over TLS whose other end was verified.
    ProvedOrHashed,
    /// As it is, over TLS whose other end was verified: a token that cannot be proved.
    AsItIs,
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
    /// Who shuts it, where it has to be.
    admin: Option<postgres_admin::Admin>,
}

/// A role that was assumed to reach a target, in the session's name.
#[derive(Debug)]
pub struct AssumedRole {
    /// Its ARN.
    pub role: String,
    pub credential: RoleCredential,
}

/// How far a destruction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destruction {
    /// The source confirmed it.
    Done(Destroyed),
    /// The source is at it: it is to be asked again.
    UnderWay { what: String },
}

/// What became of a credential that was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destroyed {
    pub how: How,
    /// Server processes that were terminated.
    pub terminated: u64,
}

impl From<How> for Destroyed {
    fn from(how: How) -> Self {
        Self { how, terminated: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is not there any more.
    Dropped,
    /// Its secret was changed, and the old one was tried and refused.
    Rotated,
    /// Its secret is worth nothing a quarter of an hour after it was made.
    Expires,
    /// It is what it was: nobody but Sallyport has it.
    Kept,
}

impl How {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Rotated => "rotated",
            Self::Expires => "expires",
            Self::Kept => "kept",
        }
    }
}

/// Which credential, where.
#[derive(Debug, Clone, Copy)]
pub struct SourceRequest<'a> {
    pub target: &'a PostgresTarget,
    /// What the access stood for when the credential was intended: a database role, a user, a secret's name.
    pub access_role: &'a str,
    pub session: &'a SessionId,
    /// For whom it is opened; `None` where the gateway works for itself, once the session is over.
    pub holder: Option<Holder<'a>>,
    /// Names this credential's life, the same at every repetition.
    pub lease: &'a str,
    /// What the credential is called at the source.
    pub handle: &'a str,
    /// The session's end; the credential is worth nothing after it.
    pub ends_at: Timestamp,
    pub replication: Replication,
}

/// Who has the session, by which request.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    pub principal: &'a UserName,
    pub request: &'a RequestId,
}

/// What a session may do with replication, at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// Nothing: what was given to it before is taken away.
    No,
    /// It may, and what is opened now is for something else.
    May,
    /// What is opened is to replicate.
    Now,
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
    /// What it is a member of: the access's role is among them, where that can still be seen.
    pub member_of: Vec<String>,
}

/// Why a credential was not made or not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("`{role}` does not exist on the target: create it, or correct the target's `accesses`")]
    NoAccessRole { role: String },
    #[error(
        "`{role}` gives the powers of `{opens}`, which may log in: in a session one could set its password and come back \
         past the gateway; `ALTER ROLE {opens} NOLOGIN`, or have the access stand for another role"
    )]
    AccessRoleOpens { role: String, opens: String },
    #[error(
        "target `{target}` has credentials of another kind now than `{handle}`: put the old kind back, so that it can be destroyed"
    )]
    OtherKind { target: TargetName, handle: String },
    #[error(
        "`{admin}` may not give sessions' roles REPLICATION, as it is not {lacks}: `sallyport target bootstrap postgres` \
         prints what to do"
    )]
    NoReplication { admin: String, lacks: &'static str },
    #[error("the session ended before its credential was there")]
    Ended,
    #[error("Amazon: {0}")]
    Amazon(String),
    #[error(transparent)]
    Rotation(#[from] secrets_manager::RotationError),
    #[error(transparent)]
    Static(#[from] static_secret::StaticError),
    #[error("cannot {doing} `{handle}`")]
    Statement {
        doing: &'static str,
        handle: String,
        #[source]
        source: tokio_postgres::Error,
    },
    /// Whoever gave the order does not know whether it was carried out.
    #[error("it is not known whether it was opened")]
    MaybeOpened(#[source] Box<SourceError>),
    #[error("{count} server processes of `{handle}` do not end")]
    BackendsRemain { handle: String, count: u64 },
    #[error("the target does not answer within {} s", WITHIN.as_secs())]
    TimedOut,
}

#[async_trait]
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// What the session's credential is called at the source; the same at every call.
    fn handle(&self, session: &SessionId, access_role: &str) -> String;

    /// Makes the credential or, where it exists, gives it a new secret; it opens the target from now on. Of one that
    /// `is_issued` no more is done than a further connection needs. Gives up soon after `ended` is cancelled.
    async fn open(
        &self,
        request: &SourceRequest<'_>,
        is_issued: bool,
        ended: &CancellationToken,
    ) -> Result<Opened, SourceError>;

    /// Makes the credential open nothing any more; connections that it has opened go on.
    async fn shut(&self, _request: &SourceRequest<'_>, _opened: Opened) -> Result<(), SourceError> {
        Ok(())
    }

    /// The roles that were assumed for a lease, whatever came of it, and that are on no record yet.
    fn unrecorded(&self, _lease: &str) -> Vec<Arc<AssumedRole>> {
        Vec::new()
    }

    /// They are on record.
    fn recorded(&self, _lease: &str) {}

    /// Shuts the credential and ends whatever uses it: it was left open, or in use by what no gateway carries (a crash).
    /// Gives the number of server processes that were terminated.
    async fn quiet(&self, _request: &SourceRequest<'_>) -> Result<u64, SourceError> {
        Ok(0)
    }

    /// Destroys the credential and whatever uses it, without waiting for what may take long.
    async fn destroy(&self, request: &SourceRequest<'_>) -> Result<Destruction, SourceError>;

    /// All credentials at the target that look like ours, whoever's they are.
    async fn list(&self, _target: &PostgresTarget) -> Result<Vec<Found>, SourceError> {
        Ok(Vec::new())
    }
}

/// How long one operation at a source may take. Longer than the server is given for a statement, so
/// that what we no longer wait for does not take effect later.
const WITHIN: Duration = Duration::from_secs(20);

/// Waits for an operation, [`WITHIN`] at most.
async fn bounded<T>(work: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    tokio::time::timeout(WITHIN, work).await.unwrap_or(Err(SourceError::TimedOut))
}
