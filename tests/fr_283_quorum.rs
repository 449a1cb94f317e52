//! FR-283: two distinct people approve for prod, one for uat, none for dev; never the requester, and
//! a refusal names the rule and what is missing. Break-glass skips the count and is marked.

mod support;

use serde_json::{Value, json};
use support::calls::{text, with_target_approved_by};
use support::{Bastion, Postgres};

/// What a pending request still wants, as a person reads it.
fn missing(request: &Value) -> Vec<String> {
    let rules = request["missing"].as_array().unwrap();
    rules.iter().map(|rule| format!("{}: {}", text(&rule["id"]), text(&rule["needs"]))).collect()
}

#[test]
fn prod_takes_two_people_uat_one_and_dev_nobody() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let arguments = ["request", "ledger-prod", "readonly", "--reason", "a test"];
    bastion.run_as("alice", &arguments).success().says("FR-283: 2 more approvers");
    let request = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    assert_eq!(missing(&bastion.request("alice", &request)), ["FR-283: 2 more approvers"]);
    bastion.run_as("bob", &["approve", &request]).success().says("FR-283: one more approver");
    let standing = bastion.request("alice", &request);
    assert_eq!(
        (&standing["state"], missing(&standing)),
        (&json!("pending"), vec!["FR-283: one more approver".into()])
    );
    bastion.psql("alice", "ledger-prod", "SELECT 1").failure().says("sallyport request ledger-prod");
    let body = bastion.approved("carol", &request);
    assert_eq!(
        (&body["request"]["state"], &body["session"]["status"]),
        (&json!("approved"), &json!("active"))
    );
    assert_eq!(missing(&body["request"]), Vec::<String>::new());
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();

    let request = bastion.ask("alice", "ledger-uat", "readonly", 3600);
    assert_eq!(missing(&bastion.request("alice", &request)), ["FR-283: one more approver"]);
    bastion.psql("alice", "ledger-uat", "SELECT 1").failure();
    assert_eq!(bastion.approved("bob", &request)["session"]["status"], "active");
    bastion.psql("alice", "ledger-uat", "SELECT 1").success();

    let (status, body) = bastion.try_ask("alice", "ledger-dev", None);
    assert_eq!((status, &body["session"]["status"]), (201, &json!("active")), "{body}");
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    let dev = bastion.events("request_created").into_iter().find(|event| event["target"] == "ledger-dev");
    assert!(dev.is_some(), "granted at once, recorded all the same");
    let activated = bastion.events("session_activated");
    let approvers: Vec<&Value> = activated.iter().map(|event| &event["detail"]["approved_by"]).collect();
    assert_eq!(approvers, [&json!(["bob", "carol"]), &json!(["bob"]), &json!([])]);
}

#[test]
fn one_person_counts_once_however_often_they_approve() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let request = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    for _ in 0..3 {
        let body = bastion.approved("bob", &request);
        assert_eq!(body["session"], Value::Null);
        assert_eq!(missing(&body["request"]), ["FR-283: one more approver"]);
    }
    // A second token is not a second person.
    bastion.log_in("bob").success();
    assert_eq!(bastion.approved("bob", &request)["session"], Value::Null);
    let standing = bastion.request("alice", &request);
    assert_eq!(standing["approvals"].as_array().unwrap().len(), 1, "{standing}");
    assert_eq!(bastion.events("request_approved").len(), 1);
}

#[test]
fn nobody_approves_their_own_request_whatever_their_role() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.add_user("root", "bank-core", &["requesters", "approvers", "admins", "security"]);
    bastion.log_in("root").success();
    let request = bastion.ask("root", "ledger-uat", "readonly", 3600);
    let (status, body) = bastion.approve("root", &request);
    assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{body}");
    assert_eq!(body["rules"], json!([{ "id": "OWN-REQUEST", "needs": "a person other than the requester" }]));
    assert!(text(&body["detail"]).contains("OWN-REQUEST: a person other than the requester"), "{body}");
    bastion.run_as("root", &["approve", &request]).failure().says("OWN-REQUEST");
    let (status, body) = bastion.post("root", "/pam/deny", json!({ "request": request, "why": "mine" }));
    assert_eq!(status, 403, "{body}");
    assert_eq!(bastion.request("root", &request)["state"], "pending");

    let refusals = bastion.events("request_approved");
    assert_eq!(refusals.len(), 2);
    for refusal in refusals {
        assert_eq!((&refusal["outcome"], &refusal["principal"]["name"]), (&json!("refused"), &json!("root")));
        assert_eq!(refusal["detail"]["request"], json!(request));
    }
    assert_eq!(bastion.approved("carol", &request)["session"]["status"], "active", "somebody else may");
}

