//! GOV-006: the record goes out in the forms that others read. What is exported is what was done, by real psql and
//! ssh; who may not read it gets nothing, or what is left; that it was given out is on record.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking"
)]

#[path = "gov_006_export/registers.rs"]
mod registers;
#[path = "audit_record/schema.rs"]
mod schema;
mod support;
#[path = "gov_006_export/transcript.rs"]
mod transcript;
#[path = "gov_006_export/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use support::calls::text;
use support::{Bastion, wait_until};
use world::World;

/// What is on record of exports: who, what, how it ended, how much.
fn exports(bastion: &Bastion) -> Vec<Value> {
    let told = |event: &Value| {
        let detail = &event["detail"];
        let who = &event["principal"]["name"];
        json!([who, detail["format"], event["outcome"], detail["written"], detail["left_out"]])
    };
    bastion.events("audit_exported").iter().map(told).collect()
}

#[test]
fn the_records_go_out_as_stored_to_whoever_may_replay_and_that_is_on_record() {
    let world = World::start(&["alice", "bob", "erin", "frank"]);
    let bastion = world.bastion();
    let granted = world.work();
    let before = bastion.records();
    let exported = world.export_lines("frank", "jsonl", &[]);
    assert_eq!(exported[..before.len()], before[..]);
    let records = bastion.records();
    let count = json!(exported.len());
    assert_eq!(exports(bastion), [json!(["frank", "jsonl", "done", count, 0])]);
    let event = records.iter().position(|record| record["action"] == "audit_exported").unwrap();
    assert_eq!(event, exported.len(), "the record of it comes right behind what was given");

    // Whoever may not replay gets nothing, whoever they are.
    for who in ["alice", "bob", "erin"] {
        for format in ["jsonl", "ocsf"] {
            let refused = bastion.run_as(who, &["export", "--format", format]).failure();
            assert_eq!((refused.code(), refused.stdout.as_str()), (3, ""), "{who}");
            refused.says("refused by policy");
        }
        for format in ["access-register", "revocation-latency", "break-glass-register", "sql"] {
            let refused = bastion.run_as(who, &["export", "--format", format, "--session", &granted.session]);
            assert_eq!((refused.code(), refused.stdout.as_str()), (3, ""), "{who} {format}");
        }
        let file = bastion.scratch().join("refused");
        let bundle = ["bundle", &granted.session, "-o", file.to_str().unwrap()];
        bastion.run_as(who, &bundle).failure().says("refused by policy");
        assert!(!file.exists());
    }
    let refused = exports(bastion);
    assert_eq!(refused.iter().filter(|told| told[2] == "refused").count(), 3 * 7, "{refused:?}");
    assert_eq!(refused[1], json!(["alice", "jsonl", "refused", 0, exported.len() + 1]));
    let (status, problem) = bastion.api(Some("bob"), "GET", "/pam/export?format=jsonl", None);
    assert_eq!((status, &problem["rules"][0]["id"]), (403, &json!("NO-PERMIT")), "{problem}");
    assert_eq!(bastion.api(None, "GET", "/pam/export?format=jsonl", None).0, 401);

    // What cannot be made is told before anything is read.
    for (query, told) in [
        ("format=sql", "name a session or a connection"),
        ("format=access-register&connection=con-0000000000000000", "name a session instead"),
        ("format=xml", "query string"),
        ("format=jsonl&from=soon", "query string"),
    ] {
        let (status, problem) = bastion.api(Some("frank"), "GET", &format!("/pam/export?{query}"), None);
        assert_eq!(status, 400, "{problem}");
        assert!(text(&problem["detail"]).contains(told), "{problem}");
    }

    // The parts that one asks for.
    let all = bastion.records();
    let only = |rest: &[&str], is: &dyn Fn(&Value) -> bool| {
        let exported = world.export_lines("frank", "jsonl", rest);
        let expected: Vec<&Value> = all.iter().filter(|record| is(record)).collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{rest:?}");
        let found: Vec<&Value> = exported.iter().filter(|record| all.contains(record)).collect();
        assert_eq!(found, expected, "{rest:?}");
    };
    let (session, request) = (granted.session.as_str(), granted.request.as_str());
    only(&["--session", session], &|record| record["session"] == session || record["request"] == request);
    only(&["--principal", "bob"], &|record| record["principal"]["name"] == "bob");
    only(&["--target", "ledger-dev"], &|record| record["target"] == "ledger-dev");
    let connection = text(&all.iter().find(|record| record["kind"] == "opened").unwrap()["connection"]);
    only(&["--connection", &connection], &|record| record["connection"] == connection.as_str());
    let middle = text(&all[all.len() / 2]["at"]);
    only(&["--to", &middle], &|record| text(&record["at"]) <= middle);
    only(&["--from", &middle], &|record| text(&record["at"]) >= middle);
    bastion.verify().success();
}

