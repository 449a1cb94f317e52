//! FR-281: a session lasts an hour unless asked otherwise and four hours at most, counted from its
//! grant. At its end the connection is cut, the credential is dead at the target, and what was made
//! under it stays with the access's role.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use serde_json::{Value, json};
use support::calls::{backends_at_work, holds_password_of, psql_at_work, text};
use support::{Bastion, Postgres, wait_until};

/// Microseconds between two instants of an answer.
fn lasts(session: &Value) -> i64 {
    let instant = |name: &str| text(&session[name]).parse::<sallyport::domain::time::Timestamp>().unwrap();
    instant("ends_at").as_micros() - instant("granted_at").as_micros()
}

const SECOND: i64 = 1_000_000;

#[test]
fn a_session_lasts_an_hour_unless_asked_otherwise_and_four_hours_at_most() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    for (asked, lasting) in [(None, 3600), (Some(60), 60), (Some(14_400), 14_400)] {
        let (status, body) = bastion.try_ask("alice", "ledger-dev", asked);
        assert_eq!(status, 201, "{body}");
        assert_eq!(lasts(&body["session"]), lasting * SECOND, "{body}");
    }

    let (status, body) = bastion.try_ask("alice", "ledger-dev", Some(14_401));
    assert_eq!((status, &body["code"]), (403, &json!("policy_refused")), "{body}");
    assert_eq!(body["rules"], json!([{ "id": "FR-281", "needs": "a duration of at most 4h" }]));
    let arguments = ["request", "ledger-prod", "readonly", "--for", "5h", "--reason", "a long night"];
    let refused = bastion.run_as("alice", &arguments).failure();
    assert_eq!(refused.code(), 3);
    refused.says("FR-281: a duration of at most 4h");
    let glass = bastion.run_as("olga", &[&arguments[..], &["--break-glass"]].concat()).failure();
    glass.says("FR-281: a duration of at most 4h");
    let (status, body) = bastion.try_ask("alice", "ledger-dev", Some(59));
    assert_eq!(status, 422, "{body}");
    assert!(text(&body["detail"]).contains("at least 1 minute"), "{body}");

    let refusals: Vec<Value> =
        bastion.events("request_created").into_iter().filter(|event| event["outcome"] == "refused").collect();
    assert_eq!(refusals.len(), 4, "every refusal is recorded");
    assert_eq!(refusals[0]["detail"]["duration_seconds"], 14_401);
    assert_eq!(refusals[0]["principal"]["name"], "alice");
}

#[test]
fn a_pending_request_lapses_after_an_hour() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let request = bastion.ask("alice", "ledger-prod", "readonly", 3600);
    bastion.approved("bob", &request);
    bastion.advance(3500);
    assert_eq!(bastion.request("alice", &request)["state"], "pending");

    bastion.advance(101);
    assert_eq!(bastion.request("alice", &request)["state"], "lapsed");
    let (status, body) = bastion.approve("carol", &request);
    assert_eq!((status, &body["code"]), (409, &json!("request_lapsed")), "{body}");
    assert!(text(&body["detail"]).contains("ask again"), "{body}");
    bastion.psql("alice", "ledger-prod", "SELECT 1").failure().says("sallyport request ledger-prod");
    assert_eq!(bastion.events("session_activated").len(), 0);
    let lapses = bastion.events("request_lapsed");
    assert_eq!(lapses.len(), 1, "recorded once");
    assert_eq!(lapses[0]["request"], json!(request));
}