#[test]
fn a_denied_or_cancelled_request_stays_so() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let denied = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    bastion.approved("bob", &denied);
    bastion.run_as("carol", &["deny", &denied, "--why", "not tonight"]).success();
    let standing = bastion.request("alice", &denied);
    assert_eq!((&standing["state"], &standing["why"]), (&json!("denied"), &json!("not tonight")));
    assert_eq!(standing["decided_by"]["name"], "carol");
    let cancelled = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    bastion.approved("bob", &cancelled);
    let (status, body) = bastion.post("kim", "/pam/cancel", json!({ "request": cancelled }));
    assert_eq!(status, 403, "only the requester withdraws: {body}");
    bastion.run_as("alice", &["cancel", &cancelled]).success();

    for (request, words) in
        [(&denied, "already denied by carol: not tonight"), (&cancelled, "already cancelled by alice")]
    {
        for approver in ["bob", "carol", "dave"] {
            let (status, body) = bastion.approve(approver, request);
            assert_eq!((status, &body["code"]), (409, &json!("already_decided")), "{body}");
            assert!(text(&body["detail"]).contains(words), "{body}");
        }
        let (status, body) = bastion.post("dave", "/pam/deny", json!({ "request": request, "why": "too" }));
        assert_eq!(status, 409, "{body}");
    }
    assert_eq!(bastion.events("session_activated").len(), 0);
    bastion.psql("alice", "ledger-prod", "SELECT 1").failure().says("sallyport request ledger-prod");
}

#[test]
fn only_a_targets_approvers_approve() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let request = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    // Administrators, compliance, and other requesters are no approvers.
    for who in ["erin", "frank", "kim", "olga"] {
        let (status, body) = bastion.approve(who, &request);
        assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{who}: {body}");
        assert!(text(&body["detail"]).contains("refused by policy: "), "{who}: {body}");
        assert_ne!(body["rules"].as_array().map_or(0, Vec::len), 0, "{who}: {body}");
        let (status, body) = bastion.post(who, "/pam/deny", json!({ "request": request, "why": "no" }));
        assert_eq!(status, 403, "{who}: {body}");
    }
    let refused = bastion.run_as("frank", &["approve", &request]).failure();
    assert_eq!(refused.code(), 3, "{refused:?}");
    assert_eq!(bastion.request("alice", &request)["approvals"], json!([]));
    let (status, body) = bastion.api(None, "POST", "/pam/approve", Some(json!({ "request": request })));
    assert_eq!(status, 401, "{body}");
}

#[test]
fn approvals_at_once_activate_exactly_one_session() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let more = ["gina", "henk", "ines", "jack"];
    for name in more {
        bastion.add_user(name, "bank-core", &["approvers"]);
        bastion.log_in(name).success();
    }
    let everybody = ["bob", "carol", "dave", "gina", "henk", "ines", "jack"];
    for _ in 0..5 {
        let request = bastion.ask("alice", "ledger-prod", "readonly", 3600);
        let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
            let calls: Vec<_> = everybody.map(|who| scope.spawn(|| bastion.approve(who, &request))).into();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let activating = answers.iter().filter(|(_, body)| body["session"].is_object()).count();
        assert_eq!(activating, 1, "{answers:?}");
        for (status, body) in &answers {
            let late = *status == 409 && body["code"] == "already_decided";
            assert!(*status == 200 || late, "nobody is told something else: {status} {body}");
        }
        let standing = bastion.request("alice", &request);
        assert_eq!(
            (&standing["state"], standing["approvals"].as_array().unwrap().len()),
            (&json!("approved"), 2)
        );
        let about = |event: &&Value| event["request"] == json!(request) && event["outcome"] == "done";
        assert_eq!(bastion.events("session_activated").iter().filter(about).count(), 1);
        assert_eq!(bastion.events("request_approved").iter().filter(about).count(), 2);
    }
    let (_, sessions) = bastion.api(Some("alice"), "GET", "/pam/sessions?mine=true", None);
    assert_eq!(sessions["items"].as_array().unwrap().len(), 5);
}

