//! The blocklist: who may not ask, be granted or connect, until when, and why.

use serde::{Deserialize, Serialize};

use super::id::{BlockId, PrincipalId};
use super::name::TargetName;
use super::principal::Actor;
use super::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub id: BlockId,
    pub principal: Actor,
    /// Only this target, or all of them.
    pub target: Option<TargetName>,
    pub why: String,
    pub by: Actor,
    pub at: Timestamp,
    /// `None`: until lifted.
    pub until: Option<Timestamp>,
    pub lifted: Option<Lift>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lift {
    pub by: Actor,
    pub at: Timestamp,
}

impl Block {
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.lifted.is_none() && self.until.is_none_or(|until| now < until)
    }

    pub fn covers(&self, principal: &PrincipalId, target: &TargetName, now: Timestamp) -> bool {
        self.in_force(now)
            && self.principal.id == *principal
            && self.target.as_ref().is_none_or(|blocked| blocked == target)
    }
}