#[test]
fn expiry_cuts_what_runs_and_leaves_nothing_at_the_target() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-prod");
    bastion.advance(3500);
    assert_eq!(backends_at_work(&postgres), "1", "not before its time");

    bastion.advance(101);
    let cut = running.finish().failure();
    assert!(cut.stderr.contains("57P01"), "{}", cut.stderr);
    assert!(cut.stderr.contains("your session has ended: its time is up"), "{}", cut.stderr);
    assert_eq!(backends_at_work(&postgres), "0", "the statement does not run on");
    assert!(postgres.session_roles().is_empty(), "the role is dropped");
    assert_eq!(bastion.session("alice", &granted.session)["status"], "expired");

    let refused = bastion.psql_in("ledger", "alice", "ledger-prod", "SELECT 1").failure();
    assert!(refused.stderr.contains(&format!("session {} ended at", granted.session)), "{}", refused.stderr);
    assert!(refused.stderr.contains("sallyport request ledger-prod"), "{}", refused.stderr);
    let recording = bastion.ended_recording_with("at work");
    assert_eq!(recording.last().unwrap()["reason"], json!({ "end": "expired" }));
    let ends = bastion.events("session_ended");
    assert_eq!(ends.len(), 1, "recorded once");
    assert_eq!(
        (&ends[0]["session"], &ends[0]["detail"]["why"]),
        (&json!(granted.session), &json!("expired"))
    );
    bastion.verify().success();
}

#[test]
fn the_role_is_no_more_than_the_access_and_valid_until_the_sessions_end() {
    let postgres = Postgres::start_with(&["log_statement=all", "log_min_duration_statement=0"]);
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();

    let [role] = <[String; 1]>::try_from(postgres.session_roles()).unwrap();
    assert_eq!(role, format!("sp_{}", granted.session.replace('-', "_")));
    let ends_at = text(&bastion.session("alice", &granted.session)["ends_at"]);
    let attributes = format!(
        "SELECT rolvaliduntil = '{ends_at}', rolconnlimit, rolcanlogin, rolinherit, rolsuper OR rolcreatedb \
         OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = '{role}'"
    );
    assert_eq!(postgres.value("postgres", &attributes), "t|250|f|t|f", "it lets nobody in by itself");
    let memberships = format!(
        "SELECT roleid::regrole, admin_option FROM pg_auth_members WHERE member = '{role}'::regrole \
         UNION ALL SELECT member::regrole, admin_option FROM pg_auth_members WHERE roleid = '{role}'::regrole"
    );
    assert_eq!(postgres.value("postgres", &memberships), "ledger_readonly|f");
    let refused = bastion.psql_in("ledger", "alice", "ledger-prod", "DELETE FROM accounts").failure();
    assert!(refused.stderr.contains("42501"), "{}", refused.stderr);

    let verifier = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let verifier = postgres.value("postgres", &verifier);
    assert!(verifier.starts_with("SCRAM-SHA-256$1:"), "{verifier}");
    let log = postgres.log();
    let created: Vec<&str> = log.split("PASSWORD '").skip(1).collect();
    assert!(!created.is_empty(), "the target logged how the role was made: {log}");
    assert!(created.iter().all(|rest| rest.starts_with("SCRAM-SHA-256$")), "{log}");
    assert!(!holds_password_of(log.as_bytes(), &verifier), "the clear password reached the target's log");
    for file in bastion.kept_files() {
        let kept = std::fs::read(&file).unwrap_or_default();
        assert!(!holds_password_of(&kept, &verifier), "the clear password is in {}", file.display());
    }
}

#[test]
fn the_time_is_counted_from_the_grant_and_approving_again_adds_none() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    let before = bastion.session("alice", &granted.session);
    assert_eq!(lasts(&before), 3600 * SECOND);
    bastion.advance(3000);

    for approver in ["bob", "carol", "dave"] {
        let (status, body) = bastion.approve(approver, &granted.request);
        assert_eq!((status, &body["code"]), (409, &json!("already_decided")), "{body}");
        assert!(text(&body["detail"]).contains(&granted.session), "{body}");
    }
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-prod");
    let after = bastion.session("alice", &granted.session);
    assert_eq!(after["ends_at"], before["ends_at"], "connecting late and approving again moved the end");
    assert_eq!(after["approvals"], before["approvals"]);
    let valid = format!(
        "SELECT rolvaliduntil = '{}' FROM pg_roles WHERE rolname LIKE 'sp\\_%'",
        text(&before["ends_at"])
    );
    assert_eq!(postgres.value("postgres", &valid), "t", "the credential lasts no longer than the session");

    bastion.advance(601);
    running.finish().failure().says("its time is up");
    assert!(postgres.session_roles().is_empty());
}