#[test]
fn a_third_approval_changes_nothing_and_is_told_so() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    let (status, body) = bastion.approve("dave", &granted.request);
    assert_eq!((status, &body["code"]), (409, &json!("already_decided")), "{body}");
    assert!(text(&body["detail"]).contains(&format!("session {}", granted.session)), "{body}");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    assert_eq!(bastion.events("session_activated").len(), 1);
}

#[test]
fn what_nobody_could_approve_is_refused_when_it_is_asked() {
    let postgres = Postgres::start();
    let bastion = with_target_approved_by(&postgres, "vault-prod", "prod", "nobody-there");
    let (status, body) = bastion.try_ask("alice", "vault-prod", None);
    assert_eq!((status, &body["code"]), (422, &json!("nobody_can_approve")), "{body}");
    let says = "FR-283: needs 2 approvers, but nobody other than you may approve for vault-prod";
    assert!(text(&body["detail"]).contains(says), "{body}");
    assert_eq!(body["rules"][0]["id"], "FR-283", "{body}");
    bastion.add_user("nina", "bank-core", &["nobody-there"]);
    let (status, body) = bastion.try_ask("alice", "vault-prod", None);
    assert_eq!(status, 422, "{body}");
    assert!(text(&body["detail"]).contains("only 1 person other than you may approve"), "{body}");
    bastion.add_user("nora", "bank-core", &["nobody-there"]);
    let (status, body) = bastion.try_ask("alice", "vault-prod", None);
    assert_eq!((status, &body["request"]["state"]), (201, &json!("pending")), "{body}");
    let (status, body) = bastion.approve("bob", &text(&body["request"]["id"]));
    assert_eq!(status, 403, "an approver of other targets: {body}");
    let refused =
        bastion.events("request_created").iter().filter(|event| event["outcome"] == "refused").count();
    assert_eq!(refused, 2);
}

#[test]
fn break_glass_skips_approvals_and_marks_every_record() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.break_glass("ledger-prod");
    bastion.psql("olga", "ledger-prod", "SELECT count(*) FROM accounts").success();
    let recording = bastion.ended_recording_with("FROM accounts");
    assert!(recording.len() >= 4, "{recording:?}");
    for record in &recording {
        assert_eq!(record["break_glass"], true, "{record}");
        assert_eq!(record["session"], json!(granted.session), "{record}");
    }
    let (status, _) =
        bastion.post("erin", "/pam/revoke", json!({ "session": granted.session, "why": "over" }));
    assert_eq!(status, 200);
    let about: Vec<Value> = bastion
        .records()
        .into_iter()
        .filter(|record| {
            record["session"] == json!(granted.session) || record["request"] == json!(granted.request)
        })
        .collect();
    for action in [
        "request_created",
        "session_activated",
        "connection_opened",
        "connection_ended",
        "credential_intended",
        "credential_issued",
        "credential_destroyed",
        "session_revoked",
    ] {
        assert!(about.iter().any(|record| record["action"] == action), "no {action}");
    }
    for record in &about {
        assert_eq!(record["break_glass"], true, "not marked: {record}");
    }

    let glass = json!({
        "target": "ledger-prod", "access": "readonly", "reason": "in a hurry", "break_glass": true
    });
    let (status, body) = bastion.post("alice", "/pam/request", glass.clone());
    assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{body}");
    assert_eq!(body["rules"], json!([{ "id": "BREAK-GLASS", "needs": "membership of `oncall`" }]));
    let (status, body) = bastion.api(None, "POST", "/pam/request", Some(glass));
    assert_eq!(status, 401, "identity is never skipped: {body}");
    let plain = bastion.ask("olga", "ledger-prod", "dba", 3600);
    assert_eq!(
        missing(&bastion.request("olga", &plain)),
        ["FR-283: 2 more approvers"],
        "being on call is not enough"
    );
}
