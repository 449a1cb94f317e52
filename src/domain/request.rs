//! A principal's ask for one access on one target: `pending → approved | denied | cancelled`, or
//! lapsed when nobody decided in time.
//!
//! Transitions take `self`, so that a request which has been decided cannot be decided again. That
//! a pending request has lapsed is derived from the clock and never stored.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::approval::{Approval, Quorum};
use super::id::{PrincipalId, RequestId, SessionId};
use super::name::{AccessName, DomainName, TargetName};
use super::principal::{Actor, Principal};
use super::session::Session;
use super::target::Target;
use super::time::Timestamp;

/// How long a session lasts when the requester does not say.
pub const DEFAULT_DURATION: Duration = Duration::from_hours(1);
/// The longest session there is.
pub const LONGEST_DURATION: Duration = Duration::from_hours(4);
/// The shortest session worth approving.
pub const SHORTEST_DURATION: Duration = Duration::from_mins(1);
/// How long a request waits for its approvals.
pub const PENDING_FOR: Duration = Duration::from_hours(1);
const LONGEST_REASON: usize = 2_000;
const LONGEST_TICKET: usize = 200;

/// What is asked for. An approval is bound to the hash of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub target: TargetName,
    pub access: AccessName,
    #[serde(with = "super::time::seconds", rename = "duration_seconds")]
    pub duration: Duration,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    #[serde(default)]
    pub break_glass: bool,
}

/// Why an ask is not one that anybody could decide on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedAsk {
    #[error("a reason is needed: say why you need `{target}`, approvers and auditors will read it")]
    NoReason { target: TargetName },
    #[error("the reason is longer than {LONGEST_REASON} characters: shorten it")]
    LongReason,
    #[error("the ticket is longer than {LONGEST_TICKET} characters: shorten it")]
    LongTicket,
    #[error("the {field} holds control characters: write it as plain text")]
    Unprintable { field: &'static str },
    #[error("a session lasts at least 1 minute: ask for a longer one")]
    TooShort,
    #[error("`{target}` has no access `{access}`: it has {known}")]
    UnknownAccess { target: TargetName, access: AccessName, known: String },
}

impl Ask {
    /// Checks what needs no policy. That a duration is too long is a policy's verdict (FR-281), so
    /// that the refusal names the rule.
    pub fn check(&self, target: &Target) -> Result<(), MalformedAsk> {
        if self.reason.trim().is_empty() {
            return Err(MalformedAsk::NoReason { target: self.target.clone() });
        }
        if self.reason.chars().count() > LONGEST_REASON {
            return Err(MalformedAsk::LongReason);
        }
        if self.ticket.as_ref().is_some_and(|ticket| ticket.chars().count() > LONGEST_TICKET) {
            return Err(MalformedAsk::LongTicket);
        }
        if !is_plain(&self.reason) {
            return Err(MalformedAsk::Unprintable { field: "reason" });
        }
        if self.ticket.as_deref().is_some_and(|ticket| !is_plain(ticket)) {
            return Err(MalformedAsk::Unprintable { field: "ticket" });
        }
        if self.duration < SHORTEST_DURATION {
            return Err(MalformedAsk::TooShort);
        }
        if !target.accesses.contains(&self.access) {
            let known = target.accesses.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>();
            return Err(MalformedAsk::UnknownAccess {
                target: self.target.clone(),
                access: self.access.clone(),
                known: known.join(", "),
            });
        }
        Ok(())
    }

    /// The canonical text that is hashed: every field, length-prefixed, so that no two asks share
    /// one text.
    pub fn canonical(&self, requester: &PrincipalId) -> String {
        let mut text = String::from("sallyport-ask-v1\n");
        let duration = self.duration.as_secs().to_string();
        // No ticket and an empty one are two asks.
        let ticket = self.ticket.as_ref().map_or_else(String::new, |ticket| format!("#{ticket}"));
        for field in [
            requester.as_str(),
            self.target.as_str(),
            self.access.as_str(),
            &duration,
            &self.reason,
            &ticket,
            if self.break_glass { "break-glass" } else { "standard" },
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}:{field}", field.len());
        }
        text
    }
}

/// Whether an approver's terminal shows the text as it is: no escape sequences, no characters that
/// reverse the direction of writing.
fn is_plain(text: &str) -> bool {
    let misleads = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().all(|c| matches!(c, '\n' | '\t') || !(c.is_control() || misleads(c)))
}

/// SHA-256 of [`Ask::canonical`], in hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskHash(pub String);

impl fmt::Debug for AskHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a request stands. Every decided state says who and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum RequestState {
    Pending,
    Approved {
        at: Timestamp,
        session: SessionId,
    },
    Denied {
        at: Timestamp,
        by: Actor,
        why: String,
    },
    Cancelled {
        at: Timestamp,
        by: Actor,
    },
    /// Recorded by the sweep for the history; a pending request past `lapses_at` is lapsed whether
    /// or not this was stored.
    Lapsed {
        at: Timestamp,
    },
}

