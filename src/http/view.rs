//! What the API shows: types of its own, so that the domain can change without the API changing.
//! The command line reads the same types.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::RuleView;
use crate::access::credential::Released;
use crate::access::hub::Cut;
use crate::access::{read, revoke};
use crate::audit::search::{Found, Hit};
use crate::domain::approval::Approval;
use crate::domain::block::Block;
use crate::domain::connection::Connection;
use crate::domain::decision::Rule;
use crate::domain::id::{BlockId, ConnectionId, NodeId, PrincipalId, RequestId, SessionId, TokenId};
use crate::domain::name::{AccessName, DomainName, GroupName, TargetName, UserName};
use crate::domain::principal::{Actor, Principal};
use crate::domain::request::{Request, RequestState};
use crate::domain::session::{Session, SessionStatus};
use crate::domain::ssh_key::SshKey;
use crate::domain::target::{Environment, TargetKind};
use crate::domain::time::Timestamp;

/// A list; newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { items: items.into_iter().collect() }
    }
}

/// A record in which something was found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HitView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub principal: PersonView,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub access: AccessName,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    #[schema(value_type = String)]
    pub session: SessionId,
    /// Names the recording too.
    #[schema(value_type = String)]
    pub connection: ConnectionId,
    /// The record's place in the recording.
    pub seq: u64,
    /// `statement`, `output` (what was shown), `input` (what was typed), `program`, `file` and so on.
    pub kind: String,
    /// What was found, with what stands around it.
    pub excerpt: String,
    /// It is in so many further places of the record.
    pub more: u64,
}

