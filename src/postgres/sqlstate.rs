//! Which SQLSTATE says what, in one place (PostgreSQL documentation, appendix A).

use crate::domain::deny::{Deny, EndReason};

/// An error as a client is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Goodbye {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub const INVALID_AUTHORIZATION: &str = "28000";
pub const INVALID_PASSWORD: &str = "28P01";
pub const PROTOCOL_VIOLATION: &str = "08P01";
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
pub const TOO_MANY_CONNECTIONS: &str = "53300";
const INVALID_CATALOG: &str = "3D000";
const ADMIN_SHUTDOWN: &str = "57P01";
const CANNOT_CONNECT_NOW: &str = "57P03";
const IDLE_TIMEOUT: &str = "57P05";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const IO_ERROR: &str = "58030";
const INTERNAL_ERROR: &str = "XX000";
const TARGET_UNREACHABLE: &str = "08001";
const CONNECTION_FAILURE: &str = "08006";

impl From<&Deny> for Goodbye {
    fn from(deny: &Deny) -> Self {
        let sqlstate = match deny {
            Deny::NoSession { .. }
            | Deny::Ambiguous { .. }
            | Deny::UnknownTarget { .. }
            | Deny::OtherProtocol { .. }
            | Deny::NotYet { .. }
            | Deny::Blocked { .. }
            | Deny::AccessGone { .. }
            | Deny::PrincipalGone
            | Deny::SessionGone { .. } => INVALID_AUTHORIZATION,
            Deny::UnknownDatabase { .. } => INVALID_CATALOG,
            Deny::SlowsLogin => FEATURE_NOT_SUPPORTED,
            Deny::Expired { .. } | Deny::Revoked { .. } => ADMIN_SHUTDOWN,
            Deny::PolicyRefused { .. } => INSUFFICIENT_PRIVILEGE,
            Deny::StoreUnavailable { .. }
            | Deny::CredentialUnavailable { .. }
            | Deny::CredentialLeftOpen { .. }
            | Deny::ShuttingDown => CANNOT_CONNECT_NOW,
            Deny::Unrecordable { .. } => IO_ERROR,
            Deny::TargetUnavailable { .. } => TARGET_UNREACHABLE,
            Deny::TooManyConnections { .. } => TOO_MANY_CONNECTIONS,
        };
        Self { sqlstate, message: deny.to_string(), detail: None, hint: Some(deny.hint()) }
    }
}

impl From<&EndReason> for Goodbye {
    fn from(reason: &EndReason) -> Self {
        let sqlstate = match reason {
            EndReason::Revoked { .. }
            | EndReason::Expired
            | EndReason::Blocked { .. }
            | EndReason::NoLongerPermitted { .. }
            | EndReason::Shutdown
            | EndReason::ClientClosed => ADMIN_SHUTDOWN,
            EndReason::TargetClosed => CONNECTION_FAILURE,
            EndReason::TargetUnreachable { .. } => TARGET_UNREACHABLE,
            EndReason::Idle => IDLE_TIMEOUT,
            EndReason::Unrecordable { .. } => IO_ERROR,
            EndReason::Unconfirmed => CANNOT_CONNECT_NOW,
            EndReason::Protocol { .. } => PROTOCOL_VIOLATION,
            EndReason::Internal | EndReason::Crashed => INTERNAL_ERROR,
        };
        Self::new(sqlstate, reason.to_string())
    }
}

/// A target's SQLSTATE among those that a startup can fail with; another one is a connection failure.
pub(super) fn known(sqlstate: &[u8]) -> &'static str {
    const STARTUP: [&str; 10] =
        ["08P01", "22023", "28000", "28P01", "3D000", "42501", "42704", "53300", "55000", "57P03"];
    STARTUP.into_iter().find(|known| known.as_bytes() == sqlstate).unwrap_or(CONNECTION_FAILURE)
}
