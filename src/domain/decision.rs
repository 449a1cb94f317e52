//! A verdict of the policy engine, as data: the domain asks for one without knowing Cedar.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One policy that refused, with what would satisfy it ("one more approver").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The policy's id as its file names it, for example `FR-283`.
    pub id: String,
    /// What is missing, for the person who was refused.
    pub needs: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.needs)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Decision {
    /// Allowed, by the policies named.
    Allow { policies: Vec<String> },
    /// Refused; never without a rule.
    Refuse { rules: Vec<Rule> },
}

impl Decision {
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// Writes `FR-283: one more approver; DT-001: an approver from bank-kyc`.
pub fn rules_text(rules: &[Rule]) -> String {
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
