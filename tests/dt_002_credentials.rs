//! DT-002: every intent, issue and destruction of a credential is a record that names session,
//! handle and fingerprint; no secret is in a record, the log, the store, an answer or an argument.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;

use data_encoding::BASE64;
use serde_json::{Value, json};
use support::bastion::PEOPLE;
use support::calls::{backends_at_work, holders, holds, holds_password_of, psql_at_work, text};
use support::postgres::ADMIN_PASSWORD;
use support::{Bastion, Postgres, wait_until};

const STEPS: [&str; 3] = ["credential_intended", "credential_issued", "credential_destroyed"];

/// What was recorded of a session's credential, in order.
fn steps(bastion: &Bastion, session: &str) -> Vec<Value> {
    let of = |record: &Value| {
        record["session"] == json!(session)
            && record["action"].as_str().is_some_and(|action| action.starts_with("credential_"))
    };
    bastion.records().into_iter().filter(of).collect()
}

fn actions(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["action"].as_str().unwrap()).collect()
}

/// What `pg_authid` holds for the only session role.
fn verifier(postgres: &Postgres) -> String {
    postgres.value("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'sp\\_%'")
}

#[test]
fn every_step_of_a_credential_is_recorded_with_its_session_and_handle() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    assert_eq!(steps(&bastion, &granted.session), Vec::<Value>::new(), "none before it is needed");
    for _ in 0..3 {
        bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    }
    let issued = "credential_issued";
    let so_far = [STEPS[0], issued, issued, issued];
    assert_eq!(actions(&steps(&bastion, &granted.session)), so_far, "a new secret for each connection");
    bastion.run_as("bob", &["revoke", &granted.session, "--why", "done"]).success();

    let recorded = steps(&bastion, &granted.session);
    assert_eq!(actions(&recorded), [&so_far[..], &STEPS[2..]].concat());
    let fingerprint = |step: &Value| step["detail"]["fingerprint"].to_string();
    let fingerprints: std::collections::BTreeSet<_> = recorded[1..4].iter().map(fingerprint).collect();
    assert_eq!(fingerprints.len(), 3, "no two connections share a secret");
    let handle = format!("sp_{}", granted.session.replace('-', "_"));
    let lease = text(&recorded[0]["detail"]["lease"]);
    for step in &recorded {
        assert_eq!(
            (&step["detail"]["handle"], &step["detail"]["lease"]),
            (&json!(handle), &json!(lease)),
            "{step}"
        );
        assert_eq!((&step["request"], &step["outcome"]), (&json!(granted.request), &json!("done")), "{step}");
        let place = ["target", "access", "environment", "domain"].map(|field| step[field].as_str().unwrap());
        assert_eq!(place, ["ledger-prod", "readonly", "prod", "bank-core"]);
    }
    let issued = &recorded[1]["detail"];
    let fingerprint = text(&issued["fingerprint"]);
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{issued}");
    assert_eq!(issued["valid_until"], bastion.session("alice", &granted.session)["ends_at"]);
    assert_eq!(
        (&recorded[0]["principal"]["name"], &recorded[1]["principal"]["name"]),
        (&json!("alice"), &json!("alice"))
    );
    let destroyed = &recorded.last().unwrap()["detail"];
    assert_eq!((&destroyed["holder"], &destroyed["backends_terminated"]), (&json!("alice"), &json!(0)));
    let notice = format!("connected to the target as {handle}");
    let uses = bastion
        .records()
        .iter()
        .filter(|r| r["text"].as_str().is_some_and(|t| t.starts_with(&notice)))
        .count();
    assert_eq!(uses, 3, "each recording says which credential it used");

    bastion.run_as("bob", &["revoke", &granted.session, "--why", "again"]).success();
    let later = steps(&bastion, &granted.session);
    assert_eq!(actions(&later), actions(&recorded), "what is gone is not destroyed again");
    bastion.verify().success();
}

