//! What is still missing for a session, found by asking the rules themselves: approvals are added
//! one by one until a refusal goes away. No number of any rule is repeated here.

use std::fmt;

use super::{Action, Facts, Policy, Query};
use crate::domain::approval::Quorum;
use crate::domain::decision::{Decision, Rule};
use crate::domain::name::{AccessName, DomainName};
use crate::domain::principal::Principal;
use crate::domain::target::Target;

/// No rule is expected to ask for more people than this; one that does is reported by what it says
/// of itself.
const MOST_PEOPLE: u32 = 16;

/// What a request lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// How many more distinct people must approve; 0 when approvals are not what is missing.
    pub people: u32,
    /// How many of them must be of the target's domain.
    pub from_target_domain: u32,
    pub domain: DomainName,
    /// The rules that refuse as it stands, each with what it lacks. Empty: nothing is missing.
    pub rules: Vec<Rule>,
    /// Whether approvals alone would satisfy all of them.
    pub by_approvals: bool,
}

impl fmt::Display for Missing {
    /// Writes `2 more approvers, one of them from bank-kyc`, or the rules when no approval helps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_approvals {
            f.write_str(&more_text(self.people, self.from_target_domain, &self.domain))
        } else {
            f.write_str(&crate::domain::decision::rules_text(&self.rules))
        }
    }
}

/// What `query` (on `activate`) lacks beyond the approvals in its facts; `None` when it is allowed.
pub fn missing(policy: &dyn Policy, query: &Query<'_>) -> Option<Missing> {
    let target = query.target?;
    let Decision::Refuse { rules } = policy.decide(query) else { return None };
    let allowed = |quorum| policy.allows(&with_quorum(query, quorum));
    let more = least(query.facts.quorum, &allowed);
    Some(Missing {
        people: more.map_or(0, |more| more.people),
        from_target_domain: more.map_or(0, |more| more.from_target_domain),
        domain: target.domain.clone(),
        rules,
        by_approvals: more.is_some(),
    })
}

/// Whether these people could ever approve what `requester` asks for; if not, why not.
///
/// `candidates` may be everybody: who of them may approve is the policy's to say, and the requester
/// is not counted.
pub fn feasible(
    policy: &dyn Policy,
    requester: &Principal,
    target: &Target,
    access: &AccessName,
    facts: Facts,
    candidates: &[Principal],
) -> Result<(), Vec<Rule>> {
    let approvers: std::collections::BTreeMap<_, _> = candidates
        .iter()
        .filter(|candidate| candidate.id != requester.id)
        .filter(|candidate| policy.allows(&Query::new(Action::Approve, candidate).on(target)))
        .map(|candidate| (&candidate.id, &candidate.domain))
        .collect();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let everybody = Quorum {
        people: count(approvers.len()),
        from_target_domain: count(approvers.values().filter(|domain| ***domain == target.domain).count()),
    };
    let query = Query::new(Action::Activate, requester).on(target).access(access).facts(facts);
    let Decision::Refuse { rules } = policy.decide(&with_quorum(&query, everybody)) else { return Ok(()) };
    let probe = |quorum| policy.decide(&with_quorum(&query, quorum));
    let explain = |rule: Rule| match least(Quorum::default(), &|quorum| !refuses(&probe(quorum), &rule.id)) {
        Some(needed) => Rule { needs: shortfall_text(needed, everybody, target), id: rule.id },
        None => rule,
    };
    Err(rules.into_iter().map(explain).collect())
}

/// Says of each refusing rule what it lacks beyond `present`, where approvals can satisfy it.
///
/// The rules share approvers: each is told what it needs once those before it, which need fewer, have
/// theirs. Only if that would ask for more people than all together need is each told on its own.
pub(super) fn refine(
    rules: Vec<Rule>,
    present: Quorum,
    domain: &DomainName,
    probe: &dyn Fn(Quorum) -> Decision,
) -> Vec<Rule> {
    let alone: Vec<Option<Quorum>> =
        rules.iter().map(|rule| least(present, &|quorum| !refuses(&probe(quorum), &rule.id))).collect();
    let mut order: Vec<(Quorum, &Rule)> =
        rules.iter().zip(&alone).filter_map(|(rule, needed)| needed.map(|needed| (needed, rule))).collect();
    order.sort_by_key(|(needed, rule)| (needed.people, needed.from_target_domain, rule.id.clone()));
    let mut reached = present;
    let mut shared = std::collections::BTreeMap::new();
    for (_, rule) in order {
        let more = least(reached, &|quorum| !refuses(&probe(quorum), &rule.id)).unwrap_or_default();
        reached = plus(reached, more);
        shared.insert(rule.id.clone(), more);
    }
    let together = least(present, &|quorum| {
        let decision = probe(quorum);
        shared.keys().all(|id| !refuses(&decision, id))
    });
    let adds_up = together.is_some_and(|together| plus(present, together) == reached);
    let told = |(rule, alone): (Rule, Option<Quorum>)| {
        let shared = shared.get(&rule.id).copied().filter(|more| adds_up && more.people > 0);
        match shared.or(alone) {
            Some(more) => {
                Rule { needs: more_text(more.people, more.from_target_domain, domain), id: rule.id }
            }
            None => rule,
        }
    };
    rules.into_iter().zip(alone).map(told).collect()
}

