//! The policy engine: Cedar, asked so that whatever goes wrong is a refusal.
//!
//! Cedar by itself skips a policy that fails to evaluate, so that a broken `forbid` forbids nothing.
//! Here any such failure refuses, and the refusal names the policy.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use cedar_policy::{ActionConstraint, Authorizer, Decision as Verdict, Entities, PolicySet, PolicySetError};

use super::entities::Vocabulary;
use super::load::{self, Compiled, PolicyErrors, PolicyInfo, PolicyMistake, SCHEMA_FILE, Source, Sources};
use super::{Action, Facts, Policy, Query, approvals};
use crate::domain::decision::{Decision, Rule};
use crate::domain::name::GroupName;
use crate::domain::principal::Principal;

/// The rule of a refusal that no policy made: none permits.
pub const NO_PERMIT: &str = "NO-PERMIT";
/// The rule of a refusal because the question could not be put.
pub const ERRONEOUS: &str = "POLICY-ERROR";

/// What may stand in braces in `@needs`.
pub(super) const PLACEHOLDERS: [&str; 5] =
    ["principal", "principal.domain", "target", "target.domain", "target.environment"];

/// A file of policies that Sallyport comes with, and the table of cases beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Builtin {
    pub file: &'static str,
    pub text: &'static str,
    pub cases: &'static str,
}

macro_rules! builtin {
    ($($stem:literal),+ $(,)?) => {
        [$(Builtin {
            file: concat!($stem, ".cedar"),
            text: include_str!(concat!("../../policies/", $stem, ".cedar")),
            cases: include_str!(concat!("../../policies/", $stem, ".cases.toml")),
        }),+]
    };
}

const BUILTIN_SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
/// Sorted by name, as a directory is read.
pub(super) const BUILTIN: [Builtin; 9] =
    builtin!["DT-001", "FR-281", "FR-283", "break-glass", "own-request", "postgres", "replay", "ssh", "who"];

/// Policies in force: immutable; to reload is to make another.
#[derive(Debug)]
pub struct CedarPolicy {
    compiled: Compiled,
    vocabulary: Vocabulary,
    actions: Entities,
    /// For each action the policies that may concern it: evaluating the others takes time and
    /// changes nothing.
    by_action: HashMap<Action, PolicySet>,
    /// A rule for statements asks whether something is said of them (`has`), which is no failure where it is not.
    asks_what_is_said: bool,
    authorizer: Authorizer,
}

impl CedarPolicy {
    /// The rules that Sallyport comes with: the files of `policies/`.
    pub fn builtin() -> Result<Self, PolicyErrors> {
        let source = |name: &str, text: &str| Source {
            name: name.to_owned(),
            path: format!("policies/{name}"),
            text: text.to_owned(),
        };
        let policies = BUILTIN.iter().map(|builtin| source(builtin.file, builtin.text)).collect();
        Self::compile(&Sources { schema: source(SCHEMA_FILE, BUILTIN_SCHEMA), policies })
    }

    /// An operator's rules: `*.cedar` and `schema.cedarschema` of one directory, not of those below.
    pub fn load(dir: &Path) -> Result<Self, PolicyErrors> {
        Self::compile(&load::read(dir)?)
    }

    fn compile(sources: &Sources) -> Result<Self, PolicyErrors> {
        let compiled = load::compile(sources)?;
        let blame = |error: String| {
            PolicyErrors::one(PolicyMistake {
                file: sources.schema.path.clone(),
                position: None,
                message: error,
            })
        };
        let vocabulary = Vocabulary::new().map_err(|error| blame(error.to_string()))?;
        let actions = compiled.schema.action_entities().map_err(|error| blame(error.to_string()))?;
        let mut by_action = HashMap::new();
        for action in Action::ALL {
            let policies =
                concerning(action, &vocabulary, &compiled).map_err(|error| blame(error.to_string()))?;
            by_action.insert(action, policies);
        }
        let of_statements = by_action.get(&Action::Statement).map(PolicySet::policies).into_iter().flatten();
        let asks_what_is_said = of_statements.into_iter().any(|policy| {
            // One that has no form in JSON is taken for one that does.
            policy.to_json().map_or(true, |json| asks_whether_said(&json))
        });
        let authorizer = Authorizer::new();
        Ok(Self { compiled, vocabulary, actions, by_action, asks_what_is_said, authorizer })
    }