impl From<Hit> for HitView {
    fn from(hit: Hit) -> Self {
        Self {
            at: hit.at,
            principal: hit.principal.into(),
            target: hit.target,
            access: hit.access,
            break_glass: hit.break_glass,
            session: hit.session,
            connection: hit.connection,
            seq: hit.seq,
            kind: hit.kind.to_owned(),
            excerpt: hit.excerpt,
            more: hit.more,
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FoundView {
    /// Newest first.
    pub items: Vec<HitView>,
    /// Give it as `before` to go on; absent when everything was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Recordings that the caller may not read were left out, whatever is in them.
    pub withheld: bool,
    /// Some of what may hold the text cannot be read: files of the log were moved away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
    /// The index is still being made: what is newest was not looked at yet.
    pub behind: bool,
}

impl FoundView {
    pub fn new(found: Found, behind: bool) -> Self {
        let Found { hits, next, withheld, moved } = found;
        Self { items: hits.into_iter().map(HitView::from).collect(), next, withheld, moved, behind }
    }
}

/// Somebody, as records name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonView {
    /// Stable, never reused.
    #[schema(value_type = String)]
    pub id: PrincipalId,
    #[schema(value_type = String)]
    pub name: UserName,
}

impl From<Actor> for PersonView {
    fn from(actor: Actor) -> Self {
        Self { id: actor.id, name: actor.name }
    }
}

/// The caller.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PrincipalView {
    #[schema(value_type = String)]
    pub id: PrincipalId,
    #[schema(value_type = String)]
    pub name: UserName,
    #[schema(value_type = String)]
    pub domain: DomainName,
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<GroupName>,
}

impl From<Principal> for PrincipalView {
    fn from(principal: Principal) -> Self {
        Self {
            id: principal.id,
            name: principal.name,
            domain: principal.domain,
            groups: principal.groups.into_iter().collect(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginView {
    /// Shown this once. Bearer of the API and password of the Postgres gateway.
    pub token: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    pub principal: PrincipalView,
}

impl std::fmt::Debug for LoginView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginView").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhoamiView {
    #[serde(flatten)]
    pub principal: PrincipalView,
    /// Names the token; not the token itself.
    #[schema(value_type = String)]
    pub token: TokenId,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    pub by: PersonView,
    #[schema(value_type = String)]
    pub domain: DomainName,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub comment: String,
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        Self { by: approval.by.into(), domain: approval.domain, at: approval.at, comment: approval.comment }
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Pending,
    Approved,
    Denied,
    Cancelled,
    Lapsed,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "lapsed",
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    #[schema(value_type = String)]
    pub id: RequestId,
    pub requester: PersonView,
    #[schema(value_type = String)]
    pub requester_domain: DomainName,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub access: AccessName,
    pub duration_seconds: u64,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    pub break_glass: bool,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When a request that nobody decided on lapses.
    #[schema(value_type = String, format = DateTime)]
    pub lapses_at: Timestamp,
    pub state: State,
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Who denied or withdrew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<PersonView>,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The session that came of it.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    pub approvals: Vec<ApprovalView>,
    /// What a pending request still wants.
    pub missing: Vec<RuleView>,
}

impl From<read::RequestView> for RequestView {
    fn from(view: read::RequestView) -> Self {
        Self::new(view.request, view.state, &view.missing)
    }
}

impl RequestView {
    fn new(request: Request, state: RequestState, missing: &[Rule]) -> Self {
        let (mut decided_at, mut decided_by, mut why_denied, mut session_id) = (None, None, None, None);
        let state = match state {
            RequestState::Pending => State::Pending,
            RequestState::Approved { at, session } => {
                (decided_at, session_id) = (Some(at), Some(session));
                State::Approved
            }
            RequestState::Denied { at, by, why } => {
                (decided_at, decided_by, why_denied) = (Some(at), Some(by.into()), Some(why));
                State::Denied
            }
            RequestState::Cancelled { at, by } => {
                (decided_at, decided_by) = (Some(at), Some(by.into()));
                State::Cancelled
            }
            RequestState::Lapsed { at } => {
                decided_at = Some(at);
                State::Lapsed
            }
        };
        Self {
            id: request.id,
            requester: request.requester.into(),
            requester_domain: request.requester_domain,
            target: request.ask.target,
            access: request.ask.access,
            duration_seconds: request.ask.duration.as_secs(),
            reason: request.ask.reason,
            ticket: request.ask.ticket,
            break_glass: request.ask.break_glass,
            created_at: request.created_at,
            lapses_at: request.lapses_at,
            state,
            decided_at,
            decided_by,
            why: why_denied,
            session: session_id,
            approvals: request.approvals.into_iter().map(ApprovalView::from).collect(),
            missing: missing.iter().map(RuleView::from).collect(),
        }
    }
}

/// A request and, once it is granted, its session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskedView {
    pub request: RequestView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
}

impl AskedView {
    pub(super) fn new(request: Request, session: Option<Session>, missing: &[Rule], now: Timestamp) -> Self {
        let state = request.state_at(now);
        Self {
            request: RequestView::new(request, state, missing),
            session: session.map(|session| {
                let status = session.status(now);
                SessionView::new(session, status)
            }),
        }
    }
}

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
    pub(super) fn new(session: Session, status: SessionStatus) -> Self {
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
    pub(super) fn new(done: revoke::Revocations, now: Timestamp) -> Self {
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

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LiftView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub by: PersonView,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BlockView {
    #[schema(value_type = String)]
    pub id: BlockId,
    pub principal: PersonView,
    /// Only this target, or all of them.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    pub why: String,
    pub by: PersonView,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Until lifted, when there is none.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<LiftView>,
    pub in_force: bool,
}

impl BlockView {
    pub(super) fn new(block: Block, now: Timestamp) -> Self {
        Self {
            in_force: block.in_force(now),
            id: block.id,
            principal: block.principal.into(),
            target: block.target,
            why: block.why,
            by: block.by.into(),
            at: block.at,
            until: block.until,
            lifted: block.lifted.map(|lift| LiftView { at: lift.at, by: lift.by.into() }),
        }
    }
}

/// A block, and what it cut.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BlockedView {
    pub block: BlockView,
    pub cuts: Vec<CutView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EndView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// A stable word.
    pub code: String,
    /// For people.
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConnectionView {
    #[schema(value_type = String)]
    pub id: ConnectionId,
    #[schema(value_type = String)]
    pub session: SessionId,
    pub principal: PersonView,
    #[schema(value_type = String)]
    pub target: TargetName,
    #[schema(value_type = String)]
    pub node: NodeId,
    #[schema(value_type = String)]
    pub client: SocketAddr,
    #[schema(value_type = String, format = DateTime)]
    pub opened_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndView>,
}

impl From<Connection> for ConnectionView {
    fn from(connection: Connection) -> Self {
        Self {
            id: connection.id,
            session: connection.session,
            principal: connection.principal.into(),
            target: connection.target,
            node: connection.node,
            client: connection.client,
            opened_at: connection.opened_at,
            ended: connection.ended.map(|ended| EndView {
                at: ended.at,
                code: ended.reason.code().to_owned(),
                why: ended.reason.to_string(),
            }),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TargetView {
    #[schema(value_type = String)]
    pub name: TargetName,
    #[schema(value_type = String, example = "postgres")]
    pub kind: TargetKind,
    #[schema(value_type = String, example = "prod")]
    pub environment: Environment,
    #[schema(value_type = String)]
    pub domain: DomainName,
    pub labels: BTreeMap<String, String>,
    #[schema(value_type = Vec<String>)]
    pub accesses: Vec<AccessName>,
    /// Those that the caller may ask for.
    #[schema(value_type = Vec<String>)]
    pub may_request: Vec<AccessName>,
    /// The databases served; the first is the default.
    pub databases: Vec<String>,
}

impl From<read::TargetView> for TargetView {
    fn from(view: read::TargetView) -> Self {
        Self {
            name: view.target.name,
            kind: view.target.kind,
            environment: view.target.environment,
            domain: view.target.domain,
            labels: view.target.labels,
            accesses: view.target.accesses.into_iter().collect(),
            may_request: view.may_request,
            databases: view.databases,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GatewayView {
    pub host: String,
    pub port: u16,
    /// The certificate authority to trust, in PEM, unless it is a public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Unless there is no SSH gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshGatewayView>,
}

/// The SSH gateway, and the public keys by which it is known. Keys are lines without a name before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshGatewayView {
    pub host: String,
    pub port: u16,
    /// The authority of the gateway's host certificates: for `@cert-authority` in `known_hosts`. First the
    /// key that signs now, then those that will and those that did: all are to be trusted.
    pub host_ca: Vec<String>,
    pub host_keys: Vec<String>,
    /// The authority that vouches for logins at targets: for `TrustedUserCAKeys` there, all of them.
    pub login_ca: Vec<String>,
}

/// A registered public key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SshKeyView {
    /// `SHA256:…`
    pub fingerprint: String,
    pub public_key: String,
    pub comment: String,
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    pub added_by: String,
}

impl From<SshKey> for SshKeyView {
    fn from(key: SshKey) -> Self {
        Self {
            fingerprint: key.fingerprint,
            public_key: key.line,
            comment: key.comment,
            added_at: key.added_at,
            added_by: key.added_by,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SshCertificateView {
    /// The line of a `-cert.pub` file.
    pub certificate: String,
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    pub name: String,
    pub ok: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
}
