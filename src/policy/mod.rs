//! Who may do what: Cedar policies from `policies/`, loaded, validated against their schema and
//! asked. See `policies/README.md` for the rules themselves.
//!
//! 1. [`load`] reads the files and refuses them as a whole if anything is wrong with any.
//! 2. [`cedar`] puts a [`Query`] to them and turns the answer into a [`Decision`]; whatever goes
//!    wrong on the way is a refusal.
//! 3. [`approvals`] finds out what is still missing by asking the rules themselves.
//! 4. [`cases`] runs the tables of cases that stand beside the policies.

pub mod approvals;
pub mod cases;
pub mod cedar;
mod entities;
pub mod load;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

pub use approvals::{Missing, feasible, missing};
pub use cedar::CedarPolicy;
pub use load::PolicyErrors;

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
    /// Read recordings, and what else the audit log says. Context: own.
    Replay,
    /// See what is not one's own: requests, sessions, connections, blocks of others.
    Watch,
    /// Manage users; read metrics.
    Administer,
    /// Over a connection that is up: each thing that SSH can do there. Context: break-glass.
    Shell,
    /// Context: the command too.
    Exec,
    Sftp,
    /// A subsystem other than sftp. Context: its name too.
    Subsystem,
    /// Reach something through the target. Context: the destination too.
    Forward,
    /// Have the target take connections for the client. Context: the address too.
    Listen,
    /// Let the target ask the client's agent.
    Agent,
    /// Run a statement over PostgreSQL. Context: what it is, as far as is known.
    Statement,
    /// Open a replication connection to PostgreSQL. Context: whether the access says so.
    Replicate,
}

impl Action {
    pub const ALL: [Self; 21] = [
        Self::Request,
        Self::Activate,
        Self::Approve,
        Self::Deny,
        Self::Cancel,
        Self::Revoke,
        Self::Block,
        Self::Unblock,
        Self::Connect,
        Self::Replay,
        Self::Watch,
        Self::Administer,
        Self::Shell,
        Self::Exec,
        Self::Sftp,
        Self::Subsystem,
        Self::Forward,
        Self::Listen,
        Self::Agent,
        Self::Statement,
        Self::Replicate,
    ];

    /// The word that the schema, the tables of cases and the command line use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Activate => "activate",
            Self::Approve => "approve",
            Self::Deny => "deny",
            Self::Cancel => "cancel",
            Self::Revoke => "revoke",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Connect => "connect",
            Self::Replay => "replay",
            Self::Watch => "watch",
            Self::Administer => "administer",
            Self::Shell => "shell",
            Self::Exec => "exec",
            Self::Sftp => "sftp",
            Self::Subsystem => "subsystem",
            Self::Forward => "forward",
            Self::Listen => "listen",
            Self::Agent => "agent",
            Self::Statement => "statement",
            Self::Replicate => "replicate",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an action: use one of {known}", known = Action::ALL.map(Action::as_str).join(", "))]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| UnknownAction(text.to_owned()))
    }
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
    pub detail: Detail<'a>,
}

/// What exactly is to be done over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail<'a> {
    #[default]
    None,
    Command(&'a str),
    Subsystem(&'a str),
    /// A host and a port, or the path of a socket and port 0.
    Destination {
        host: &'a str,
        port: u32,
    },
    Statement(&'a StatementFacts),
    /// Whether the access is configured for replication.
    Replication(bool),
}

/// What is known of an SQL statement. Where something about it is not `known`, the rest is what was found, and the statement
/// is refused wherever a rule for statements exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StatementFacts {
    pub known: bool,
    /// What it does, statements within it included: `select`, `delete`, `create` …
    pub kinds: BTreeSet<String>,
    /// Relations that it names: the name alone, and with its schema where it is written with one.
    pub tables: BTreeSet<String>,
    /// Every `UPDATE` and `DELETE` in it has a `WHERE`.
    pub has_where: bool,
    /// A transaction is open that it becomes part of.
    pub in_transaction: bool,
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
        Self { action, principal, target: None, access: None, facts: Facts::default(), detail: Detail::None }
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

    pub fn detail(mut self, detail: Detail<'a>) -> Self {
        self.detail = detail;
        self
    }
}

/// Answers queries. The only implementation outside tests is [`cedar`]'s.
pub trait Policy: Send + Sync + fmt::Debug {
    /// Refuses, with at least one rule, whenever anything about the evaluation goes wrong.
    fn decide(&self, query: &Query<'_>) -> Decision;

    /// Whether [`Policy::decide`] allows, for when nobody asks why.
    fn allows(&self, query: &Query<'_>) -> bool {
        self.decide(query).is_allow()
    }

    /// Whether there is a rule for this principal's statements on this target: only then is it looked at what they are. A rule
    /// that looks at the statement before it looks at who and where counts for everybody. The query's action is
    /// [`Action::Statement`]; its detail does not matter.
    fn governs_statements(&self, query: &Query<'_>) -> bool;

    /// SHA-256 over all policy texts and the schema, in hexadecimal: what was in force.
    fn hash(&self) -> &str;
}
