//! Sessions, their connections that were cut and their credentials, as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApprovalView, BlockView, PersonView};
use crate::access::hub::Cut;
use crate::access::release::Released;
use crate::access::revoke;
use crate::domain::id::{ConnectionId, RequestId, SessionId};
use crate::domain::name::{AccessName, DomainName, TargetName};
use crate::domain::session::{Session, SessionStatus};
use crate::domain::time::Timestamp;

/// What a session is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    Revoked,
    Expired,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevocationView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub by: PersonView,
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    #[schema(value_type = String)]
    pub id: SessionId,
    #[schema(value_type = String)]
    pub request: RequestId,
    pub principal: PersonView,
    #[schema(value_type = String)]
    pub principal_domain: DomainName,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub access: AccessName,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub break_glass: bool,
    pub approvals: Vec<ApprovalView>,
    #[schema(value_type = String, format = DateTime)]
    pub granted_at: Timestamp,
    /// The absolute end.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevocationView>,
}

impl SessionView {
    pub(in crate::http) fn new(session: Session, status: SessionStatus) -> Self {
        Self {
            id: session.id,
            request: session.request,
            principal: session.principal.into(),
            principal_domain: session.principal_domain,
            target: session.target,
            access: session.access,
            reason: session.reason,
            ticket: session.ticket,
            break_glass: session.break_glass,
            approvals: session.approvals.into_iter().map(ApprovalView::from).collect(),
            granted_at: session.granted_at,
            ends_at: session.ends_at,
            status: match status {
                SessionStatus::Active => Status::Active,
                SessionStatus::Revoked => Status::Revoked,
                SessionStatus::Expired => Status::Expired,
            },
            revoked: session.revoked.map(|revocation| RevocationView {
                at: revocation.at,
                by: revocation.by.into(),
                why: revocation.why,
            }),
        }
    }
}

/// One connection that was told to end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CutView {
    #[schema(value_type = String)]
    pub connection: ConnectionId,
    /// Whether it was over when the call returned.
    pub ended: bool,
}

impl From<Cut> for CutView {
    fn from(cut: Cut) -> Self {
        Self { connection: cut.connection, ended: cut.ended }
    }
}

/// What became of a session's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum CredentialView {
    /// None had been issued, or it was gone already.
    None,
    /// The source confirmed it.
    Destroyed {
        handle: String,
        /// `dropped`; `rotated`: its secret was changed; `expires`: worth nothing 15 minutes after its issue; `kept`:
        /// unchanged, and nobody but Sallyport has it; `expired`; `earlier`: it had been destroyed before.
        how: String,
    },
    /// It cannot be destroyed: its source denies it everything until it has expired.
    Denied {
        handle: String,
        #[schema(value_type = String, format = DateTime)]
        expires_at: Timestamp,
        /// How long the source took to apply the deny, where a call proved that it did; otherwise that is not known.
        window_ms: Option<u64>,
    },
    /// It may still exist; destruction is retried until it is gone.
    Pending { handle: String, error: String },
}

impl From<Released> for CredentialView {
    fn from(released: Released) -> Self {
        match released {
            Released::None => Self::None,
            Released::Destroyed { handle, how } => Self::Destroyed { handle, how },
            Released::Denied { handle, expires_at, in_force } => {
                Self::Denied { handle, expires_at, window_ms: in_force.milliseconds() }
            }
            Released::Pending { handle, error } => Self::Pending { handle, error },
        }
    }
}

/// What a revocation did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokedView {
    pub session: SessionView,
    /// The session had been revoked before; the rest was done all the same.
    pub before: bool,
    pub cuts: Vec<CutView>,
    pub credential: CredentialView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockView>,
}

impl RevokedView {
    pub(in crate::http) fn new(done: revoke::Revocations, now: Timestamp) -> Self {
        let status = done.session.status(now);
        Self {
            session: SessionView::new(done.session, status),
            before: done.before,
            cuts: done.cuts.into_iter().map(CutView::from).collect(),
            credential: done.credential.into(),
            block: done.block.map(|block| BlockView::new(block, now)),
        }
    }
}
