//! Why somebody is not let in, and why a connection ends. One enum each, from which psql's error,
//! the audit record and the metrics all take their words.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::decision::{Rule, rules_text};
use super::id::SessionId;
use super::name::{AccessName, TargetName, UserName};
use super::target::TargetKind;
use super::time::Timestamp;

/// A refusal. Each says what to do next ([`Deny::hint`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deny {
    NoSession {
        target: TargetName,
        accesses: Vec<AccessName>,
    },
    /// Several sessions fit and the client did not say which access it wants.
    Ambiguous {
        target: TargetName,
        accesses: Vec<AccessName>,
    },
    UnknownTarget {
        target: String,
    },
    /// The target is there, and speaks another protocol than the client does.
    OtherProtocol {
        target: TargetName,
        kind: TargetKind,
    },
    UnknownDatabase {
        target: TargetName,
        database: String,
        known: Vec<String>,
    },
    /// The client would have the target hold up its own login, with the session's credential open.
    SlowsLogin,
    NotYet {
        session: SessionId,
        from: Timestamp,
    },
    Expired {
        session: SessionId,
        at: Timestamp,
        target: TargetName,
        accesses: Vec<AccessName>,
    },
    Revoked {
        session: SessionId,
        by: UserName,
        why: String,
        target: TargetName,
        accesses: Vec<AccessName>,
    },
    Blocked {
        why: String,
        until: Option<Timestamp>,
        by: UserName,
    },
    AccessGone {
        target: TargetName,
        access: AccessName,
    },
    PolicyRefused {
        rules: Vec<Rule>,
    },
    /// The account was disabled or removed.
    PrincipalGone,
    /// The store no longer knows the session: it may have been restored from a backup.
    SessionGone {
        session: SessionId,
    },
    StoreUnavailable {
        detail: String,
    },
    Unrecordable {
        detail: String,
    },
    TargetUnavailable {
        detail: String,
    },
    CredentialUnavailable {
        detail: String,
    },
    /// Nobody may work at the target until it is shut: they could give it a password of their own.
    CredentialLeftOpen {
        detail: String,
    },
    TooManyConnections {
        limit: usize,
    },
    ShuttingDown,
}

impl Deny {
    /// A stable word for records and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSession { .. } => "no_session",
            Self::Ambiguous { .. } => "ambiguous_access",
            Self::UnknownTarget { .. } => "unknown_target",
            Self::OtherProtocol { .. } => "other_protocol",
            Self::UnknownDatabase { .. } => "unknown_database",
            Self::SlowsLogin => "slows_login",
            Self::NotYet { .. } => "not_yet",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Blocked { .. } => "blocked",
            Self::AccessGone { .. } => "access_gone",
            Self::PolicyRefused { .. } => "policy_refused",
            Self::PrincipalGone => "principal_gone",
            Self::SessionGone { .. } => "session_gone",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::Unrecordable { .. } => "unrecordable",
            Self::TargetUnavailable { .. } => "target_unavailable",
            Self::CredentialUnavailable { .. } => "credential_unavailable",
            Self::CredentialLeftOpen { .. } => "credential_left_open",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoSession { target, accesses } | Self::Expired { target, accesses, .. } => {
                how_to_ask(target, accesses)
            }
            Self::Revoked { target, accesses, .. } => {
                format!("Speak with the person named. {}", how_to_ask(target, accesses))
            }
            Self::Blocked { .. } => "Speak with the person named: they, or security, can lift it.".to_owned(),
            Self::Ambiguous { target, .. } => format!("Name the access in the user: USER+{target}+ACCESS"),
            Self::UnknownTarget { .. } | Self::AccessGone { .. } => {
                "`sallyport targets` lists what there is.".to_owned()
            }
            Self::OtherProtocol { target, kind: TargetKind::Postgres } => {
                format!("Connect with psql: sallyport psql {target}")
            }
            Self::OtherProtocol { target, kind: TargetKind::Ssh } => {
                format!("Connect with ssh, as USER+{target} at the SSH gateway: ssh USER+{target}@GATEWAY")
            }
            Self::OtherProtocol { target, kind: TargetKind::Aws } => {
                format!("Get credentials with: sallyport aws {target}")
            }
            Self::UnknownDatabase { target, known, .. } => format!("{target} serves: {}", known.join(", ")),
            Self::SlowsLogin => "Connect without the setting post_auth_delay.".to_owned(),
            Self::PolicyRefused { .. } => {
                "`sallyport targets` shows what you may ask for; the rules are your security team's."
                    .to_owned()
            }
            Self::PrincipalGone => "Speak with your administrator.".to_owned(),
            Self::SessionGone { .. } => "Ask for a new session: sallyport request".to_owned(),
            Self::NotYet { .. }
            | Self::StoreUnavailable { .. }
            | Self::Unrecordable { .. }
            | Self::TargetUnavailable { .. }
            | Self::CredentialUnavailable { .. }
            | Self::CredentialLeftOpen { .. } => "Tell the operator; the server's log says more.".to_owned(),
            Self::TooManyConnections { .. } | Self::ShuttingDown => "Try again shortly.".to_owned(),
        }
    }
}

fn how_to_ask(target: &TargetName, accesses: &[AccessName]) -> String {
    let ask = |access: &str| format!("Ask for one: sallyport request {target} {access} --reason \"…\"");
    match accesses {
        [only] => ask(only.as_str()),
        several => format!("{}   (accesses: {})", ask("ACCESS"), list(several)),
    }
}

fn list(accesses: &[AccessName]) -> String {
    accesses.iter().map(AccessName::as_str).collect::<Vec<_>>().join(", ")
}

