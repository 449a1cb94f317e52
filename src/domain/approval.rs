//! Verdicts on a request and how they count.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::PrincipalId;
use super::name::DomainName;
use super::principal::Actor;
use super::time::Timestamp;

/// One person's yes, bound to exactly what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: Actor,
    /// The approver's home domain when they approved.
    pub domain: DomainName,
    pub at: Timestamp,
    /// The ask that was approved ([`super::request::AskHash`]), so that no approval can be carried
    /// over to something else.
    pub ask: super::request::AskHash,
    #[serde(default)]
    pub comment: String,
}

/// How many distinct people other than the requester approved, and how many of them are of the
/// target's domain. Policies turn these numbers into a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quorum {
    pub people: u32,
    pub from_target_domain: u32,
}

impl Quorum {
    /// Counts people, not approvals: one person twice is one, the requester is none, and an
    /// approval of another ask is none.
    pub fn count(
        approvals: &[Approval],
        requester: &PrincipalId,
        target_domain: &DomainName,
        ask: &super::request::AskHash,
    ) -> Self {
        let counted = |approval: &&Approval| approval.by.id != *requester && approval.ask == *ask;
        let people: BTreeSet<_> = approvals.iter().filter(counted).map(|a| &a.by.id).collect();
        let of_domain: BTreeSet<_> = approvals
            .iter()
            .filter(counted)
            .filter(|approval| approval.domain == *target_domain)
            .map(|approval| &approval.by.id)
            .collect();
        Self { people: saturating_u32(people.len()), from_target_domain: saturating_u32(of_domain.len()) }
    }
}

fn saturating_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
