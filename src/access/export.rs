//! Giving the audit log out: what somebody may read of it is what they may replay, and what was given out is on
//! record before it is.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::refusal::Refusal;
use super::{Access, Caller, Rules};
use crate::audit::export::{Counts, Filter, Whose};
use crate::domain::decision::{Decision, Rule};
use crate::domain::event::{Action, Event, Outcome};
use crate::domain::id::SessionId;
use crate::domain::principal::Principal;
use crate::domain::session::Session;
use crate::policy::{self, Facts, Query};

/// Somebody who reads the log, by the rules of one moment. Records are many and targets few: what was decided is
/// kept.
#[derive(Debug)]
pub struct Reader {
    principal: Principal,
    rules: Arc<Rules>,
    decided: HashMap<(bool, Option<String>), bool>,
    /// Why something may not be read, the first time.
    refused: Vec<Rule>,
}

impl Reader {
    /// Whether what is somebody's, on a target or none, may be read.
    pub fn may(&mut self, whose: Whose<'_>) -> bool {
        let own = whose.principal == Some(self.principal.id.as_str());
        let key = (own, whose.target.map(str::to_owned));
        if let Some(may) = self.decided.get(&key) {
            return *may;
        }
        let target = whose.target.and_then(|target| target.parse().ok());
        let entry = target.and_then(|target| self.rules.targets.find(&target).ok());
        let facts = Facts { own, ..Facts::default() };
        let mut query = Query::new(policy::Action::Replay, &self.principal).facts(facts);
        if let Some(entry) = entry {
            query = query.on(&entry.target);
        }
        let may = match self.rules.policy.decide(&query) {
            Decision::Allow { .. } => true,
            Decision::Refuse { rules } => {
                if self.refused.is_empty() {
                    self.refused = rules;
                }
                false
            }
        };
        self.decided.insert(key, may);
        may
    }

    /// As `now`, unless something that could be read may not be read any more.
    pub fn renewed_as(self, mut now: Self) -> Option<Self> {
        let id = now.principal.id.clone();
        for ((own, target), _) in self.decided.into_iter().filter(|(_, may)| *may) {
            let whose = Whose { principal: own.then_some(id.as_str()), target: target.as_deref() };
            if !now.may(whose) {
                return None;
            }
        }
        Some(now)
    }

    /// What to say when all that was asked for may not be read, or, of something named that there is nothing of, to
    /// somebody who could not read it if there were.
    pub fn refusal(&mut self, filter: &Filter, counts: &Counts) -> Option<Refusal> {
        if counts.written > 0 {
            return None;
        }
        let is_named = filter.session.is_some() || filter.connection.is_some();
        let nobodys = Whose { principal: None, target: None };
        let is_refused = counts.left_out > 0 || (is_named && !self.may(nobodys));
        is_refused.then(|| Refusal::Policy { rules: self.refused.clone() })
    }
}

impl Access {
    /// What the caller may read of the log, by the rules in force.
    pub fn reader(&self, principal: &Principal) -> Reader {
        Reader {
            principal: principal.clone(),
            rules: self.rules(),
            decided: HashMap::new(),
            refused: Vec::new(),
        }
    }

    /// What whoever came with `bearer` may read now; none when their token or account no longer holds. A store that
    /// does not answer confirms nothing.
    pub async fn reader_of(&self, bearer: &str) -> Option<Reader> {
        let who = self.authenticate(bearer, None).await.ok()?;
        Some(self.reader(&who.caller.principal))
    }

    /// Records that part of the log is about to be given out, or was not.
    pub async fn record_export(
        &self,
        caller: &Caller,
        format: &str,
        filter: &Filter,
        counts: &Counts,
        refusal: Option<&Refusal>,
    ) -> Result<(), Refusal> {
        let outcome = if refusal.is_some() { Outcome::Refused } else { Outcome::Done };
        let mut event = Event::new(Action::AuditExported, outcome)
            .by(&caller.principal)
            .from(caller.client)
            .with("format", format)
            .with("filter", serde_json::to_value(filter).unwrap_or(Value::Null))
            .with("written", counts.written)
            .with("left_out", counts.left_out);
        event.session.clone_from(&filter.session);
        event.connection.clone_from(&filter.connection);
        event.target.clone_from(&filter.target);
        if let Some(refusal) = refusal {
            event = event.with("refusal", refusal.to_string()).with("code", refusal.code());
        }
        self.record(event).await
    }

