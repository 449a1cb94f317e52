//! DT-001: a requester of another domain than the target's needs one approver of the target's domain
//! in addition to the standard count: three distinct people for prod, two for uat, one for dev.

mod support;

use serde_json::{Value, json};
use support::calls::text;
use support::{Bastion, Postgres};

fn missing(request: &Value) -> Vec<String> {
    let rules = request["missing"].as_array().unwrap();
    rules.iter().map(|rule| format!("{}: {}", text(&rule["id"]), text(&rule["needs"]))).collect()
}

fn asked_by(bastion: &Bastion, who: &str, target: &str) -> (String, Vec<String>) {
    let request = bastion.ask(who, target, "readonly", 3600);
    let missing = missing(&bastion.request(who, &request));
    (request, missing)
}

/// Approves; gives what is missing then, or nothing once there is a session.
#[track_caller]
fn approve(bastion: &Bastion, who: &str, request: &str) -> Vec<String> {
    let body = bastion.approved(who, request);
    assert_eq!(body["session"].is_object(), missing(&body["request"]).is_empty(), "{body}");
    missing(&body["request"])
}

/// More people of the requester's domain who may approve.
fn approvers_from_kyc(bastion: &Bastion, names: &[&str]) {
    for name in names {
        bastion.add_user(name, "bank-kyc", &["approvers"]);
        bastion.log_in(name).success();
    }
}

#[test]
fn cross_domain_prod_takes_three_people_one_of_them_of_the_targets_domain() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let (request, wants) = asked_by(&bastion, "kim", "ledger-prod");
    assert_eq!(wants, ["DT-001: an approver from bank-core", "FR-283: 2 more approvers"]);
    bastion.run_as("kim", &["requests"]).success().says("DT-001: an approver from bank-core");
    assert_eq!(
        approve(&bastion, "dave", &request),
        ["DT-001: an approver from bank-core", "FR-283: one more approver"]
    );
    assert_eq!(approve(&bastion, "bob", &request), ["DT-001: one more approver"]);
    bastion.psql("kim", "ledger-prod", "SELECT 1").failure().says("sallyport request ledger-prod");
    assert!(approve(&bastion, "carol", &request).is_empty());
    bastion.psql("kim", "ledger-prod", "SELECT 1").success();
    let activated = bastion.events("session_activated");
    assert_eq!(activated.len(), 1);
    assert_eq!(activated[0]["detail"]["approved_by"], json!(["dave", "bob", "carol"]));
    assert_eq!(
        (&activated[0]["domain"], &activated[0]["environment"]),
        (&json!("bank-core"), &json!("prod"))
    );
    let domains: Vec<Value> = bastion
        .events("request_approved")
        .iter()
        .map(|event| event["detail"]["approver_domain"].clone())
        .collect();
    assert_eq!(domains, ["bank-kyc", "bank-core", "bank-core"]);
}

#[test]
fn approvers_of_the_requesters_domain_alone_do_not_suffice() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    approvers_from_kyc(&bastion, &["dora", "drew", "dion"]);
    let (request, _) = asked_by(&bastion, "kim", "ledger-prod");
    for who in ["dave", "dora", "drew", "dion"] {
        assert_ne!(approve(&bastion, who, &request), Vec::<String>::new());
    }
    assert_eq!(missing(&bastion.request("kim", &request)), ["DT-001: an approver from bank-core"]);
    assert_eq!(bastion.events("session_activated").len(), 0);
    bastion.psql("kim", "ledger-prod", "SELECT 1").failure();
    assert!(approve(&bastion, "bob", &request).is_empty(), "any order does");
    bastion.psql("kim", "ledger-prod", "SELECT 1").success();

    let (request, _) = asked_by(&bastion, "kim", "ledger-uat");
    for who in ["dave", "dora"] {
        assert_eq!(approve(&bastion, who, &request), ["DT-001: an approver from bank-core"]);
    }
    assert!(approve(&bastion, "carol", &request).is_empty());
}

#[test]
fn approvers_of_the_targets_domain_suffice_in_number() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.add_user("gina", "bank-core", &["approvers"]);
    bastion.log_in("gina").success();
    let (request, _) = asked_by(&bastion, "kim", "ledger-prod");
    assert_eq!(
        approve(&bastion, "bob", &request),
        ["DT-001: one more approver", "FR-283: one more approver"]
    );
    assert_eq!(
        approve(&bastion, "bob", &request),
        ["DT-001: one more approver", "FR-283: one more approver"]
    );
    assert_eq!(approve(&bastion, "carol", &request), ["DT-001: one more approver"]);
    assert!(approve(&bastion, "gina", &request).is_empty());
}

#[test]
fn cross_domain_uat_takes_two_and_dev_one_of_the_targets_domain() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let (request, wants) = asked_by(&bastion, "kim", "ledger-uat");
    assert_eq!(wants, ["DT-001: an approver from bank-core", "FR-283: one more approver"]);
    assert_eq!(approve(&bastion, "bob", &request), ["DT-001: one more approver"]);
    assert!(approve(&bastion, "dave", &request).is_empty());
    bastion.psql("kim", "ledger-uat", "SELECT 1").success();

    let (request, wants) = asked_by(&bastion, "kim", "ledger-dev");
    assert_eq!(wants, ["DT-001: an approver from bank-core"], "dev is not granted at once across domains");
    assert_eq!(approve(&bastion, "dave", &request), ["DT-001: an approver from bank-core"]);
    assert!(approve(&bastion, "carol", &request).is_empty());
    bastion.psql("kim", "ledger-dev", "SELECT 1").success();
}

#[test]
fn it_is_the_domains_that_count_not_who_asks_or_where() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    // From bank-core to bank-kyc: dave is the only one of the target's domain.
    let (request, wants) = asked_by(&bastion, "alice", "kyc-prod");
    assert_eq!(wants, ["DT-001: an approver from bank-kyc", "FR-283: 2 more approvers"]);
    approve(&bastion, "bob", &request);
    assert_eq!(approve(&bastion, "carol", &request), ["DT-001: an approver from bank-kyc"]);
    assert!(approve(&bastion, "dave", &request).is_empty());
    // Within bank-kyc the standard count holds, whoever's approvers they are.
    let (request, wants) = asked_by(&bastion, "kim", "kyc-prod");
    assert_eq!(wants, ["FR-283: 2 more approvers"]);
    approve(&bastion, "bob", &request);
    assert!(approve(&bastion, "carol", &request).is_empty());
}

#[test]
fn where_nobody_of_the_targets_domain_may_approve_the_ask_is_refused_at_once() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let config = bastion.config_file();
    bastion.operator(&["user", "disable", "dave", "--config", config.to_str().unwrap()]).success();
    let (status, body) = bastion.try_ask("alice", "kyc-prod", None);
    assert_eq!((status, &body["code"]), (422, &json!("nobody_can_approve")), "{body}");
    let rules = body["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["id"] == "DT-001").unwrap_or_else(|| panic!("{body}"));
    assert!(text(&rule["needs"]).contains("one of them from bank-kyc"), "{body}");
    let (status, body) = bastion.try_ask("alice", "ledger-prod", None);
    assert_eq!(status, 201, "within the domain two are left: {body}");
}
