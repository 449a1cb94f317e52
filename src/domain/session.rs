//! The approved, time-limited right itself. The session record is the only authority: whatever is
//! live is live because of it.
//!
//! A target can only be dialled with a [`Permit`], and a permit only comes from
//! [`Session::permit`]. The same function is asked again whenever the session, the blocklist or the
//! policy changes while a connection is up.

use serde::{Deserialize, Serialize};

use super::approval::Approval;
use super::block::Block;
use super::decision::{Decision, Rule};
use super::deny::Deny;
use super::id::{RequestId, SessionId};
use super::name::{AccessName, DomainName, TargetName};
use super::principal::{Actor, Principal};
use super::request::{AskHash, LONGEST_DURATION, Request};
use super::target::Target;
use super::time::Timestamp;

/// Proof that the policy let exactly this ask of exactly this request become a session.
#[derive(Debug, Clone)]
pub struct Consent {
    /// Two requests may ask for the same; the approvals of one are none of the other's.
    request: RequestId,
    ask: AskHash,
    policies: Vec<String>,
}

impl Consent {
    /// Takes the verdict on `activate`; a refusal gives back its rules.
    pub fn from_decision(decision: Decision, request: &Request) -> Result<Self, Vec<Rule>> {
        match decision {
            Decision::Allow { policies } => {
                Ok(Self { request: request.id.clone(), ask: request.ask_hash.clone(), policies })
            }
            Decision::Refuse { rules } => Err(rules),
        }
    }

    /// Whether this is the consent to `request` as it stands.
    pub fn is_for(&self, request: &Request) -> bool {
        self.request == request.id && self.ask == request.ask_hash
    }

    pub fn ask(&self) -> &AskHash {
        &self.ask
    }

    pub fn policies(&self) -> &[String] {
        &self.policies
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: Actor,
    pub why: String,
}

/// What a session is at some instant: derived, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    Active,
    Revoked,
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub request: RequestId,
    pub principal: Actor,
    pub principal_domain: DomainName,
    pub target: TargetName,
    pub access: AccessName,
    pub reason: String,
    pub ticket: Option<String>,
    pub break_glass: bool,
    pub approvals: Vec<Approval>,
    pub granted_at: Timestamp,
    /// The absolute end; every derived lifetime is clipped to it.
    pub ends_at: Timestamp,
    pub revoked: Option<Revocation>,
}

impl Session {
    /// Only [`Request::activate`] calls this. Counted from the grant, whenever one connects.
    pub(super) fn grant(id: SessionId, request: &Request, now: Timestamp) -> Self {
        Self {
            id,
            request: request.id.clone(),
            principal: request.requester.clone(),
            principal_domain: request.requester_domain.clone(),
            target: request.ask.target.clone(),
            access: request.ask.access.clone(),
            reason: request.ask.reason.clone(),
            ticket: request.ask.ticket.clone(),
            break_glass: request.ask.break_glass,
            approvals: request.approvals.clone(),
            granted_at: now,
            ends_at: now.plus(request.ask.duration.min(LONGEST_DURATION)),
            revoked: None,
        }
    }

    pub fn status(&self, now: Timestamp) -> SessionStatus {
        if self.revoked.is_some() {
            SessionStatus::Revoked
        } else if now >= self.ends_at {
            SessionStatus::Expired
        } else {
            SessionStatus::Active
        }
    }

    /// Revokes; `None` when it already was. Revoking an expired session is recorded all the same.
    pub fn revoke(mut self, by: Actor, why: String, now: Timestamp) -> Option<Self> {
        if self.revoked.is_some() {
            return None;
        }
        self.revoked = Some(Revocation { at: now, by, why });
        Some(self)
    }

    /// Whether `principal` may now be connected to `target` under this session.
    ///
    /// `decision` is the policy's verdict on `connect`, `blocks` those in force for the principal.
    pub fn permit(
        &self,
        principal: &Principal,
        target: &Target,
        decision: &Decision,
        blocks: &[Block],
        now: Timestamp,
    ) -> Result<Permit, Deny> {
        if self.principal.id != principal.id || self.target != target.name {
            return Err(Deny::NoSession {
                target: target.name.clone(),
                accesses: target.accesses.iter().cloned().collect(),
            });
        }
        if let Some(block) = blocks.iter().find(|block| block.covers(&principal.id, &target.name, now)) {
            return Err(Deny::Blocked {
                why: block.why.clone(),
                until: block.until,
                by: block.by.name.clone(),
            });
        }
        if let Some(revocation) = &self.revoked {
            return Err(Deny::Revoked {
                session: self.id.clone(),
                by: revocation.by.name.clone(),
                why: revocation.why.clone(),
                target: target.name.clone(),
                accesses: vec![self.access.clone()],
            });
        }
        if now >= self.ends_at {
            return Err(Deny::Expired {
                session: self.id.clone(),
                at: self.ends_at,
                target: target.name.clone(),
                accesses: vec![self.access.clone()],
            });
        }
        if now < self.granted_at {
            return Err(Deny::NotYet { session: self.id.clone(), from: self.granted_at });
        }
        if !target.accesses.contains(&self.access) {
            return Err(Deny::AccessGone { target: target.name.clone(), access: self.access.clone() });
        }
        if let Decision::Refuse { rules } = decision {
            return Err(Deny::PolicyRefused { rules: rules.clone() });
        }
        Ok(Permit { principal: principal.clone(), target: target.clone(), session: self.clone() })
    }
}

/// Proof that a connection may be made, and under what. There is no other way to make one than
/// [`Session::permit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    principal: Principal,
    target: Target,
    session: Session,
}

impl Permit {
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn access(&self) -> &AccessName {
        &self.session.access
    }

    pub fn ends_at(&self) -> Timestamp {
        self.session.ends_at
    }
}