    /// The policies, by id.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyInfo> {
        self.compiled.infos.values()
    }

    pub(super) fn info(&self, id: &str) -> Option<&PolicyInfo> {
        self.compiled.infos.get(id)
    }

    /// The verdict with each rule's own words: what [`Policy::decide`] then makes precise.
    fn evaluate(&self, query: &Query<'_>) -> Decision {
        match self.vocabulary.world(query, &self.actions) {
            Ok(world) => self.evaluate_in(&world, query),
            Err(error) => refuse(ERRONEOUS, error.to_string()),
        }
    }

    /// As [`Self::evaluate`], in a world of the same principal and target.
    fn evaluate_in(&self, world: &Entities, query: &Query<'_>) -> Decision {
        let request = match self.vocabulary.request(query, &self.compiled.schema) {
            Ok(request) => request,
            Err(error) => return refuse(ERRONEOUS, error.to_string()),
        };
        let policies = self.by_action.get(&query.action).unwrap_or(&self.compiled.policies);
        let answer = self.authorizer.is_authorized(&request, policies, world);
        let failed: BTreeSet<_> = answer
            .diagnostics()
            .errors()
            .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
                (error.policy_id().to_string(), error.inner().to_string())
            })
            .collect();
        let deciding: BTreeSet<_> = answer.diagnostics().reason().map(ToString::to_string).collect();
        if answer.decision() == Verdict::Allow && failed.is_empty() {
            return Decision::Allow { policies: deciding.into_iter().collect() };
        }
        let mut rules: Vec<Rule> = Vec::new();
        if answer.decision() == Verdict::Deny {
            rules.extend(deciding.into_iter().map(|id| self.rule(id, query)));
        }
        rules.extend(failed.into_iter().map(|(id, error)| Rule {
            id,
            needs: format!("the operator, because this policy cannot be evaluated: {error}"),
        }));
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        if rules.is_empty() {
            return refuse(NO_PERMIT, format!("a policy that permits `{}`", query.action));
        }
        Decision::Refuse { rules }
    }

    fn rule(&self, id: String, query: &Query<'_>) -> Rule {
        let needs = self.info(&id).map_or_else(String::new, |info| fill(&info.needs, query));
        Rule { id, needs }
    }

    /// Who would be permitted: each group is tried in turn, and whether it being one's own helps.
    fn who_is_permitted(&self, query: &Query<'_>) -> Option<String> {
        let verdict = |principal: &Principal, facts: Facts| {
            self.evaluate(&Query { principal, ..query.clone() }.facts(facts))
        };
        let mentioned = self.compiled.groups.iter().filter_map(|group| group.parse().ok());
        let of_target = query.target.iter().flat_map(|target| target.requesters.union(&target.approvers));
        let groups: BTreeSet<GroupName> = mentioned.chain(of_target.cloned()).collect();
        let mut ways: Vec<String> = groups
            .into_iter()
            .filter(|group| {
                let mut member = query.principal.clone();
                member.groups.insert(group.clone()) && !is_unpermitted(&verdict(&member, query.facts))
            })
            .map(|group| format!("`{group}`"))
            .collect();
        let own = !query.facts.own && verdict(query.principal, Facts { own: true, ..query.facts }).is_allow();
        if let Some(first) = ways.first_mut() {
            first.insert_str(0, "membership of ");
        }
        if own {
            ways.push("that it is your own".to_owned());
        }
        let last = ways.pop()?;
        if ways.is_empty() { Some(last) } else { Some(format!("{} or {last}", ways.join(", "))) }
    }

    /// Tells which policies decided and what they say of themselves, for a person.
    pub fn explain(&self, query: &Query<'_>) -> String {
        let mut lines = vec![question_text(query)];
        match self.decide(query) {
            Decision::Allow { policies } => {
                lines.push("allowed by".to_owned());
                for id in policies {
                    lines.push(self.line(&id, ""));
                }
            }
            Decision::Refuse { rules } => {
                lines.push("refused by".to_owned());
                for rule in rules {
                    lines.push(self.line(&rule.id, &rule.needs));
                }
            }
        }
        lines.push(format!("policies in force: {}", self.hash()));
        lines.join("\n")
    }

    fn line(&self, id: &str, needs: &str) -> String {
        let needs = if needs.is_empty() { String::new() } else { format!("\n    needs: {needs}") };
        match self.info(id) {
            Some(info) if info.about.is_empty() => format!("  {id}  ({}){needs}", info.file),
            Some(info) => format!("  {id}  ({})  {}{needs}", info.file, info.about),
            None => format!("  {id}{needs}"),
        }
    }
}