#[test]
fn what_was_made_in_a_session_goes_to_the_accesss_role() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("dba");
    let make = "CREATE SCHEMA work; CREATE TABLE work.moved (id int); INSERT INTO work.moved VALUES (7); \
                CREATE FUNCTION work.seven() RETURNS int LANGUAGE sql AS 'SELECT 7'";
    for database in ["ledger", "archive"] {
        bastion.psql_in(database, "alice", "ledger-prod", make).success();
    }
    let [role] = <[String; 1]>::try_from(postgres.session_roles()).unwrap();
    let owned = "SELECT relowner::regrole FROM pg_class WHERE relname = 'moved'";
    assert_eq!(postgres.value("ledger", owned), role);
    postgres.query("ledger", &format!("GRANT SELECT ON accounts TO {role}")).success();

    bastion.run_as("bob", &["revoke", &granted.session, "--why", "done"]).success();
    assert!(postgres.session_roles().is_empty(), "nothing that it owned or was granted holds it back");
    for database in ["ledger", "archive"] {
        let owners = "SELECT DISTINCT owner FROM (SELECT relowner::regrole AS owner FROM pg_class WHERE \
                      relname = 'moved' UNION SELECT proowner::regrole FROM pg_proc WHERE proname = 'seven' \
                      UNION SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'work') AS o";
        assert_eq!(postgres.value(database, owners), "ledger_owner");
        assert_eq!(postgres.value(database, "SELECT id FROM work.moved"), "7");
    }
}

#[test]
fn destruction_is_tried_again_through_outages_and_restarts_until_the_role_is_gone() {
    let mut postgres = Postgres::start();
    let mut bastion = Bastion::start(&postgres);
    let first = bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    let second = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let handle = |session: &str| format!("sp_{}", session.replace('-', "_"));
    postgres.stop();

    for session in [&first.session, &second.session] {
        let (status, body) =
            bastion.post("bob", "/pam/revoke", json!({ "session": session, "why": "outage" }));
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["credential"]["state"], "pending", "{body}");
        assert_eq!(body["credential"]["handle"], json!(handle(session)));
    }
    bastion.advance(6);
    let failures = bastion.events("credential_destruction_failed");
    assert_eq!(failures.len(), 2, "a failure is recorded once, not at every try: {failures:?}");
    assert!(failures.iter().all(|event| event["outcome"] == "failed"));

    bastion.stop();
    bastion.boot();
    bastion.advance(6);
    assert_eq!(bastion.events("credential_destroyed").len(), 0, "nothing is claimed that is not so");
    postgres.restart();
    let mut left = postgres.session_roles();
    left.sort_unstable();
    let mut expected = vec![handle(&first.session), handle(&second.session)];
    expected.sort_unstable();
    assert_eq!(left, expected, "both roles survived the outage");

    bastion.advance(6);
    wait_until("the roles are gone", || postgres.session_roles().is_empty());
    let destroyed: Vec<Value> = bastion.events("credential_destroyed");
    assert_eq!(destroyed.len(), 2);
    assert!(destroyed.iter().all(|event| event["outcome"] == "done"));
    bastion.verify().success();
}

#[test]
fn after_a_crash_the_recording_is_ended_and_the_credential_still_ends_with_its_session() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start(&postgres);
    bastion.grant_prod("readonly");
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-prod");
    bastion.kill();
    running.finish().failure();

    bastion.boot();
    let recording = bastion.ended_recording_with("at work");
    assert_eq!(recording.last().unwrap()["reason"], json!({ "end": "crashed" }));
    let (_, open) = bastion.api(Some("erin"), "GET", "/pam/connections", None);
    assert_eq!(open["items"], json!([]), "nothing is shown as open that is not");
    assert_eq!(postgres.session_roles().len(), 1);
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    assert_eq!(postgres.session_roles().len(), 1, "one session, one role");

    bastion.advance(3600);
    assert!(postgres.session_roles().is_empty(), "the role from before the crash is dropped");
    assert_eq!(backends_at_work(&postgres), "0", "and its server processes with it");
    bastion.psql("alice", "ledger-prod", "SELECT 1").failure().says("sallyport request ledger-prod");
    bastion.verify().success();
}
