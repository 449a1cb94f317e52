//! Which statements may be run over a PostgreSQL connection that is up: each is put to the policy by itself, at the moment
//! it is to be run, and only where the rules in force say anything about statements. And whether one may be for replication.
//! Nothing is awaited.

use std::sync::Arc;

use crate::domain::decision::{Decision, Rule};
use crate::domain::deny::Deny;
use crate::domain::session::Permit;
use crate::domain::target::Target;
use crate::policy::{Action, Detail, Facts, Query, StatementFacts};

use super::{Access, Rules};

/// The rule of a refusal because it could not be told what a statement does.
const UNKNOWN: &str = "UNKNOWN-STATEMENT";

/// The rules in force at one moment, for the statements of one connection.
#[derive(Debug)]
pub struct StatementRules {
    rules: Arc<Rules>,
    govern: bool,
}

impl Access {
    /// The rules that are in force now, unless `known` are these.
    pub fn statement_rules(&self, permit: &Permit, known: Option<&StatementRules>) -> Option<StatementRules> {
        let rules = self.rules();
        if known.is_some_and(|known| Arc::ptr_eq(&known.rules, &rules)) {
            return None;
        }
        let target = rules.targets.find(&permit.target().name);
        // A target that is no longer there allows nothing.
        let govern = target.map_or(true, |entry| {
            rules.policy.governs_statements(&query(permit, &entry.target, Action::Statement))
        });
        Some(StatementRules { rules, govern })
    }
}

impl Access {
    /// Whether a replication connection may be open.
    pub fn may_replicate(&self, permit: &Permit) -> Result<(), Deny> {
        let rules = self.rules();
        let entry = rules.targets.find(&permit.target().name)?;
        let says_so = entry.route.postgres().is_ok_and(|target| target.replication.contains(permit.access()));
        let query = query(permit, &entry.target, Action::Replicate).detail(Detail::Replication(says_so));
        match rules.policy.decide(&query) {
            Decision::Allow { .. } => Ok(()),
            Decision::Refuse { rules } => Err(Deny::PolicyRefused { rules }),
        }
    }
}

impl StatementRules {
    /// Whether any statement could be refused: else they need not be looked at.
    pub fn govern(&self) -> bool {
        self.govern
    }

    /// Whether a statement of which this is known may be run.
    pub fn allow(&self, permit: &Permit, facts: &StatementFacts) -> Result<(), Deny> {
        let target = &self.rules.targets.find(&permit.target().name)?.target;
        let query = query(permit, target, Action::Statement).detail(Detail::Statement(facts));
        match self.rules.policy.decide(&query) {
            Decision::Refuse { rules } => Err(Deny::PolicyRefused { rules }),
            Decision::Allow { .. } if self.govern && !facts.known => Err(Deny::PolicyRefused {
                rules: vec![Rule {
                    id: UNKNOWN.to_owned(),
                    needs:
                        "a statement of which it can be told what it does, as there are rules for them here"
                            .to_owned(),
                }],
            }),
            Decision::Allow { .. } => Ok(()),
        }
    }
}

fn query<'a>(permit: &'a Permit, target: &'a Target, action: Action) -> Query<'a> {
    let facts = Facts { own: true, break_glass: permit.session().break_glass, ..Facts::default() };
    Query::new(action, permit.principal()).on(target).access(permit.access()).facts(facts)
}
