//! Who may do what: Cedar policies from `policies/`, loaded, validated against their schema and
//! asked. See `policies/README.md` for the rules themselves.

use crate::domain::approval::Quorum;
use crate::domain::decision::Decision;
use crate::domain::name::AccessName;
use crate::domain::principal::Principal;
use crate::domain::target::Target;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ask for an access on a target. Context: duration, break-glass.
    Request,
    /// Turn a request into a session. The principal is the requester. Context: quorum, duration, break-glass.
    Activate,
    /// Say yes to a request for a target. Context: own.
    Approve,
    /// Say no to a request for a target. Context: own.
    Deny,
    /// Withdraw a request. Context: own.
    Cancel,
    /// End a session. Context: own.
    Revoke,
    /// Put somebody on the blocklist, or take them off.
    Block,
    Unblock,
    /// Open a connection under a session. Context: break-glass.
    Connect,
    /// Read recordings. Context: own.
    Replay,
    /// See what is not one's own: requests, sessions, connections, blocks of others.
    Watch,
    /// Manage users; read metrics.
    Administer,
}

/// A question. What an action does not use is left at its default.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub action: Action,
    pub principal: &'a Principal,
    /// `None` for actions that concern no target.
    pub target: Option<&'a Target>,
    pub access: Option<&'a AccessName>,
    pub facts: Facts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The thing acted upon is the principal's own.
    pub own: bool,
    pub break_glass: bool,
    pub duration_seconds: u64,
    pub quorum: Quorum,
}

impl<'a> Query<'a> {
    pub fn new(action: Action, principal: &'a Principal) -> Self {
        Self { action, principal, target: None, access: None, facts: Facts::default() }
    }

    pub fn on(mut self, target: &'a Target) -> Self {
        self.target = Some(target);
        self
    }

    pub fn access(mut self, access: &'a AccessName) -> Self {
        self.access = Some(access);
        self
    }

    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }
}

/// Answers queries. The only implementation outside tests is [`cedar`]'s.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// Refuses, with at least one rule, whenever anything about the evaluation goes wrong.
    fn decide(&self, query: &Query<'_>) -> Decision;

    /// SHA-256 over all policy texts and the schema, in hexadecimal: what was in force.
    fn hash(&self) -> &str;
}