impl RequestState {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved { .. } => "approved",
            Self::Denied { .. } => "denied",
            Self::Cancelled { .. } => "cancelled",
            Self::Lapsed { .. } => "lapsed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: RequestId,
    pub requester: Actor,
    pub requester_domain: DomainName,
    pub ask: Ask,
    pub ask_hash: AskHash,
    pub created_at: Timestamp,
    pub lapses_at: Timestamp,
    pub approvals: Vec<Approval>,
    #[serde(flatten)]
    pub state: RequestState,
    /// Raised by one at every stored step; the store refuses a step from a stale version.
    pub version: u64,
}

/// Why a step cannot be taken from where the request stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedStep {
    #[error("the request was already {state}{detail}")]
    AlreadyDecided { state: &'static str, detail: String },
    #[error("the request lapsed at {at}: ask again")]
    Lapsed { at: Timestamp },
    #[error("nobody approves their own request: another person has to")]
    OwnRequest,
    #[error("the request changed after it was approved: it must be asked for anew")]
    AskChanged,
}

impl Request {
    pub fn new(
        id: RequestId,
        requester: &Principal,
        mut ask: Ask,
        ask_hash: AskHash,
        now: Timestamp,
    ) -> Self {
        // The store and the hash know whole seconds: nobody gets more than what was approved.
        ask.duration = Duration::from_secs(ask.duration.as_secs());
        Self {
            id,
            requester: Actor::from(requester),
            requester_domain: requester.domain.clone(),
            ask,
            ask_hash,
            created_at: now,
            lapses_at: now.plus(PENDING_FOR),
            approvals: Vec::new(),
            state: RequestState::Pending,
            version: 0,
        }
    }

    /// The state as of `now`: what was stored, or lapsed.
    pub fn state_at(&self, now: Timestamp) -> RequestState {
        match &self.state {
            RequestState::Pending if now >= self.lapses_at => RequestState::Lapsed { at: self.lapses_at },
            state => state.clone(),
        }
    }

    fn undecided(&self, now: Timestamp) -> Result<(), RefusedStep> {
        match self.state_at(now) {
            RequestState::Pending => Ok(()),
            RequestState::Lapsed { at } => Err(RefusedStep::Lapsed { at }),
            RequestState::Approved { session, .. } => {
                Err(RefusedStep::AlreadyDecided { state: "approved", detail: format!(": session {session}") })
            }
            RequestState::Denied { by, why, .. } => Err(RefusedStep::AlreadyDecided {
                state: "denied",
                detail: format!(" by {}: {why}", by.name),
            }),
            RequestState::Cancelled { by, .. } => {
                Err(RefusedStep::AlreadyDecided { state: "cancelled", detail: format!(" by {}", by.name) })
            }
        }
    }

    pub fn quorum(&self, target_domain: &DomainName) -> Quorum {
        Quorum::count(&self.approvals, &self.requester.id, target_domain, &self.ask_hash)
    }

    /// Adds an approval. A second one by the same person changes nothing.
    pub fn approve(
        mut self,
        approver: &Principal,
        comment: String,
        now: Timestamp,
    ) -> Result<Self, RefusedStep> {
        self.undecided(now)?;
        if approver.id == self.requester.id {
            return Err(RefusedStep::OwnRequest);
        }
        let same = |approval: &Approval| approval.by.id == approver.id && approval.ask == self.ask_hash;
        if self.approvals.iter().any(same) {
            return Ok(self);
        }
        self.approvals.push(Approval {
            by: Actor::from(approver),
            domain: approver.domain.clone(),
            at: now,
            ask: self.ask_hash.clone(),
            comment,
        });
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    /// Turns the request into a session that starts now; only with the policy's consent.
    ///
    /// `asked` is the hash of the ask as it stands, computed anew by the caller: an ask that was
    /// changed after its approvals activates nothing.
    pub fn activate(
        mut self,
        session: SessionId,
        asked: &AskHash,
        consent: &super::session::Consent,
        now: Timestamp,
    ) -> Result<(Self, Session), RefusedStep> {
        self.undecided(now)?;
        if *asked != self.ask_hash || !consent.is_for(&self) {
            return Err(RefusedStep::AskChanged);
        }
        let granted = Session::grant(session.clone(), &self, now);
        self.state = RequestState::Approved { at: now, session };
        self.version = self.version.saturating_add(1);
        Ok((self, granted))
    }

    pub fn deny(mut self, by: &Principal, why: String, now: Timestamp) -> Result<Self, RefusedStep> {
        self.undecided(now)?;
        self.state = RequestState::Denied { at: now, by: Actor::from(by), why };
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    pub fn cancel(mut self, by: &Principal, now: Timestamp) -> Result<Self, RefusedStep> {
        self.undecided(now)?;
        self.state = RequestState::Cancelled { at: now, by: Actor::from(by) };
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    /// Stores for the history that nobody decided in time; `None` when that is not so.
    pub fn lapse(mut self, now: Timestamp) -> Option<Self> {
        let RequestState::Lapsed { at } = self.state_at(now) else { return None };
        if self.state != RequestState::Pending {
            return None;
        }
        self.state = RequestState::Lapsed { at };
        self.version = self.version.saturating_add(1);
        Some(self)
    }
}