#[test]
fn a_credential_that_is_made_anew_has_another_fingerprint() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    let first = verifier(&postgres);
    bastion.stop();
    bastion.boot();
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    assert_ne!(verifier(&postgres), first, "a restarted server knows no old password");
    let other = bastion.grant("olga", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("olga", "ledger-dev", "SELECT 1").success();

    let recorded = steps(&bastion, &granted.session);
    assert_eq!(actions(&recorded), ["credential_intended", "credential_issued", "credential_issued"]);
    let mut fingerprints: Vec<String> = [&recorded[1..], &steps(&bastion, &other.session)[1..]]
        .concat()
        .iter()
        .map(|step| text(&step["detail"]["fingerprint"]))
        .collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 3);
}

#[test]
fn an_intent_that_came_to_nothing_is_closed_in_the_record_too() {
    let mut postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    postgres.stop();
    let refused = bastion.psql("alice", "ledger-prod", "SELECT 1").failure();
    assert!(refused.stderr.contains("cannot reach the target"), "{}", refused.stderr);
    assert!(!refused.stderr.contains(ADMIN_PASSWORD));
    assert_eq!(actions(&steps(&bastion, &granted.session)), STEPS[..1], "nothing is claimed to be issued");
    postgres.restart();
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    assert_eq!(
        actions(&steps(&bastion, &granted.session)),
        STEPS[..2],
        "the intent is carried out, not doubled"
    );

    let never = bastion.grant("olga", "ledger-dev", "readonly", 3600, &[]);
    postgres.stop();
    bastion.psql("olga", "ledger-dev", "SELECT 1").failure();
    postgres.restart();
    bastion.advance(3601);
    for session in [&granted.session, &never.session] {
        let recorded = steps(&bastion, session);
        assert_eq!(actions(&recorded).last(), Some(&"credential_destroyed"), "{recorded:?}");
    }
    assert!(postgres.session_roles().is_empty());
}

#[test]
fn what_a_crash_left_running_is_ended_at_the_next_start() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start(&postgres);
    let granted = bastion.grant_prod("readonly");
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-prod");
    bastion.kill();
    running.finish().failure();
    assert_eq!(backends_at_work(&postgres), "1", "nobody told the target yet");
    bastion.boot();
    wait_until("the statement is ended", || backends_at_work(&postgres) == "0");
    bastion.psql("alice", "ledger-prod", "SELECT 1").success();
    bastion.run_as("erin", &["revoke", &granted.session, "--why", "clean up"]).success();
    assert!(postgres.session_roles().is_empty());
}

#[test]
fn no_secret_is_in_what_the_server_keeps_or_says() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_with(
        &postgres,
        support::Options { wrapper: vec!["env".into(), "SALLYPORT_LOG=trace".into()], ..Default::default() },
    );
    let granted = bastion.grant_prod("readonly");
    bastion.psql("alice", "ledger-prod", "SELECT 'used'").success();
    bastion.ended_recording_with("'used'");
    let verifier = verifier(&postgres);
    let keys: Vec<&str> = verifier.split(['$', ':']).skip(3).collect();
    assert_eq!(keys.len(), 2, "StoredKey and ServerKey: {verifier}");
    let mut secrets: Vec<(String, String)> =
        PEOPLE.iter().map(|(name, ..)| (format!("{name}'s token"), bastion.token(name))).collect();
    secrets.push(("the admin password".into(), ADMIN_PASSWORD.into()));
    secrets.push(("everybody's password".into(), "correct horse battery staple".into()));
    for key in &keys {
        secrets.push(("the role's key".into(), (*key).to_owned()));
        secrets.push(("the role's key, in hexadecimal".into(), sallyport::crypto::hex(&decoded(key))));
    }

    let said = answers(&bastion, &granted.request);
    for (what, secret) in &secrets {
        assert!(!said.contains(secret.as_str()), "{what} is in an answer");
    }
    assert!(!holds_password_of(said.as_bytes(), &verifier), "the role's password is in an answer");
    assert!(said.contains(&granted.session), "the answers are those that matter");

    for stopped in [false, true] {
        let files = bastion.kept_files();
        for (what, secret) in &secrets {
            assert_eq!(holders(&files, secret), Vec::<&std::path::PathBuf>::new(), "{what} is kept");
        }
        for file in &files {
            let kept = fs::read(file).unwrap_or_default();
            for key in &keys {
                assert!(!holds(&kept, &decoded(key)), "the role's key is in {}", file.display());
            }
            assert!(!holds_password_of(&kept, &verifier), "the role's password is in {}", file.display());
        }
        // The search finds what is there, and the log says all that it can.
        assert!(bastion.log().contains(" TRACE "), "the server logs at trace");
        assert_ne!(holders(&files, &granted.session).len(), 0);
        let token = bastion.token("alice");
        let hash = sallyport::crypto::sha256(&[token.as_bytes()]);
        assert!(
            files.iter().any(|file| holds(&fs::read(file).unwrap(), &hash)),
            "a token is kept as its hash"
        );
        if !stopped {
            bastion.stop();
        }
    }
}

