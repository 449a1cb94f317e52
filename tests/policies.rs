//! The policies that Sallyport comes with, and what happens to policies that are wrong.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use sallyport::domain::approval::Quorum;
use sallyport::domain::decision::{Decision, Rule, rules_text};
use sallyport::domain::id::PrincipalId;
use sallyport::domain::principal::Principal;
use sallyport::domain::target::{Environment, Target, TargetKind};
use sallyport::policy::{Action, CedarPolicy, Detail, Facts, Policy, Query, cases, feasible, missing};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn principal(name: &str, domain: &str, groups: &[&str]) -> Principal {
    let mut id = [0; 10];
    for (slot, byte) in id.iter_mut().zip(name.bytes()) {
        *slot = byte;
    }
    Principal {
        id: PrincipalId::from_random(id),
        name: name.parse().unwrap(),
        domain: domain.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
    }
}

fn target(name: &str, environment: Environment, domain: &str) -> Target {
    Target {
        name: name.parse().unwrap(),
        kind: TargetKind::Postgres,
        environment,
        domain: domain.parse().unwrap(),
        labels: [("tier".to_owned(), "1".to_owned())].into(),
        accesses: ["readonly".parse().unwrap()].into(),
        requesters: ["requesters".parse().unwrap()].into(),
        approvers: ["approvers".parse().unwrap()].into(),
    }
}

fn rules(decision: Decision) -> Vec<Rule> {
    match decision {
        Decision::Allow { policies } => panic!("allowed by {policies:?}"),
        Decision::Refuse { rules } => rules,
    }
}

/// A directory with the shipped schema and the given policies.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(shipped().join("schema.cedarschema"), dir.path().join("schema.cedarschema")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const PERMIT_ALL: &str = "@id(\"ALL\")\npermit (principal, action, resource);\n";

fn mistakes(files: &[(&str, &str)]) -> String {
    let dir = directory(files);
    let errors = CedarPolicy::load(dir.path()).unwrap_err();
    errors.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn every_shipped_case_is_decided_as_its_table_says() {
    let report = cases::run(&shipped()).unwrap();
    assert!(report.is_ok(), "{report}");
    assert!(report.passed > 100, "{report}");
    let builtin = cases::run_builtin().unwrap();
    assert!(builtin.is_ok(), "{builtin}");
    assert_eq!(builtin.passed, report.passed);
}

#[test]
fn the_built_in_policies_are_those_of_the_directory() {
    let (builtin, loaded) = (CedarPolicy::builtin().unwrap(), CedarPolicy::load(&shipped()).unwrap());
    let ids = |policy: &CedarPolicy| policy.policies().map(|info| info.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(builtin.hash(), loaded.hash());
    assert_eq!(ids(&builtin), ids(&loaded));
    assert_eq!(builtin.hash().len(), 64);
}

#[test]
fn any_change_of_a_policy_or_the_schema_changes_the_hash() {
    let hash = |dir: &tempfile::TempDir| CedarPolicy::load(dir.path()).unwrap().hash().to_owned();
    let dir = directory(&[("a.cedar", PERMIT_ALL)]);
    let before = hash(&dir);
    fs::write(dir.path().join("a.cedar"), format!("{PERMIT_ALL}\n")).unwrap();
    let after = hash(&dir);
    assert_ne!(before, after);
    fs::rename(dir.path().join("a.cedar"), dir.path().join("b.cedar")).unwrap();
    assert_ne!(after, hash(&dir));
}

#[test]
fn a_policy_that_cannot_be_evaluated_refuses_and_is_named() {
    // The sum overflows: Cedar alone would skip this `forbid` and allow.
    let broken = "@id(\"BROKEN\") @needs(\"nothing\")\n\
                  forbid (principal, action == Action::\"request\", resource)\n\
                  when { context.duration + 9223372036854775807 < 0 };\n";
    let dir = directory(&[("all.cedar", PERMIT_ALL), ("broken.cedar", broken)]);
    let policy = CedarPolicy::load(dir.path()).unwrap();
    let (alice, ledger) =
        (principal("alice", "bank-core", &[]), target("ledger-prod", Environment::Prod, "bank-core"));
    let query = |duration_seconds| {
        Query::new(Action::Request, &alice).on(&ledger).facts(Facts { duration_seconds, ..Facts::default() })
    };
    let refused = rules(policy.decide(&query(60)));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].id, "BROKEN");
    assert!(refused[0].needs.contains("cannot be evaluated"), "{}", refused[0].needs);
    assert!(policy.decide(&query(0)).is_allow());
}

