//! What happened, for the record: one event per state change, refusal and read of evidence.
//!
//! The store writes events to its outbox in the transaction that makes the change; the audit log
//! takes them from there. An event never holds a secret.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::id::{ConnectionId, RequestId, SessionId};
use super::name::{AccessName, DomainName, TargetName};
use super::principal::Actor;
use super::target::{Environment, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    RequestCreated,
    RequestApproved,
    RequestDenied,
    RequestCancelled,
    RequestLapsed,
    SessionActivated,
    SessionRevoked,
    SessionEnded,
    BlockAdded,
    BlockLifted,
    ConnectionRefused,
    ConnectionOpened,
    ConnectionEnded,
    /// A cancel request for a running statement arrived.
    StatementCancelled,
    CredentialIntended,
    CredentialIssued,
    CredentialDestroyed,
    CredentialDestructionFailed,
    /// What was handed out is denied at its source, which cannot take it back.
    CredentialDenied,
    /// A target holds a credential of ours that no session has.
    CredentialOrphaned,
    /// A session's credential was found open, or in use by what no gateway carries any more: that was ended.
    CredentialShut,
    UserAdded,
    UserChanged,
    /// An operator ended all tokens of a user.
    UserLoggedOut,
    SshKeyAdded,
    SshKeyRemoved,
    SshCertificateIssued,
    SecondFactorSet,
    SecondFactorRemoved,
    /// A code was accepted, or refused.
    SecondFactorChecked,
    Login,
    Logout,
    /// Something was read through the API.
    Read,
    RecordingReplayed,
    /// Recordings were searched.
    Searched,
    /// Part of the audit log was given out in another form, or as a bundle.
    AuditExported,
    ApiRefused,
    NodeStarted,
    NodeStopped,
    ConfigurationReloaded,
    ClockBehind,
    /// A witness has not cosigned the audit log for a while.
    WitnessSilent,
    /// A witness says that the audit log is not what it saw.
    WitnessRefused,
    /// It cosigns again.
    WitnessBack,
    /// Journal files that the stream has confirmed were removed.
    JournalTrimmed,
    /// The audit stream is further behind than it should be.
    StreamBehind,
    /// It no longer is.
    StreamCaughtUp,
    /// The audit log's newest checkpoint could not be signed.
    CheckpointUnsigned,
    /// One is signed again.
    CheckpointSigned,
    /// Recorded on purpose, to be fetched back and verified.
    Canary,
    /// It did not come back as it was recorded.
    CanaryFailed,
    /// It does again.
    CanaryPassed,
    /// The store is older than the audit log: somebody restored it.
    StoreRestored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Done,
    Refused,
    Failed,
}

/// One event. Fields that do not apply are left out of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub action: Action,
    pub outcome: Outcome,
    /// Who did it; `None` is the gateway itself or somebody not yet known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Actor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// Whatever else the action was about.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}

impl Event {
    pub fn new(action: Action, outcome: Outcome) -> Self {
        Self {
            action,
            outcome,
            principal: None,
            session: None,
            request: None,
            connection: None,
            target: None,
            access: None,
            environment: None,
            domain: None,
            client: None,
            break_glass: false,
            detail: Map::new(),
        }
    }

    pub fn done(action: Action) -> Self {
        Self::new(action, Outcome::Done)
    }

    pub fn by(mut self, actor: impl Into<Actor>) -> Self {
        self.principal = Some(actor.into());
        self
    }

    pub fn on(mut self, target: &Target) -> Self {
        self.target = Some(target.name.clone());
        self.environment = Some(target.environment);
        self.domain = Some(target.domain.clone());
        self
    }

    pub fn from(mut self, client: Option<SocketAddr>) -> Self {
        self.client = client;
        self
    }

    pub fn about_request(mut self, request: &super::request::Request) -> Self {
        self.request = Some(request.id.clone());
        self.target = Some(request.ask.target.clone());
        self.access = Some(request.ask.access.clone());
        self.break_glass = request.ask.break_glass;
        self
    }

    pub fn about_session(mut self, session: &super::session::Session) -> Self {
        self.session = Some(session.id.clone());
        self.request = Some(session.request.clone());
        self.target = Some(session.target.clone());
        self.access = Some(session.access.clone());
        self.break_glass = session.break_glass;
        self
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }
}