#[test]
fn no_secret_is_in_an_argument_of_a_process() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);
    bastion.grant_prod("readonly");
    let sql = "SELECT pg_sleep(600) /* by the wrapper */";
    let arguments = ["psql", "ledger-prod", "--", "-X", "-c", sql];
    let wrapper = support::process::Running::start_quietly(&mut bastion.command_as("alice", &arguments));
    let at_work = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%by the wrapper */' \
                   AND pid <> pg_backend_pid()";
    wait_until("the wrapper's psql is at work", || postgres.value("postgres", at_work) == "1");
    for (pid, speaks_of) in [(bastion.pid(), "serve"), (wrapper.pid(), "by the wrapper")] {
        let shown = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(holds(&shown, speaks_of.as_bytes()), "the right process");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        for secret in [bastion.token("alice").as_str(), ADMIN_PASSWORD, "correct horse battery staple"] {
            assert!(!holds(&shown, secret.as_bytes()), "a secret is in the arguments of {speaks_of}");
            assert!(!holds(&environment, secret.as_bytes()), "a secret is in the environment of {speaks_of}");
        }
    }
    // What the target's administrators see of the session's connection names no token either.
    let activity = postgres.value("postgres", "SELECT string_agg(a::text, ' ') FROM pg_stat_activity a");
    assert!(!activity.contains(&bastion.token("alice")), "{activity}");
}

#[test]
fn the_search_for_a_role_s_password_finds_one() {
    let password = "q1Xn_0aB-cD3eF4gH5iJ6kL7mN8oP9qR0sT1uV2wX3y";
    let verifier = |password| {
        sallyport::crypto::scram::Verifier::derive(password, [7; 16], sallyport::crypto::scram::ITERATIONS)
            .to_postgres()
    };
    let text = format!("ALTER ROLE x PASSWORD '{password}' VALID UNTIL");
    assert!(holds_password_of(text.as_bytes(), &verifier(password)));
    assert!(!holds_password_of(text.as_bytes(), &verifier("another")));
}

fn decoded(key: &str) -> Vec<u8> {
    BASE64.decode(key.as_bytes()).unwrap()
}

/// Everything that the API tells its callers about what is there.
fn answers(bastion: &Bastion, request: &str) -> String {
    let mut said = String::new();
    let routes = [
        "/pam/requests?all=true",
        "/pam/sessions?all=true",
        "/pam/connections?all=true",
        "/pam/blocks",
        "/pam/targets",
        "/pam/gateway",
        "/whoami",
        "/metrics",
        "/openapi.json",
    ];
    let recording = bastion.statements()[0]["rec"].as_str().unwrap().to_owned();
    for (who, ..) in PEOPLE {
        for route in routes {
            said += &bastion.api(Some(who), "GET", route, None).1.to_string();
        }
        for route in [format!("/pam/requests/{request}"), format!("/pam/recordings/{recording}")] {
            said += &bastion.api(Some(who), "GET", &route, None).1.to_string();
        }
    }
    said
}