#[test]
fn a_permit_that_cannot_be_evaluated_refuses_though_another_permits() {
    let broken = "@id(\"BROKEN\")\npermit (principal, action == Action::\"request\", resource)\n\
                  when { context.duration + 9223372036854775807 > 0 };\n";
    let dir = directory(&[("all.cedar", PERMIT_ALL), ("broken.cedar", broken)]);
    let policy = CedarPolicy::load(dir.path()).unwrap();
    let (alice, ledger) =
        (principal("alice", "bank-core", &[]), target("ledger-prod", Environment::Prod, "bank-core"));
    let facts = Facts { duration_seconds: 60, ..Facts::default() };
    let refused = rules(policy.decide(&Query::new(Action::Request, &alice).on(&ledger).facts(facts)));
    assert_eq!(refused.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["BROKEN"]);
}

#[test]
fn a_question_without_its_target_is_refused() {
    let policy = CedarPolicy::builtin().unwrap();
    let alice = principal("alice", "bank-core", &["requesters", "approvers"]);
    for action in [
        Action::Request,
        Action::Activate,
        Action::Connect,
        Action::Approve,
        Action::Deny,
        Action::Shell,
        Action::Exec,
        Action::Sftp,
        Action::Subsystem,
        Action::Forward,
        Action::Listen,
        Action::Agent,
    ] {
        let refused = rules(policy.decide(&Query::new(action, &alice)));
        assert_eq!(refused[0].id, "POLICY-ERROR", "{action}");
    }
    let ledger = target("ledger-prod", Environment::Prod, "bank-core");
    let admin = principal("ada", "bank-core", &["admins"]);
    let refused = rules(policy.decide(&Query::new(Action::Administer, &admin).on(&ledger)));
    assert_eq!(refused[0].id, "POLICY-ERROR");
}

#[test]
fn a_rule_may_look_at_the_command_and_the_destination() {
    let text = "@id(\"HALT\") @needs(\"another command\")\n\
                forbid (principal, action == Action::\"exec\", resource) when { context.command like \"*shutdown*\" };\n\
                @id(\"WELL-KNOWN\") @needs(\"a port from 1024\")\n\
                forbid (principal, action in [Action::\"forward\", Action::\"listen\"], resource)\n\
                when { context.port < 1024 };\n";
    let dir = directory(&[("all.cedar", PERMIT_ALL), ("own.cedar", text)]);
    let policy = CedarPolicy::load(dir.path()).unwrap();
    let alice = principal("alice", "bank-core", &[]);
    let web = target("web-1", Environment::Prod, "bank-core");
    let allows = |action, detail| policy.allows(&Query::new(action, &alice).on(&web).detail(detail));
    assert!(allows(Action::Exec, Detail::Command("uptime")));
    assert!(!allows(Action::Exec, Detail::Command("sudo shutdown -h now")));
    for action in [Action::Forward, Action::Listen] {
        assert!(allows(action, Detail::Destination { host: "::1", port: 5432 }));
        assert!(!allows(action, Detail::Destination { host: "::1", port: 22 }));
    }
}

