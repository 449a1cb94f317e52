//! Blocks: who is barred is cut and gets no further, wherever they stand.

use serde_json::json;

use crate::support::calls::text;
use crate::support::process::Running;
use crate::support::wire::Wire;
use crate::support::{Bastion, Postgres, wait_until};

#[test]
fn a_block_cuts_and_bars_from_asking_activating_and_connecting_until_it_is_lifted() {
    let (_postgres, bastion) = crate::start(&["alice", "bob", "carol", "erin", "olga"]);
    let pending = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    bastion.approved("bob", &pending);
    let session = crate::dev_session(&bastion, "alice", "readonly");
    crate::dev_session(&bastion, "olga", "readonly");
    let (mut cut, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut olga, _) = Wire::session(&bastion, "olga", "ledger-dev");

    let answer = crate::block(&bastion, json!({ "user": "alice", "why": "a stolen laptop" }));
    assert_eq!(crate::cut(&answer).len(), 1);
    let (sqlstate, message, _) = cut.last_words();
    assert_eq!((sqlstate.as_str(), message.as_str()), ("57P01", "you were blocked by erin: a stolen laptop"));
    crate::is_served(&mut olga);
    assert_eq!(bastion.session("alice", &session)["status"], "active", "a block ends no session");

    let (sqlstate, message, _) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!((sqlstate.as_str(), message.as_str()), ("28000", "you are blocked by erin: a stolen laptop"));
    let (status, body) = bastion.try_ask("alice", "ledger-uat", None);
    assert_eq!((status, &body["code"]), (403, &json!("blocked")), "{body}");
    let (status, body) = bastion.approve("carol", &pending);
    assert_eq!((status, &body["code"]), (403, &json!("blocked")), "{body}");
    assert_eq!(bastion.events("session_activated").len(), 2, "only the two on the development target");

    let id = text(&answer["block"]["id"]);
    for who in ["alice", "bob"] {
        let (status, body) = bastion.post(who, "/pam/unblock", json!({ "block": id }));
        assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{body}");
    }
    bastion.run_as("erin", &["unblock", &id]).success();
    crate::is_let_in(&bastion, "alice", "ledger-dev");
    bastion.approved("carol", &pending);
    crate::is_let_in(&bastion, "alice", "ledger-prod");
    bastion.verify().success();
}

#[test]
fn a_block_on_one_target_leaves_the_others() {
    let (_postgres, bastion) = crate::start(&["alice", "bob", "erin"]);
    let prod = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    crate::dev_session(&bastion, "alice", "readonly");
    bastion.grant("alice", "ledger-uat", "readonly", 3600, &["bob"]);
    let (mut cut, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut kept, _) = Wire::session(&bastion, "alice", "ledger-uat");

    let block = json!({ "user": "alice", "target": "ledger-dev", "why": "not there" });
    assert_eq!(crate::cut(&crate::block(&bastion, block)).len(), 1);
    assert_eq!(cut.last_words().1, "you were blocked by erin: not there");
    crate::is_served(&mut kept);
    crate::is_let_in(&bastion, "alice", "ledger-uat");
    assert_eq!(crate::refusal(&bastion, "alice", "ledger-dev").0, "28000");
    let (status, body) = bastion.try_ask("alice", "ledger-dev", None);
    assert_eq!((status, &body["code"]), (403, &json!("blocked")), "{body}");
    bastion.approved("bob", &prod);
}

#[test]
fn a_block_for_a_time_ends_with_it() {
    let (_postgres, bastion) = crate::start(&["alice", "erin"]);
    crate::dev_session(&bastion, "alice", "readonly");
    let block = json!({ "user": "alice", "for_seconds": 600, "why": "a pause" });
    let until = text(&crate::block(&bastion, block)["block"]["until"]);
    bastion.advance(500);
    let (_, message, _) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!(message, format!("you are blocked until {until} by erin: a pause"));
    bastion.advance(101);
    crate::is_let_in(&bastion, "alice", "ledger-dev");
    assert_eq!(bastion.try_ask("alice", "ledger-dev", None).0, 201);
}

#[test]
fn revoking_with_block_bars_the_holder_from_now_on() {
    let (postgres, bastion) = crate::start(&["alice", "erin", "olga"]);
    let session = crate::dev_session(&bastion, "alice", "readonly");
    let other = crate::dev_session(&bastion, "alice", "dba");
    let (mut revoked, _) = Wire::session(&bastion, "alice", "ledger-dev+readonly");
    let (mut blocked, _) = Wire::session(&bastion, "alice", "ledger-dev+dba");
    let said = bastion.run_as("erin", &["revoke", &session, "--why", "misuse", "--block"]).success();
    assert!(said.stdout.contains("block "), "{}", said.stdout);
    assert_eq!(revoked.last_words().1, "your session was revoked by erin: misuse");
    assert_eq!(blocked.last_words().1, "you were blocked by erin: misuse");
    assert_eq!(crate::refusal(&bastion, "alice", "ledger-dev+dba").1, "you are blocked by erin: misuse");
    let refused = bastion.try_ask("alice", "ledger-uat", None);
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("blocked")));
    assert_eq!(bastion.session("alice", &other)["status"], "active");
    assert_eq!(postgres.session_roles().len(), 1, "the other session's, which nobody can use");

    // With a reach: this target, and for a time.
    let session = crate::dev_session(&bastion, "olga", "readonly");
    let reach = ["--block", "--block-target", "--block-for", "10m"];
    let arguments = [&["revoke", session.as_str(), "--why", "misuse"], &reach[..]].concat();
    bastion.run_as("erin", &arguments).success();
    assert_eq!(bastion.try_ask("olga", "ledger-dev", None).0, 403);
    assert_eq!(bastion.try_ask("olga", "ledger-uat", None).0, 201);
    bastion.advance(601);
    assert_eq!(bastion.try_ask("olga", "ledger-dev", None).0, 201);
}