    /// Whether the caller may have all that the log holds of a session; recorded either way.
    pub async fn may_bundle(&self, caller: &Caller, id: &SessionId) -> Result<Session, Refusal> {
        let session = self.store.session(id).await?;
        let principal = session.as_ref().map(|session| session.principal.id.as_str());
        let whose = Whose { principal, target: session.as_ref().map(|session| session.target.as_str()) };
        let mut reader = self.reader(&caller.principal);
        let allowed = match (reader.may(whose), session) {
            (false, _) => Err(Refusal::Policy { rules: reader.refused }),
            (true, None) => Err(Refusal::NotFound { what: format!("session `{id}`") }),
            (true, Some(session)) => Ok(session),
        };
        let target = allowed.as_ref().ok().map(|session| session.target.clone());
        let filter = Filter { session: Some(id.clone()), target, ..Filter::default() };
        self.record_export(caller, "bundle", &filter, &Counts::default(), allowed.as_ref().err()).await?;
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::targets::Targets;
    use crate::domain::id::PrincipalId;
    use crate::policy::Policy;

    /// Lets people read what is their own, or nothing.
    #[derive(Debug)]
    struct Own(bool);

    impl Policy for Own {
        fn decide(&self, query: &Query<'_>) -> Decision {
            if self.0 && query.action == policy::Action::Replay && query.facts.own {
                Decision::Allow { policies: vec!["OWN".to_owned()] }
            } else {
                Decision::Refuse { rules: vec![Rule { id: "X".to_owned(), needs: "y".to_owned() }] }
            }
        }

        fn governs_statements(&self, _: &Query<'_>) -> bool {
            false
        }

        fn hash(&self) -> &'static str {
            ""
        }
    }

    fn reader(policy: Own) -> Reader {
        let principal = Principal {
            id: PrincipalId::from_random([1; 10]),
            name: "alice".parse().unwrap(),
            domain: "bank-core".parse().unwrap(),
            groups: std::collections::BTreeSet::new(),
        };
        let targets = Arc::new(Targets::new(std::iter::empty()));
        let rules = Arc::new(Rules { targets, policy: Arc::new(policy) });
        Reader { principal, rules, decided: HashMap::new(), refused: Vec::new() }
    }

    #[test]
    fn who_reads_goes_on_only_while_all_that_was_theirs_to_read_still_is() {
        let own = PrincipalId::from_random([1; 10]);
        let (mine, others) = (
            Whose { principal: Some(own.as_str()), target: Some("web-1") },
            Whose { principal: Some("usr-other"), target: Some("web-1") },
        );
        let mut before = reader(Own(true));
        assert!(before.may(mine) && !before.may(others) && before.may(mine));
        let mut renewed = before.renewed_as(reader(Own(true))).expect("nothing changed");
        assert!(renewed.may(mine));
        assert!(renewed.renewed_as(reader(Own(false))).is_none());
        let mut nothing_read = reader(Own(true));
        assert!(!nothing_read.may(others));
        assert!(nothing_read.renewed_as(reader(Own(false))).is_some(), "nothing was taken away");
    }

    #[test]
    fn who_may_read_nothing_is_refused_and_who_finds_nothing_is_not() {
        let counts = |written, left_out| Counts { written, left_out, log: 9 };
        let named = Filter { session: Some(SessionId::from_random([2; 10])), ..Filter::default() };
        let any = Filter::default();
        for (filter, counts, is_refused) in [
            (&any, counts(1, 5), false),
            (&any, counts(0, 5), true),
            (&any, counts(0, 0), false),
            (&named, counts(1, 0), false),
            // Whether there is such a session is for those to know who could read it.
            (&named, counts(0, 0), true),
        ] {
            let mut reader = reader(Own(true));
            reader.may(Whose { principal: None, target: None });
            let refusal = reader.refusal(filter, &counts);
            assert_eq!(refusal.is_some(), is_refused, "{filter:?} {counts:?}");
            assert!(refusal.is_none_or(|refusal| !refusal.rules().is_empty()));
        }
    }
}
