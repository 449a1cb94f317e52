//! Runs the tables of cases that stand beside the policies: `FR-283.cedar` has `FR-283.cases.toml`.
//!
//! A table names people and targets once and then lists cases. The run fails when a case is decided
//! otherwise than it says, when a file of policies has no table, and when a table does not show one
//! of its policies from both sides: a `forbid` that refuses and one that does not, a `permit` that
//! permits and a refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::cedar::{BUILTIN, CedarPolicy};
use super::load::PolicyErrors;
use super::{Action, Detail, Facts, Policy, Query, StatementFacts};
use crate::crypto;
use crate::domain::approval::Quorum;
use crate::domain::decision::{Decision, rules_text};
use crate::domain::id::PrincipalId;
use crate::domain::name::{AccessName, DomainName, GroupName, UserName};
use crate::domain::principal::Principal;
use crate::domain::request::DEFAULT_DURATION;
use crate::domain::target::{Environment, Target, TargetKind};
use crate::domain::time::parse_duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    people: BTreeMap<String, RawPerson>,
    #[serde(default)]
    targets: BTreeMap<String, RawTarget>,
    #[serde(rename = "case", default)]
    cases: Vec<RawCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerson {
    domain: DomainName,
    #[serde(default)]
    groups: BTreeSet<GroupName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    environment: Environment,
    domain: DomainName,
    requesters: Option<BTreeSet<GroupName>>,
    approvers: Option<BTreeSet<GroupName>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    principal: String,
    action: String,
    target: Option<String>,
    access: Option<AccessName>,
    #[serde(default)]
    facts: RawFacts,
    expect: Expect,
    /// What the refusal must say, rule by rule, in the order of ids.
    #[serde(default)]
    needs: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFacts {
    own: bool,
    break_glass: bool,
    duration: Option<String>,
    people: u32,
    from_target_domain: u32,
    command: Option<String>,
    subsystem: Option<String>,
    host: Option<String>,
    port: u32,
    statement: Option<RawStatement>,
    replication: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatement {
    #[serde(default = "known")]
    known: bool,
    kinds: BTreeSet<String>,
    #[serde(default)]
    tables: BTreeSet<String>,
    #[serde(default, rename = "where")]
    has_where: bool,
    #[serde(default)]
    in_transaction: bool,
}

const fn known() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    /// The ids of exactly the rules that refuse.
    Refuse(BTreeSet<String>),
}

/// What came out.
#[derive(Debug, Default)]
pub struct CasesReport {
    pub passed: usize,
    /// One line each, beginning with the file.
    pub failures: Vec<String>,
}

impl CasesReport {
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for CasesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        write!(f, "{} cases passed, {} failures", self.passed, self.failures.len())
    }
}

/// Loads the policies of `dir` and runs the tables beside them.
pub fn run(dir: &Path) -> Result<CasesReport, PolicyErrors> {
    let policy = CedarPolicy::load(dir)?;
    let mut report = CasesReport::default();
    for (file, ids) in ids_by_file(&policy) {
        let path = Path::new(&file).with_extension("cases.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => run_table(&policy, &path.display().to_string(), &text, &ids, &mut report),
            Err(error) => report.failures.push(format!(
                "{}: cannot be read: {error}: write the cases that show what {file} does",
                path.display()
            )),
        }
    }
    Ok(report)
}

/// Runs the tables of the policies that Sallyport comes with.
pub fn run_builtin() -> Result<CasesReport, PolicyErrors> {
    let policy = CedarPolicy::builtin()?;
    let ids = ids_by_file(&policy);
    let mut report = CasesReport::default();
    for builtin in BUILTIN {
        let file = format!("policies/{}", builtin.file);
        let ids = ids.get(&file).cloned().unwrap_or_default();
        let table = Path::new(&file).with_extension("cases.toml");
        run_table(&policy, &table.display().to_string(), builtin.cases, &ids, &mut report);
    }
    Ok(report)
}

fn ids_by_file(policy: &CedarPolicy) -> BTreeMap<String, BTreeSet<String>> {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for info in policy.policies() {
        files.entry(info.file.clone()).or_default().insert(info.id.clone());
    }
    files
}

fn run_table(policy: &CedarPolicy, file: &str, text: &str, ids: &BTreeSet<String>, report: &mut CasesReport) {
    let table: Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(error) => {
            report.failures.push(format!("{file}: {}", error.to_string().trim_end()));
            return;
        }
    };
    let mut seen = Seen::default();
    for case in &table.cases {
        match table.decide(policy, case) {
            Ok(decision) => {
                seen.note(&decision);
                match case.verdict(&decision) {
                    Ok(()) => report.passed += 1,
                    Err(why) => report.failures.push(format!("{file}: `{}`: {why}", case.name)),
                }
            }
            Err(why) => report.failures.push(format!("{file}: `{}`: {why}", case.name)),
        }
    }
    for info in ids.iter().filter_map(|id| policy.info(id)) {
        if let Some(lacks) = seen.lacks(&info.id, info.forbids) {
            report.failures.push(format!("{file}: no case {lacks}"));
        }
    }
}