impl Policy for CedarPolicy {
    fn decide(&self, query: &Query<'_>) -> Decision {
        let decision = self.evaluate(query);
        if is_unpermitted(&decision) {
            return match self.who_is_permitted(query) {
                Some(needs) => refuse(NO_PERMIT, needs),
                None => decision,
            };
        }
        let (Decision::Refuse { rules }, Action::Activate, Some(target)) =
            (&decision, query.action, query.target)
        else {
            return decision;
        };
        let Ok(world) = self.vocabulary.world(query, &self.actions) else { return decision };
        let probe = |quorum| self.evaluate_in(&world, &query.clone().facts(Facts { quorum, ..query.facts }));
        let rules = approvals::refine(rules.clone(), query.facts.quorum, &target.domain, &probe);
        Decision::Refuse { rules }
    }

    fn allows(&self, query: &Query<'_>) -> bool {
        self.evaluate(query).is_allow()
    }

    fn governs_statements(&self, query: &Query<'_>) -> bool {
        if self.asks_what_is_said {
            return true;
        }
        let world = self.vocabulary.world(query, &self.actions);
        let request = self.vocabulary.request_of_any_statement(query);
        let (Ok(world), Ok(request)) = (world, request) else { return true };
        let policies = self.by_action.get(&query.action).unwrap_or(&self.compiled.policies);
        // A policy that reads what this request does not say fails, and is a rule that depends on it. One that does not
        // apply, whatever the statement is, does not come so far.
        let answer = self.authorizer.is_authorized(&request, policies, &world);
        answer.decision() == Verdict::Deny || answer.diagnostics().errors().next().is_some()
    }

    fn hash(&self) -> &str {
        &self.compiled.hash
    }
}

/// All policies but those whose scope names other actions only.
fn concerning(
    action: Action,
    vocabulary: &Vocabulary,
    compiled: &Compiled,
) -> Result<PolicySet, Box<PolicySetError>> {
    let action = vocabulary.action(action);
    // An action that is in a group is named by the group's name, too.
    let grouped = compiled.schema.action_groups().next().is_some();
    let concerns = |policy: &&cedar_policy::Policy| match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(actions) => grouped || actions.contains(&action),
        ActionConstraint::Eq(only) => grouped || only == action,
    };
    let mut policies = PolicySet::new();
    for policy in compiled.policies.policies().filter(concerns) {
        policies.add(policy.clone()).map_err(Box::new)?;
    }
    Ok(policies)
}

/// Whether `context has …` is anywhere in a policy's JSON form.
fn asks_whether_said(json: &serde_json::Value) -> bool {
    use serde_json::Value;
    match json {
        Value::Object(fields) => {
            let of_context = |has: &Value| has.pointer("/left/Var").is_some_and(|var| var == "context");
            fields.get("has").is_some_and(of_context) || fields.values().any(asks_whether_said)
        }
        Value::Array(values) => values.iter().any(asks_whether_said),
        _ => false,
    }
}

fn refuse(id: &str, needs: String) -> Decision {
    Decision::Refuse { rules: vec![Rule { id: id.to_owned(), needs }] }
}

fn is_unpermitted(decision: &Decision) -> bool {
    match decision {
        Decision::Allow { .. } => false,
        Decision::Refuse { rules } => rules.iter().any(|rule| rule.id == NO_PERMIT),
    }
}

/// Puts the query's names where [`PLACEHOLDERS`] stand.
fn fill(needs: &str, query: &Query<'_>) -> String {
    let mut text = needs
        .replace("{principal}", query.principal.name.as_str())
        .replace("{principal.domain}", query.principal.domain.as_str());
    if let Some(target) = query.target {
        text = text
            .replace("{target}", target.name.as_str())
            .replace("{target.domain}", target.domain.as_str())
            .replace("{target.environment}", target.environment.as_str());
    }
    text
}

fn question_text(query: &Query<'_>) -> String {
    let Principal { name, domain, groups, .. } = query.principal;
    let groups = groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
    let on = match query.target {
        Some(target) => format!("{} ({}, {})", target.name, target.environment, target.domain),
        None => "the bastion".to_owned(),
    };
    format!("{name} ({domain}; groups: {groups}) · {} · {on}", query.action)
}