/// The fewest approvals to add to `present`, of the target's domain only where they must be, until
/// `satisfied`; `None` when approvals do not help. Relies on more approvals never being worse.
fn least(present: Quorum, satisfied: &dyn Fn(Quorum) -> bool) -> Option<Quorum> {
    let most = Quorum { people: MOST_PEOPLE, from_target_domain: MOST_PEOPLE };
    if !satisfied(plus(present, most)) {
        return None;
    }
    (0..=MOST_PEOPLE)
        .flat_map(|people| (0..=people).map(move |from_target_domain| Quorum { people, from_target_domain }))
        .find(|more| satisfied(plus(present, *more)))
}

fn refuses(decision: &Decision, id: &str) -> bool {
    match decision {
        Decision::Allow { .. } => false,
        Decision::Refuse { rules } => rules.iter().any(|rule| rule.id == id),
    }
}

fn plus(a: Quorum, b: Quorum) -> Quorum {
    Quorum {
        people: a.people.saturating_add(b.people),
        from_target_domain: a.from_target_domain.saturating_add(b.from_target_domain),
    }
}

fn with_quorum<'a>(query: &Query<'a>, quorum: Quorum) -> Query<'a> {
    query.clone().facts(Facts { quorum, ..query.facts })
}

fn more_text(people: u32, from_domain: u32, domain: &DomainName) -> String {
    match (people, from_domain) {
        (1, 0) => "one more approver".to_owned(),
        (people, 0) => format!("{people} more approvers"),
        (1, _) => format!("an approver from {domain}"),
        (people, 1) => format!("{people} more approvers, one of them from {domain}"),
        (people, all) if all >= people => format!("{people} more approvers, all from {domain}"),
        (people, some) => format!("{people} more approvers, {some} of them from {domain}"),
    }
}

/// `needed` against all who may approve: addressed to the requester.
fn shortfall_text(needed: Quorum, there: Quorum, target: &Target) -> String {
    let (name, domain) = (&target.name, &target.domain);
    let approvers = match (needed.people, needed.from_target_domain) {
        (1, 0) => "1 approver".to_owned(),
        (people, 0) => format!("{people} approvers"),
        (1, _) => format!("1 approver from {domain}"),
        (people, 1) => format!("{people} approvers, one of them from {domain}"),
        (people, some) => format!("{people} approvers, {some} of them from {domain}"),
    };
    let of_domain = match there.from_target_domain {
        0 => "none".to_owned(),
        some => format!("only {some}"),
    };
    let people = if there.people == 1 { "person" } else { "people" };
    let who = format!("{} {people} other than you", there.people);
    let short = match there.people {
        0 => format!("nobody other than you may approve for {name}"),
        enough if enough >= needed.people => {
            format!("of the {who} who may approve for {name} {of_domain} is from {domain}")
        }
        _ if needed.from_target_domain == 0 => format!("only {who} may approve for {name}"),
        _ => format!("only {who} may approve for {name}, {of_domain} of them from {domain}"),
    };
    format!("needs {approvers}, but {short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(people: u32, from_target_domain: u32) -> Quorum {
        Quorum { people, from_target_domain }
    }

    /// Refuses with `A` until `a` and with `B` until `b` approve.
    fn probe(a: Quorum, b: Quorum) -> impl Fn(Quorum) -> Decision {
        move |now: Quorum| {
            let short = |needed: Quorum| {
                now.people < needed.people || now.from_target_domain < needed.from_target_domain
            };
            let rules: Vec<_> = [("A", a), ("B", b)]
                .into_iter()
                .filter(|(_, needed)| short(*needed))
                .map(|(id, _)| Rule { id: id.to_owned(), needs: "as annotated".to_owned() })
                .collect();
            if rules.is_empty() { Decision::Allow { policies: vec![] } } else { Decision::Refuse { rules } }
        }
    }

    fn told(present: Quorum, a: Quorum, b: Quorum) -> Vec<String> {
        let probe = probe(a, b);
        let Decision::Refuse { rules } = probe(present) else { return Vec::new() };
        let domain = "bank-kyc".parse().unwrap();
        refine(rules, present, &domain, &probe).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_each_rule_lacks_adds_up_to_what_is_needed() {
        assert_eq!(
            told(quorum(0, 0), quorum(2, 0), quorum(3, 1)),
            ["A: 2 more approvers", "B: an approver from bank-kyc"]
        );
        assert_eq!(
            told(quorum(1, 1), quorum(2, 0), quorum(3, 1)),
            ["A: one more approver", "B: one more approver"]
        );
        assert_eq!(told(quorum(3, 0), quorum(2, 0), quorum(3, 1)), ["B: an approver from bank-kyc"]);
        assert_eq!(
            told(quorum(0, 0), quorum(0, 0), quorum(3, 3)),
            ["B: 3 more approvers, all from bank-kyc"]
        );
    }

    #[test]
    fn rules_that_one_person_can_satisfy_together_are_told_on_their_own() {
        assert_eq!(
            told(quorum(0, 0), quorum(2, 0), quorum(0, 1)),
            ["A: one more approver", "B: an approver from bank-kyc"]
        );
        assert_eq!(
            told(quorum(0, 0), quorum(2, 0), quorum(2, 0)),
            ["A: 2 more approvers", "B: 2 more approvers"]
        );
    }

    #[test]
    fn a_rule_that_no_approval_satisfies_keeps_its_own_words() {
        assert_eq!(told(quorum(0, 0), quorum(0, 0), quorum(1000, 0)), ["B: as annotated"]);
    }
}
