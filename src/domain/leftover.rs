//! What the janitor has found at a source and is about to end, as the store keeps it until it is seen to be ended: what is
//! done there, and not yet on record, is known after a crash.

use serde::{Deserialize, Serialize};

use super::id::SessionId;
use super::name::TargetName;
use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeftoverKind {
    /// A credential that no session has: it is destroyed.
    Orphan,
    /// A session's credential that opens its target while no connection is being made: it is shut.
    Open,
    /// What goes on as a session's credential though no gateway carries it: it is ended.
    Running,
    /// A deny on an AWS role that no session needs: it is removed.
    Deny,
}

impl LeftoverKind {
    pub const ALL: [Self; 4] = [Self::Orphan, Self::Open, Self::Running, Self::Deny];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Open => "open",
            Self::Running => "running",
            Self::Deny => "deny",
        }
    }

    /// Whether it is a session's that goes on.
    pub const fn is_of_a_session(self) -> bool {
        matches!(self, Self::Open | Self::Running)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    pub kind: LeftoverKind,
    /// Where it is: a server's address, the ARN of a role.
    pub place: String,
    /// What it is called there. Never a secret.
    pub handle: String,
    /// The session that it is named after, which the store may not know.
    pub session: SessionId,
    /// The target by which it was found.
    pub target: TargetName,
    pub found_at: Timestamp,
    /// Why the last attempt to end it failed.
    pub last_error: Option<String>,
}