#[test]
fn mistakes_in_policies_are_told_with_file_and_position() {
    for (text, expected) in [
        ("permit (principal, action, resource)", "a.cedar:1:37: unexpected end of input"),
        ("// x\npermit (principal, action, resource);", "a.cedar: `policy0` (counted from 0) needs an @id"),
        ("@id(\"a b\")\npermit (principal, action, resource);", "a.cedar:1:1: `policy0`"),
        ("@id(\"NO-PERMIT\")\npermit (principal, action, resource);", "the id `NO-PERMIT` is reserved"),
        ("\n@id(\"X\")\nforbid (principal, action, resource);", "a.cedar:2:1: `X` forbids: add @needs"),
        (
            "@id(\"X\") @needs(\"{targett}\")\nforbid (principal, action, resource);",
            "a.cedar:1:1: @needs of `X` has an unknown `{targett}`",
        ),
        (
            "@id(\"X\")\npermit (principal == ?principal, action, resource);",
            "a.cedar: templates (`?principal`, `?resource`) are not supported",
        ),
        (
            "@id(\"X\")\npermit (principal, action == Action::\"aprove\", resource);",
            "a.cedar:2:30: for policy `X`, unrecognized action `Action::\"aprove\"`",
        ),
        (
            "@id(\"X\")\npermit (principal, action == Action::\"watch\", resource)\nwhen { principal.dept == \"x\" };",
            "a.cedar:3:8: for policy `X`, attribute `dept`",
        ),
        (
            "@id(\"X\")\npermit (principal, action == Action::\"request\", resource)\n\
             when { resource.environment == Environment::\"production\" };",
            "a.cedar:3:32: for policy `X`",
        ),
        (
            "@id(\"X\")\npermit (principal, action == Action::\"request\", resource)\nwhen { 1 == 2 };",
            "for policy `X`, policy is impossible",
        ),
    ] {
        let told = mistakes(&[("a.cedar", text)]);
        assert!(told.contains(expected), "{text}\n{told}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let told = mistakes(&[
        ("a.cedar", "@id(\"X\")\nforbid (principal, action, resource);"),
        ("b.cedar", "permit (principal action resource);"),
        ("c.cedar", "@id(\"X\")\npermit (principal, action == Action::\"aprove\", resource);"),
        ("d.cedar", "@id(\"Y\")\npermit (principal, action == Action::\"aprove\", resource);"),
    ]);
    for expected in
        ["a.cedar:1:1", "b.cedar:1:19", "c.cedar:1:1: the id `X` is already used in", "d.cedar:2:30"]
    {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
}

#[test]
fn a_directory_without_policies_or_schema_is_refused() {
    let told = mistakes(&[]);
    assert!(told.contains("there is no *.cedar file"), "{told}");
    let dir = directory(&[("a.cedar", PERMIT_ALL)]);
    fs::remove_file(dir.path().join("schema.cedarschema")).unwrap();
    let told = CedarPolicy::load(dir.path()).unwrap_err().to_string();
    assert!(told.contains("schema.cedarschema: cannot be read"), "{told}");
    let gone = CedarPolicy::load(&dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(gone.contains("nowhere: cannot be read"), "{gone}");
}

#[test]
fn a_schema_that_does_not_fit_what_is_supplied_is_refused() {
    let shipped = fs::read_to_string(shipped().join("schema.cedarschema")).unwrap();
    for (from, to, expected) in [
        ("    domain: String,\n};", "    domain: String,\n    grade: Long,\n};", "grade"),
        ("break_glass: Bool }", "break_glass: Bool, moon: Bool }", "action `request`"),
        ("action \"watch\"", "action \"observe\"", "action `watch`"),
    ] {
        let changed = shipped.replacen(from, to, 1);
        assert_ne!(changed, shipped, "{from}");
        let told = mistakes(&[("a.cedar", PERMIT_ALL), ("schema.cedarschema", &changed)]);
        assert!(told.contains("schema.cedarschema") && told.contains(expected), "{told}");
    }
    let told = mistakes(&[("a.cedar", PERMIT_ALL), ("schema.cedarschema", "entity Principal\nentity")]);
    assert!(told.contains("schema.cedarschema:2:"), "{told}");
}

#[test]
fn a_policy_that_names_a_group_of_actions_concerns_those_in_it() {
    let shipped = fs::read_to_string(shipped().join("schema.cedarschema")).unwrap();
    let grouped = shipped
        .replace("action \"watch\" appliesTo", "action \"see\";\naction \"watch\" in [\"see\"] appliesTo");
    let forbid =
        "@id(\"BLIND\") @needs(\"eyes\")\nforbid (principal, action in Action::\"see\", resource);\n";
    let dir = directory(&[("a.cedar", PERMIT_ALL), ("b.cedar", forbid), ("schema.cedarschema", &grouped)]);
    let policy = CedarPolicy::load(dir.path()).unwrap();
    let alice = principal("alice", "bank-core", &[]);
    assert_eq!(rules_text(&rules(policy.decide(&Query::new(Action::Watch, &alice)))), "BLIND: eyes");
    assert!(policy.decide(&Query::new(Action::Block, &alice)).is_allow());
}

#[test]
fn a_file_of_policies_without_a_table_of_cases_fails_the_run() {
    let dir = directory(&[("a.cedar", PERMIT_ALL)]);
    let report = cases::run(dir.path()).unwrap();
    assert!(report.to_string().contains("a.cases.toml: cannot be read"), "{report}");
}

#[test]
fn a_table_must_show_each_policy_from_both_sides() {
    let table = "[people]\nalice = { domain = \"bank-core\" }\n\
                 [[case]]\nname = \"x\"\nprincipal = \"alice\"\naction = \"watch\"\nexpect = \"allow\"\n";
    let text = "@id(\"ALL\")\npermit (principal, action == Action::\"watch\", resource);\n\
                @id(\"ADMIN\")\npermit (principal, action == Action::\"administer\", resource);\n";
    let dir = directory(&[("a.cedar", text), ("a.cases.toml", table)]);
    let report = cases::run(dir.path()).unwrap().to_string();
    assert!(report.contains("no case is refused, to show where ALL ends"), "{report}");
    assert!(report.contains("no case is decided by ADMIN"), "{report}");
}

#[test]
fn a_case_that_is_decided_otherwise_fails_the_run() {
    let table = "[people]\nalice = { domain = \"bank-core\" }\n\
                 [[case]]\nname = \"one\"\nprincipal = \"alice\"\naction = \"watch\"\nexpect = { refuse = [\"X\"] }\n\
                 [[case]]\nname = \"two\"\nprincipal = \"alice\"\naction = \"wach\"\nexpect = \"allow\"\n\
                 [[case]]\nname = \"three\"\nprincipal = \"bob\"\naction = \"watch\"\nexpect = \"allow\"\n\
                 [[case]]\nname = \"four\"\nprincipal = \"alice\"\naction = \"request\"\nexpect = \"allow\"\n";
    let dir = directory(&[("a.cedar", PERMIT_ALL), ("a.cases.toml", table)]);
    let report = cases::run(dir.path()).unwrap();
    assert_eq!(report.passed, 0);
    for expected in [
        "`one`: should be refused by X, but is allowed by ALL",
        "`two`: `wach` is not an action",
        "`three`: there is no `bob` among the people",
        "`four`: should be allowed, but is refused: POLICY-ERROR",
    ] {
        assert!(report.to_string().contains(expected), "{report}");
    }
}

#[test]
fn what_is_missing_is_told_from_the_rules_in_force() {
    let policy = CedarPolicy::builtin().unwrap();
    let alice = principal("alice", "bank-core", &["requesters"]);
    let kyc = target("kyc-prod", Environment::Prod, "bank-kyc");
    let access = "readonly".parse().unwrap();
    let query = |people, from_target_domain| {
        Query::new(Action::Activate, &alice).on(&kyc).access(&access).facts(Facts {
            duration_seconds: 3600,
            quorum: Quorum { people, from_target_domain },
            ..Facts::default()
        })
    };
    for (people, of_domain, expected) in [
        (0, 0, "3 more approvers, one of them from bank-kyc"),
        (1, 0, "2 more approvers, one of them from bank-kyc"),
        (1, 1, "2 more approvers"),
        (2, 0, "an approver from bank-kyc"),
        (2, 1, "one more approver"),
        (7, 0, "an approver from bank-kyc"),
    ] {
        let missing = missing(&policy, &query(people, of_domain)).unwrap();
        assert_eq!(missing.to_string(), expected, "{people} {of_domain}");
    }
    assert_eq!(missing(&policy, &query(3, 1)), None);
    let long = query(0, 0).facts(Facts { duration_seconds: 20_000, ..Facts::default() });
    let missing = missing(&policy, &long).unwrap();
    assert!(!missing.by_approvals);
    assert!(missing.to_string().contains("FR-281: a duration of at most 4h"), "{missing}");
}

#[test]
fn a_stricter_rule_of_an_operator_is_counted_without_a_change_of_code() {
    let text = "@id(\"FIVE\") @needs(\"approvals\")\nforbid (principal, action == Action::\"activate\", resource)\n\
                unless { context.people >= 5 && context.from_target_domain >= 2 };\n";
    let dir = directory(&[("all.cedar", PERMIT_ALL), ("five.cedar", text)]);
    let policy = CedarPolicy::load(dir.path()).unwrap();
    let alice = principal("alice", "bank-core", &[]);
    let dev = target("ledger-dev", Environment::Dev, "bank-core");
    let query = Query::new(Action::Activate, &alice)
        .on(&dev)
        .facts(Facts { quorum: Quorum { people: 1, from_target_domain: 0 }, ..Facts::default() });
    assert_eq!(rules_text(&rules(policy.decide(&query))), "FIVE: 4 more approvers, 2 of them from bank-core");
}

fn approvers(of: &[(&str, &str)]) -> Vec<Principal> {
    of.iter().map(|(name, domain)| principal(name, domain, &["approvers"])).collect()
}

#[test]
fn a_request_that_nobody_could_approve_is_told_so() {
    let policy = CedarPolicy::builtin().unwrap();
    let alice = principal("alice", "bank-core", &["requesters", "approvers"]);
    let (ledger, kyc) = (
        target("ledger-prod", Environment::Prod, "bank-core"),
        target("kyc-prod", Environment::Prod, "bank-kyc"),
    );
    let access = "readonly".parse().unwrap();
    let facts = Facts { duration_seconds: 3600, ..Facts::default() };
    let told = |target: &Target, candidates: &[Principal]| {
        feasible(&policy, &alice, target, &access, facts, candidates).map_err(|rules| rules_text(&rules))
    };
    // The requester is an approver, and one of the two others is not.
    let mut two = approvers(&[("bob", "bank-core"), ("alice", "bank-core"), ("bob", "bank-core")]);
    two.push(principal("carl", "bank-core", &["requesters"]));
    assert_eq!(
        told(&ledger, &two).unwrap_err(),
        "FR-283: needs 2 approvers, but only 1 person other than you may approve for ledger-prod"
    );
    assert_eq!(
        told(&ledger, &[]).unwrap_err(),
        "FR-283: needs 2 approvers, but nobody other than you may approve for ledger-prod"
    );
    let core = approvers(&[("bob", "bank-core"), ("carl", "bank-core"), ("dora", "bank-core")]);
    assert_eq!(told(&ledger, &core), Ok(()));
    assert_eq!(
        told(&kyc, &core).unwrap_err(),
        "DT-001: needs 3 approvers, one of them from bank-kyc, but of the 3 people other than you who may \
         approve for kyc-prod none is from bank-kyc"
    );
    assert_eq!(
        told(&kyc, &core[..2]).unwrap_err(),
        "DT-001: needs 3 approvers, one of them from bank-kyc, but only 2 people other than you may \
         approve for kyc-prod, none of them from bank-kyc"
    );
    let mixed = approvers(&[("bob", "bank-core"), ("carl", "bank-core"), ("kim", "bank-kyc")]);
    assert_eq!(told(&kyc, &mixed), Ok(()));
    let nemo = principal("nemo", "bank-core", &[]);
    let refused = feasible(&policy, &nemo, &ledger, &access, facts, &core).unwrap_err();
    assert_eq!(rules_text(&refused), "NO-PERMIT: membership of `requesters`");
}

#[test]
fn an_explanation_names_policies_files_and_needs() {
    let policy = CedarPolicy::builtin().unwrap();
    let alice = principal("alice", "bank-core", &["requesters"]);
    let ledger = target("ledger-prod", Environment::Prod, "bank-core");
    let refused = policy.explain(&Query::new(Action::Activate, &alice).on(&ledger));
    assert!(refused.contains("FR-283  (policies/FR-283.cedar)\n    needs: 2 more approvers"), "{refused}");
    let allowed = policy.explain(&Query::new(Action::Request, &alice).on(&ledger));
    assert!(
        allowed.contains("allowed by\n  REQUESTERS  (policies/who.cedar)  a target's requesters"),
        "{allowed}"
    );
}

const GROUPS: [&str; 6] = ["requesters", "approvers", "oncall", "admins", "security", "compliance"];

fn any_principal() -> impl Strategy<Value = Principal> {
    (any::<bool>(), proptest::sample::subsequence(GROUPS.to_vec(), 0..=GROUPS.len()))
        .prop_map(|(core, groups)| principal("alice", if core { "bank-core" } else { "bank-kyc" }, &groups))
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![Just(Environment::Prod), Just(Environment::Uat), Just(Environment::Dev)]
        .prop_map(|environment| target("ledger", environment, "bank-core"))
}

fn any_facts() -> impl Strategy<Value = Facts> {
    (any::<bool>(), 0_u64..20_000, 0_u32..5, 0_u32..5).prop_map(
        |(break_glass, duration_seconds, people, of)| {
            let quorum = Quorum { people, from_target_domain: of.min(people) };
            Facts { own: false, break_glass, duration_seconds, quorum }
        },
    )
}

static BUILTIN: LazyLock<CedarPolicy> = LazyLock::new(|| CedarPolicy::builtin().unwrap());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn more_approvals_never_turn_a_yes_into_a_no(
        who in any_principal(), on in any_target(), facts in any_facts(), more in 0_u32..4, of_domain in 0_u32..4,
    ) {
        let policy = &*BUILTIN;
        let decide = |facts| policy.decide(&Query::new(Action::Activate, &who).on(&on).facts(facts));
        let quorum = Quorum {
            people: facts.quorum.people + more,
            from_target_domain: facts.quorum.from_target_domain + of_domain.min(more),
        };
        if decide(facts).is_allow() {
            let then = decide(Facts { quorum, ..facts });
            prop_assert!(then.is_allow());
        }
    }

    #[test]
    fn only_requesters_get_in_break_glass_or_not(
        who in any_principal(), on in any_target(), facts in any_facts(),
    ) {
        let policy = &*BUILTIN;
        let requester = who.groups.iter().any(|group| group.as_str() == "requesters");
        let on_call = who.groups.iter().any(|group| group.as_str() == "oncall");
        for action in [Action::Request, Action::Activate, Action::Connect] {
            let decision = policy.decide(&Query::new(action, &who).on(&on).facts(facts));
            let may = requester && (!facts.break_glass || on_call);
            prop_assert!(may || !decision.is_allow(), "{action} {decision:?}");
            if action == Action::Connect {
                prop_assert_eq!(may, decision.is_allow());
            }
        }
    }

    #[test]
    fn activation_agrees_with_the_written_rules(
        who in any_principal(), on in any_target(), facts in any_facts(),
    ) {
        let policy = &*BUILTIN;
        let member = |name: &str| who.groups.iter().any(|group| group.as_str() == name);
        let standard = match on.environment { Environment::Prod => 2, Environment::Uat => 1, Environment::Dev => 0 };
        let cross = who.domain != on.domain;
        let counted = facts.quorum.people >= standard + u32::from(cross)
            && (!cross || facts.quorum.from_target_domain >= 1);
        let expected = member("requesters")
            && facts.duration_seconds <= 14_400
            && if facts.break_glass { member("oncall") } else { counted };
        let decision = policy.decide(&Query::new(Action::Activate, &who).on(&on).facts(facts));
        prop_assert_eq!(decision.is_allow(), expected);
        prop_assert_eq!(policy.allows(&Query::new(Action::Activate, &who).on(&on).facts(facts)), expected);
    }

    #[test]
    fn what_is_missing_suffices_and_less_does_not(
        who in any_principal(), on in any_target(), facts in any_facts(),
    ) {
        let policy = &*BUILTIN;
        let query = Query::new(Action::Activate, &who).on(&on).facts(facts);
        if let Some(more) = missing(policy, &query).filter(|missing| missing.by_approvals) {
            let with = |people, of| {
                let quorum = Quorum {
                    people: facts.quorum.people + people,
                    from_target_domain: facts.quorum.from_target_domain + of,
                };
                policy.decide(&query.clone().facts(Facts { quorum, ..facts })).is_allow()
            };
            prop_assert!(with(more.people, more.from_target_domain));
            prop_assert!(!with(more.people - 1, more.people - 1));
            prop_assert!(more.from_target_domain == 0 || !with(more.people, more.from_target_domain - 1));
        }
    }
}

#[test]
fn whether_there_is_a_rule_for_statements_is_told_before_any_is_looked_at() {
    let alice = principal("alice", "bank-core", &["requesters"]);
    let mut ledger = target("ledger", Environment::Prod, "bank-core");
    let governed = |policy: &CedarPolicy, target: &Target| {
        policy.governs_statements(&Query::new(Action::Statement, &alice).on(target))
    };
    let builtin = CedarPolicy::builtin().unwrap();
    assert!(!governed(&builtin, &ledger), "no label, no rule");
    ledger.labels.insert("statements".to_owned(), "guarded".to_owned());
    assert!(governed(&builtin, &ledger));

    // Of somebody's own: what depends on the statement is a rule, what is of another place is none.
    let permit = "@id(\"P\") permit (principal, action == Action::\"statement\", resource);";
    let forbid = |when: &str| {
        let rule = "@id(\"F\") @needs(\"x\") forbid (principal, action == Action::\"statement\", resource)";
        let dir = directory(&[("own.cedar", &format!("{permit}\n{rule} when {{ {when} }};"))]);
        CedarPolicy::load(dir.path()).unwrap()
    };
    for (when, expected) in [
        ("context.tables.contains(\"payroll\")", true),
        ("resource.environment == Environment::\"prod\" && context.kinds.contains(\"drop\")", true),
        ("resource.environment == Environment::\"dev\" && context.kinds.contains(\"drop\")", false),
        ("context.kinds.contains(\"drop\") && resource.environment == Environment::\"dev\"", true),
        ("context.break_glass && !context.has_where", false),
        ("principal in Group::\"oncall\" && !context.known", false),
        ("principal in Group::\"requesters\" && context.in_transaction", true),
        ("resource.environment == Environment::\"prod\"", true),
        ("context has kinds && context.kinds.contains(\"drop\")", true),
    ] {
        assert_eq!(governed(&forbid(when), &ledger), expected, "{when}");
    }
}