impl Table {
    fn decide(&self, policy: &dyn Policy, case: &RawCase) -> Result<Decision, String> {
        let action: Action = case.action.parse().map_err(|error: super::UnknownAction| error.to_string())?;
        let person = self
            .people
            .get(&case.principal)
            .ok_or_else(|| format!("there is no `{}` among the people", case.principal))?;
        let principal = person.principal(&case.principal)?;
        let target = match &case.target {
            None => None,
            Some(name) => {
                let target = self.targets.get(name);
                let target = target.ok_or_else(|| format!("there is no `{name}` among the targets"))?;
                Some(target.target(name, case.access.as_ref())?)
            }
        };
        let duration = match &case.facts.duration {
            Some(text) => parse_duration(text).map_err(|error| error.to_string())?,
            None => DEFAULT_DURATION,
        };
        let statement = case.facts.statement();
        let query = Query {
            action,
            principal: &principal,
            target: target.as_ref(),
            access: case.access.as_ref(),
            facts: case.facts.facts(duration),
            detail: statement.as_ref().map_or_else(|| case.facts.detail(), Detail::Statement),
        };
        Ok(policy.decide(&query))
    }
}

impl RawFacts {
    fn facts(&self, duration: Duration) -> Facts {
        Facts {
            own: self.own,
            break_glass: self.break_glass,
            duration_seconds: duration.as_secs(),
            quorum: Quorum { people: self.people, from_target_domain: self.from_target_domain },
        }
    }

    fn statement(&self) -> Option<StatementFacts> {
        self.statement.as_ref().map(|raw| StatementFacts {
            known: raw.known,
            kinds: raw.kinds.clone(),
            tables: raw.tables.clone(),
            has_where: raw.has_where,
            in_transaction: raw.in_transaction,
        })
    }

    fn detail(&self) -> Detail<'_> {
        if let Some(says_so) = self.replication {
            return Detail::Replication(says_so);
        }
        match (&self.command, &self.subsystem, &self.host) {
            (Some(command), ..) => Detail::Command(command),
            (_, Some(name), _) => Detail::Subsystem(name),
            (.., Some(host)) => Detail::Destination { host, port: self.port },
            _ => Detail::None,
        }
    }
}

impl RawPerson {
    fn principal(&self, name: &str) -> Result<Principal, String> {
        let id = crypto::sha256(&[name.as_bytes()]).first_chunk().copied().unwrap_or_default();
        Ok(Principal {
            id: PrincipalId::from_random(id),
            name: name.parse::<UserName>().map_err(|error| error.to_string())?,
            domain: self.domain.clone(),
            groups: self.groups.clone(),
        })
    }
}

impl RawTarget {
    fn target(&self, name: &str, access: Option<&AccessName>) -> Result<Target, String> {
        let groups = |given: &Option<BTreeSet<GroupName>>, default: &str| match given {
            Some(groups) => Ok(groups.clone()),
            None => default.parse().map(|group| BTreeSet::from([group])).map_err(text),
        };
        Ok(Target {
            name: name.parse().map_err(text)?,
            kind: TargetKind::Postgres,
            environment: self.environment,
            domain: self.domain.clone(),
            labels: self.labels.clone(),
            accesses: access.into_iter().cloned().collect(),
            requesters: groups(&self.requesters, "requesters")?,
            approvers: groups(&self.approvers, "approvers")?,
        })
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

impl RawCase {
    fn verdict(&self, decision: &Decision) -> Result<(), String> {
        match (&self.expect, decision) {
            (Expect::Allow, Decision::Allow { .. }) => Ok(()),
            (Expect::Allow, Decision::Refuse { rules }) => {
                Err(format!("should be allowed, but is refused: {}", rules_text(rules)))
            }
            (Expect::Refuse(expected), Decision::Allow { policies }) => Err(format!(
                "should be refused by {}, but is allowed by {}",
                expected.iter().cloned().collect::<Vec<_>>().join(", "),
                policies.join(", ")
            )),
            (Expect::Refuse(expected), Decision::Refuse { rules }) => {
                let found: BTreeSet<_> = rules.iter().map(|rule| rule.id.clone()).collect();
                let needs: Vec<_> = rules.iter().map(|rule| rule.needs.clone()).collect();
                if found != *expected {
                    let expected = expected.iter().cloned().collect::<Vec<_>>().join(", ");
                    return Err(format!("should be refused by {expected}, but is by: {}", rules_text(rules)));
                }
                if !self.needs.is_empty() && needs != self.needs {
                    return Err(format!("should need {:?}, but needs {needs:?}", self.needs));
                }
                Ok(())
            }
        }
    }
}

/// From which sides the cases of a table showed each policy.
#[derive(Default)]
struct Seen {
    deciding: BTreeSet<String>,
    any_allowed: bool,
    any_refused: bool,
}

impl Seen {
    fn note(&mut self, decision: &Decision) {
        match decision {
            Decision::Allow { policies } => {
                self.any_allowed = true;
                self.deciding.extend(policies.iter().cloned());
            }
            Decision::Refuse { rules } => {
                self.any_refused = true;
                self.deciding.extend(rules.iter().map(|rule| rule.id.clone()));
            }
        }
    }

    fn lacks(&self, id: &str, forbids: bool) -> Option<String> {
        if !self.deciding.contains(id) {
            return Some(format!("is decided by {id}"));
        }
        match forbids {
            true if !self.any_allowed => Some(format!("is allowed, to show where {id} ends")),
            false if !self.any_refused => Some(format!("is refused, to show where {id} ends")),
            _ => None,
        }
    }
}