#[test]
fn every_record_of_real_work_becomes_an_event_of_the_published_schema() {
    let mut world = World::start(&["alice", "bob", "carol", "erin", "frank"]);
    world.work();
    world.at_host();
    let granted = world.bastion().grant_prod("readonly");
    world.bastion().psql("alice", "ledger-prod", "SELECT 1").success();
    world.bastion().add_user("newcomer", "bank-core", &["requesters"]);
    // A credential that cannot be destroyed is an alarm.
    world.postgres.stop();
    world.bastion().run_as("erin", &["revoke", &granted.session, "--why", "over"]).failure();
    wait_until("the user's event is recorded", || !world.bastion().events("user_added").is_empty());
    world.bastion().run_as("frank", &["replay", &granted.session.replace("ses-", "con-")]).failure();
    let before = world.export_lines("frank", "jsonl", &[]);
    let events = world.export_lines("frank", "ocsf", &[]);
    let schema = schema::Schema::published();
    let mut classes = BTreeSet::new();
    for event in &events {
        let faults = schema.faults(event);
        assert!(faults.is_empty(), "{faults:#?} of {event}");
        classes.insert(event["class_uid"].as_i64().unwrap());
    }
    for (event, record) in events.iter().zip(&before) {
        let uid = format!("{}:{}", text(&record["rec"]), record["seq"]);
        assert_eq!(event["metadata"]["uid"], json!(uid));
    }
    let exported = world.export_lines("frank", "ocsf", &["--principal", "frank"]);
    classes.extend(exported.iter().map(|event| event["class_uid"].as_i64().unwrap()));
    assert_eq!(classes, schema.classes(), "each class is made of something real");

    // What events say of themselves in the detail is what the document says that they do.
    let document = include_str!("../docs/audit-record.md");
    let actions = document.split("### Actions").nth(1).unwrap().split("### ").next().unwrap();
    for record in world.bastion().records() {
        let Some(detail) = record["detail"].as_object() else { continue };
        let action = format!("`{}`", text(&record["action"]));
        let row = actions.lines().find(|line| line.contains(&action)).unwrap();
        for key in detail.keys() {
            let known =
                ["refusal", "why", "code"].contains(&key.as_str()) || row.contains(&format!("`{key}`"));
            assert!(known, "`{key}` of {action} is not in the document: {record}");
        }
    }
}

#[test]
fn what_one_may_not_read_is_left_out_and_counted() {
    let rule = "@id(\"OWN-RECORDS\")\n@about(\"people read what they did\")\n\
        permit (principal, action == Action::\"replay\", resource) when { context.own };\n";
    let world = World::with_rules(&["alice", "bob", "frank", "olga"], Some(rule));
    let bastion = world.bastion();
    let granted = world.work();
    bastion.grant("olga", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("olga", "ledger-dev", "SELECT 'hers'").success();
    bastion.ended_recording_with("hers");
    let told = bastion.run_as("alice", &["export", "--format", "jsonl"]).success();
    let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|record| record["principal"]["name"] == "alice"), "{lines:?}");
    let records = bastion.records();
    let event = records.iter().find(|record| record["action"] == "audit_exported").unwrap();
    let at = records.iter().position(|record| record == event).unwrap();
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        records[..at].iter().partition(|record| record["principal"]["name"] == "alice");
    assert_eq!((lines.len(), event["detail"]["left_out"].clone()), (own.len(), json!(others.len())));
    let note = format!("{} records; {} records left out: you may not read them", own.len(), others.len());
    assert!(told.stderr.contains(&note), "{}", told.stderr);
    let rows = world.register("alice", "access-register", &[]);
    assert_eq!(
        rows.iter().map(|row| row["session"].as_str()).collect::<Vec<_>>(),
        [granted.session.as_str()]
    );
    world.export("alice", "sql", &["--session", &granted.session]);
    bastion.run_as("olga", &["export", "--format", "sql", "--session", &granted.session]).failure();
    bastion.run_as("olga", &["bundle", &granted.session]).failure().says("refused by policy");
    bastion.run_as("alice", &["bundle", &granted.session]).success().says("sallyport bundle v1");
}

#[test]
fn a_bundle_over_the_api_proves_itself_and_an_altered_log_is_not_exported() {
    let mut world = World::start(&["alice", "frank"]);
    let granted = world.work();
    let bastion = world.bastion();
    let file = bastion.scratch().join("bundle");
    bastion.run_as("frank", &["bundle", &granted.session, "-o", file.to_str().unwrap()]).success();
    let key = bastion.verify_key();
    let verify = ["audit", "verify", file.to_str().unwrap(), "--key", key.to_str().unwrap()];
    bastion.operator(&verify).success().says(&granted.session);
    let bundle = fs::read_to_string(&file).unwrap();
    assert!(bundle.contains("CREATE TABLE t") && bundle.contains("audit_exported"), "{bundle}");
    assert_eq!(exports(bastion), [json!(["frank", "bundle", "done", 0, 0])]);
    let unknown = bastion.run_as("frank", &["bundle", "ses-0000000000000000"]).failure();
    assert_eq!(unknown.code(), 4);

    world.hosts.bastion.stop().success();
    let bastion = world.bastion();
    let dir = bastion.audit_dir();
    let log = dir.join("journal-00000001.log");
    let export = |format: &str| {
        bastion.operator(&["audit", "export", "--format", format, "--audit-dir", dir.to_str().unwrap()])
    };
    for format in ["jsonl", "ocsf", "access-register", "break-glass-register", "revocation-latency"] {
        export(format).success();
    }
    let whole = fs::read(&log).unwrap();
    let at = whole.windows(12).position(|bytes| bytes == b"CREATE TABLE").unwrap();
    let mut altered = whole.clone();
    altered[at..at + 6].copy_from_slice(b"ALTER ");
    fs::write(&log, &altered).unwrap();
    for format in ["jsonl", "ocsf", "access-register", "revocation-latency"] {
        let refused = export(format).failure();
        assert_eq!(refused.code(), 10, "{refused:?}");
        refused.says("the log is damaged at record");
    }
    let out = bastion.scratch().join("none");
    let arguments = ["audit", "export", "--format", "jsonl", "--audit-dir", dir.to_str().unwrap(), "-o"];
    bastion.operator(&[&arguments[..], &[out.to_str().unwrap()]].concat()).failure();
    assert!(!out.exists(), "no half of an export stays");
}
