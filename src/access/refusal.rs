//! Why a use case was not carried out, for the person who wanted it.

use crate::domain::decision::{Rule, rules_text};
use crate::domain::deny::Deny;
use crate::domain::request::{MalformedAsk, RefusedStep};
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("refused by policy: {}", rules_text(.rules))]
    Policy { rules: Vec<Rule> },
    /// Nobody could ever approve this.
    #[error("nobody could approve this: {}", rules_text(.rules))]
    Infeasible { rules: Vec<Rule> },
    #[error(transparent)]
    Step(#[from] RefusedStep),
    #[error(transparent)]
    Ask(#[from] MalformedAsk),
    #[error(transparent)]
    Deny(#[from] Deny),
    #[error("{what} was not found")]
    NotFound { what: String },
    #[error("{what} exists already")]
    Exists { what: String },
    #[error("{0}")]
    Malformed(String),
    /// The wrong name or password, an unknown or expired token: never which.
    #[error("{0}")]
    Unauthenticated(String),
    /// The password is right, and not enough.
    #[error("this account has a second factor: give its present code as well")]
    SecondFactorRequired,
    #[error("this server has no SSH gateway")]
    NoSshGateway,
    #[error("too many attempts: wait {seconds} s and try again")]
    TooManyAttempts { seconds: u64 },
    #[error("{what} was changed by somebody else at the same time: look again and decide anew")]
    Conflict { what: String },
    #[error("the store is unavailable: {detail}; nothing was changed")]
    StoreUnavailable { detail: String },
    /// The key that signs certificates is kept elsewhere, and does not sign.
    #[error("no certificate can be made now: {detail}; try again later")]
    AuthorityUnavailable { detail: String },
    /// The change may have been made, but its record is not durable.
    #[error("cannot record: {detail}")]
    Unrecordable { detail: String },
}

impl Refusal {
    /// A stable word for the API, for records and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "policy_refused",
            Self::Infeasible { .. } => "nobody_can_approve",
            Self::Step(RefusedStep::AlreadyDecided { .. }) => "already_decided",
            Self::Step(RefusedStep::Lapsed { .. }) => "request_lapsed",
            Self::Step(RefusedStep::OwnRequest) => "own_request",
            Self::Step(RefusedStep::AskChanged) => "ask_changed",
            Self::Ask(_) | Self::Malformed(_) => "malformed",
            Self::Deny(deny) => deny.code(),
            Self::NotFound { .. } => "not_found",
            Self::Exists { .. } => "exists",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::NoSshGateway => "no_ssh_gateway",
            Self::SecondFactorRequired => "second_factor_required",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::Conflict { .. } => "conflict",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::AuthorityUnavailable { .. } => "authority_unavailable",
            Self::Unrecordable { .. } => "unrecordable",
        }
    }

    /// The rules that refused, if it was rules.
    pub fn rules(&self) -> &[Rule] {
        match self {
            Self::Policy { rules }
            | Self::Infeasible { rules }
            | Self::Deny(Deny::PolicyRefused { rules }) => rules,
            _ => &[],
        }
    }

    /// What the person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Deny(deny) => Some(deny.hint()),
            _ => None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what } => Self::Conflict { what },
            StoreError::Exists { what } => Self::Exists { what },
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Unavailable { detail } => Self::StoreUnavailable { detail },
        }
    }
}

/// A store that does not answer refuses a connection.
pub(crate) fn deny_from_store(error: &StoreError) -> Deny {
    Deny::StoreUnavailable { detail: error.to_string() }
}
