//! What was handed out of an AWS role in one session, as the store keeps it: `open → denying → denied → over`.
//!
//! AWS cannot take a temporary credential back, so its end is a deny on the role that names the session. Each step is
//! durable before the next is taken, so that after a crash it is known what may be at the role.

use serde::{Deserialize, Serialize};

use super::id::SessionId;
use super::name::{AccessName, TargetName};
use super::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleState {
    /// Credentials may be handed out, and may have been.
    Open,
    /// The deny is about to be put: it may or may not be at the role.
    Denying,
    /// The deny is at the role.
    Denied,
    /// Nothing that was handed out is good any more, and no deny of ours is at the role.
    Over,
}

impl RoleState {
    pub const ALL: [Self; 4] = [Self::Open, Self::Denying, Self::Denied, Self::Over];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Denying => "denying",
            Self::Denied => "denied",
            Self::Over => "over",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSession {
    pub session: SessionId,
    pub target: TargetName,
    pub access: AccessName,
    /// The role's ARN. What was handed out is denied there, whatever the configuration says by then.
    pub role: String,
    pub region: String,
    /// Instead of AWS's own addresses for STS and for IAM.
    pub endpoint: Option<String>,
    pub iam_endpoint: Option<String>,
    /// The role that the gateway assumes to put the deny; `None`: it does so as itself.
    pub deny_as: Option<String>,
    /// The source identity of all that is handed out in the session; its role session's name, too.
    pub identity: String,
    /// The name of the inline policy that denies it.
    pub policy: String,
    /// Nothing that was handed out is good after this instant. It may be later than the session's end.
    pub expires_at: Timestamp,
    pub state: RoleState,
    pub changed_at: Timestamp,
    /// Why the last attempt to put or remove the deny failed.
    pub last_error: Option<String>,
}