#[test]
fn who_may_not_block_blocks_nobody() {
    let (_postgres, bastion) = crate::start(&["alice", "bob", "erin", "frank"]);
    crate::dev_session(&bastion, "alice", "readonly");
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    for who in ["alice", "bob", "frank"] {
        let (status, body) = bastion.post(who, "/pam/block", json!({ "user": "alice", "why": "mischief" }));
        assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{who}: {body}");
    }
    for (body, expected) in [
        (json!({ "user": "nobody", "why": "x" }), 404),
        (json!({ "user": "alice", "why": " " }), 400),
        (json!({ "user": "alice", "why": "x", "for_seconds": 0 }), 400),
    ] {
        let (status, answer) = bastion.post("erin", "/pam/block", body);
        assert_eq!(status, expected, "{answer}");
    }
    crate::is_served(&mut wire);
    let added = bastion.events("block_added");
    assert_eq!(added.len(), 6, "refusals are recorded");
    assert!(added.iter().all(|event| event["outcome"] == "refused"), "{added:?}");
}

/// A statement that is deaf to being cancelled would otherwise go on to the session's end, which a block is not.
#[test]
fn nothing_of_who_is_blocked_goes_on_at_the_target() {
    let (postgres, bastion, client) = deaf();
    crate::block(&bastion, json!({ "user": "alice", "why": "found in the logs" }));
    client.finish().failure().says("found in the logs");
    assert_eq!(is_ended(&postgres, &bastion)["backends_terminated"], 1);
    assert_eq!(bastion.events("credential_shut").len(), 1);
    bastion.verify().success();
}

#[test]
fn nothing_of_whose_account_is_disabled_goes_on_at_the_target() {
    let (postgres, bastion, client) = deaf();
    let config = bastion.config_file();
    bastion.operator(&["user", "disable", "alice", "--config", config.to_str().unwrap()]).success();
    bastion.advance(1);
    client.finish().failure().says("this account is disabled");
    assert_eq!(is_ended(&postgres, &bastion)["backends_terminated"], 1);
    assert_eq!(bastion.events("credential_shut").len(), 1);
    bastion.verify().success();
}

/// What a client that is killed leaves running is cancelled; what is deaf to that is ended.
#[test]
fn nothing_goes_on_at_the_target_once_its_client_is_gone() {
    let (postgres, bastion, client) = deaf();
    client.signal(rustix::process::Signal::KILL);
    client.finish().failure();
    assert_eq!(is_ended(&postgres, &bastion)["backends_terminated"], 1);
    bastion.psql("alice", "ledger-dev", "SELECT 'goes on'").success().says("goes on");
    assert_eq!(bastion.events("credential_shut").len(), 1);
    bastion.verify().success();
}

/// Whoever is on call is told of it, and it is ended once it can be.
#[test]
fn what_of_who_is_blocked_cannot_be_ended_is_recorded_and_tried_again() {
    let (postgres, bastion, client) = deaf();
    let still = postgres.stand_still("wait_event = 'PgSleep'");
    crate::block(&bastion, json!({ "user": "alice", "why": "found in the logs" }));
    client.finish().failure().says("found in the logs");
    wait_until("that is recorded", || {
        bastion.advance(5);
        !bastion.events("credential_shut").is_empty()
    });
    let failed = &bastion.events("credential_shut")[0];
    assert_eq!((&failed["outcome"], &failed["detail"]["why"]), (&json!("failed"), &json!("left_running")));
    assert!(text(&failed["detail"]["error"]).contains("do not end"), "{failed}");
    drop(still);
    is_ended(&postgres, &bastion);
    assert_eq!(bastion.events("credential_shut").len(), 2);
    bastion.verify().success();
}

fn sleeping(postgres: &Postgres) -> String {
    postgres.value("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
}

/// A psql of alice's that runs a statement which is deaf to being cancelled.
fn deaf() -> (Postgres, Bastion, Running) {
    let (postgres, bastion) = crate::start(&["alice", "erin"]);
    crate::dev_session(&bastion, "alice", "readonly");
    let deaf = "DO $$BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$";
    let client = Running::start_quietly(&mut bastion.psql_command("alice", "ledger-dev", &["-c", deaf]));
    wait_until("it sleeps", || sleeping(&postgres) == "1");
    (postgres, bastion, client)
}

/// Gives what is on record of it.
fn is_ended(postgres: &Postgres, bastion: &Bastion) -> serde_json::Value {
    wait_until("it is ended", || {
        bastion.advance(5);
        sleeping(postgres) == "0"
    });
    let is_done = |shut: &serde_json::Value| shut["outcome"] == "done";
    wait_until("that is recorded", || bastion.events("credential_shut").iter().any(is_done));
    let shut = bastion.events("credential_shut").pop().unwrap();
    assert_eq!(shut["detail"]["why"], "left_running");
    shut["detail"].clone()
}
