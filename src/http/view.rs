//! What the API shows: types of its own, so that the domain can change without the API changing.
//! The command line reads the same types.

mod request;
mod search;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::read;
use crate::domain::block::Block;
use crate::domain::connection::Connection;
use crate::domain::id::{BlockId, ConnectionId, NodeId, PrincipalId, SessionId, TokenId};
use crate::domain::name::{AccessName, DomainName, GroupName, TargetName, UserName};
use crate::domain::principal::{Actor, Principal};
use crate::domain::ssh_key::SshKey;
use crate::domain::target::{Environment, TargetKind};
use crate::domain::time::Timestamp;

pub use request::{ApprovalView, AskedView, RequestView, State};
pub use search::{FoundView, HitView};
pub use session::{CredentialView, CutView, RevocationView, RevokedView, SessionView, Status};

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