impl std::error::Error for Deny {}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession { target, .. } => write!(f, "you have no active session for `{target}`"),
            Self::Ambiguous { target, accesses } => {
                write!(f, "you have several sessions for `{target}`: {}", list(accesses))
            }
            Self::UnknownTarget { target } => write!(f, "there is no target `{target}`"),
            Self::OtherProtocol { target, kind: TargetKind::Postgres } => {
                write!(f, "target `{target}` is a PostgreSQL server")
            }
            Self::OtherProtocol { target, kind: TargetKind::Ssh } => {
                write!(f, "target `{target}` is an SSH host")
            }
            Self::OtherProtocol { target, kind: TargetKind::Aws } => {
                write!(f, "target `{target}` is a role at AWS")
            }
            Self::UnknownDatabase { target, database, .. } => {
                write!(f, "target `{target}` has no database `{database}`")
            }
            Self::SlowsLogin => {
                f.write_str("post_auth_delay is not passed on: your session's role is open until the target has let you in")
            }
            Self::NotYet { session, from } => write!(f, "session {session} starts at {from}"),
            Self::Expired { session, at, .. } => write!(f, "session {session} ended at {at}"),
            Self::Revoked { session, by, why, .. } => {
                write!(f, "session {session} was revoked by {by}: {why}")
            }
            Self::Blocked { why, until, by } => match until {
                Some(until) => write!(f, "you are blocked until {until} by {by}: {why}"),
                None => write!(f, "you are blocked by {by}: {why}"),
            },
            Self::AccessGone { target, access } => {
                write!(f, "target `{target}` no longer offers the access `{access}`")
            }
            Self::PolicyRefused { rules } => write!(f, "refused by policy: {}", rules_text(rules)),
            Self::PrincipalGone => f.write_str("this account is disabled"),
            Self::SessionGone { session } => write!(f, "session {session} is not known any more"),
            Self::StoreUnavailable { detail } => write!(f, "cannot confirm your session: {detail}"),
            Self::Unrecordable { detail } => write!(f, "cannot record this connection: {detail}"),
            Self::TargetUnavailable { detail } => write!(f, "cannot reach the target: {detail}"),
            Self::CredentialUnavailable { detail } => {
                write!(f, "cannot obtain a credential for the target: {detail}")
            }
            Self::CredentialLeftOpen { detail } => {
                write!(f, "the session's credential is open at the target and cannot be shut: {detail}")
            }
            Self::TooManyConnections { limit } => {
                write!(f, "the gateway carries its limit of {limit} connections")
            }
            Self::ShuttingDown => f.write_str("the gateway is shutting down"),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum EndReason {
    ClientClosed,
    TargetClosed,
    Revoked {
        by: UserName,
        why: String,
    },
    Expired,
    Idle,
    Blocked {
        by: UserName,
        why: String,
    },
    /// The target could not be reached or refused the credential.
    TargetUnreachable {
        detail: String,
    },
    /// A rule, the target's configuration or the account changed while connected.
    NoLongerPermitted {
        why: String,
    },
    Unrecordable {
        detail: String,
    },
    Unconfirmed,
    Shutdown,
    Protocol {
        detail: String,
    },
    Internal,
    /// The node stopped without ending the recording; written when it starts again.
    Crashed,
}

impl EndReason {
    /// Whether the connection ended because nobody may use it any more, rather than by itself.
    pub const fn ends_the_right(&self) -> bool {
        match self {
            Self::Revoked { .. }
            | Self::Expired
            | Self::Blocked { .. }
            | Self::NoLongerPermitted { .. }
            | Self::Unconfirmed
            | Self::Unrecordable { .. } => true,
            Self::ClientClosed
            | Self::TargetClosed
            | Self::Idle
            | Self::TargetUnreachable { .. }
            | Self::Shutdown
            | Self::Protocol { .. }
            | Self::Internal
            | Self::Crashed => false,
        }
    }

    /// A stable word for records and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::TargetClosed => "target_closed",
            Self::TargetUnreachable { .. } => "target_unreachable",
            Self::Revoked { .. } => "revoked",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Blocked { .. } => "blocked",
            Self::NoLongerPermitted { .. } => "no_longer_permitted",
            Self::Unrecordable { .. } => "unrecordable",
            Self::Unconfirmed => "unconfirmed",
            Self::Shutdown => "shutdown",
            Self::Protocol { .. } => "protocol",
            Self::Internal => "internal",
            Self::Crashed => "crashed",
        }
    }
}

impl fmt::Display for EndReason {
    /// The words that the person cut off reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientClosed => f.write_str("the client closed the connection"),
            Self::TargetClosed => f.write_str("the target closed the connection"),
            Self::TargetUnreachable { detail } => write!(f, "the target cannot be reached: {detail}"),
            Self::Revoked { by, why } => write!(f, "your session was revoked by {by}: {why}"),
            Self::Expired => f.write_str("your session has ended: its time is up"),
            Self::Idle => f.write_str("the connection was idle for too long"),
            Self::Blocked { by, why } => write!(f, "you were blocked by {by}: {why}"),
            Self::NoLongerPermitted { why } => {
                write!(f, "your session no longer permits this connection: {why}")
            }
            Self::Unrecordable { .. } => f.write_str("this connection can no longer be recorded"),
            Self::Unconfirmed => f.write_str("your session can no longer be confirmed"),
            Self::Shutdown => f.write_str("the gateway is shutting down"),
            Self::Protocol { detail } => write!(f, "protocol violation: {detail}"),
            Self::Internal => f.write_str("internal error in the gateway"),
            Self::Crashed => f.write_str("the gateway stopped unexpectedly"),
        }
    }
}
