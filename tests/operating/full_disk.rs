//! The audit log's disk is full: nothing goes on unrecorded, and it goes on when there is room.

use std::collections::BTreeSet;
use std::fs;

use crate::support::disk::Disk;
use crate::support::{Bastion, Finished, Postgres};

fn marks(text: &str) -> BTreeSet<String> {
    text.split("<mark-").skip(1).map(|rest| rest.split('>').next().unwrap().to_owned()).collect()
}

#[test]
fn a_full_disk_cuts_connections_before_anything_goes_unrecorded() {
    let Some(disk) = Disk::new(5 * 1024) else {
        // Neither root nor namespaces: there is no way to fill a disk of one's own.
        eprintln!("skipped: no disk may be mounted here");
        return;
    };
    let options = crate::audit_on(disk.path(), &disk.outside(), disk.wrapper());
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let mut bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let (mut bystander, _) = crate::Wire::session(&bastion, "alice", "ledger-dev");

    let script = bastion.scratch().join("script");
    let padding = "x".repeat(20_000);
    let lines: Vec<_> = (0..500).map(|n| format!("SELECT '<mark-{n}>' /* {padding} */;\n")).collect();
    fs::write(&script, lines.concat()).unwrap();
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-v", "VERBOSITY=verbose"]);
    let cut: Finished = psql.arg("-f").arg(&script).output().unwrap().into();
    let cut = cut.failure();
    assert!(cut.stderr.contains("58030"), "{}", cut.stderr);
    assert!(cut.stderr.contains("can no longer be recorded"), "{}", cut.stderr);
    assert_eq!(bystander.last_words().0, "58030", "those who only wait are cut as well");

    // The server's own log is the witness.
    let executed = marks(&postgres.log());
    let recorded: BTreeSet<String> =
        bastion.statements().iter().flat_map(|one| marks(one["sql"].as_str().unwrap())).collect();
    assert!(executed.len() > 50, "{} statements fit", executed.len());
    assert!(executed.len() < 500);
    let unrecorded: Vec<_> = executed.difference(&recorded).collect();
    assert!(unrecorded.is_empty(), "{unrecorded:?}");

    is_refused(&bastion, &["No space left on device"]);
    // The log is whole as far as it goes, with the ends of what was cut.
    let verified = bastion.verify().success();
    assert!(verified.stdout.contains("0 without an end"), "{}", verified.stdout);
    let stopped = bastion.stop().failure();
    assert_ne!(stopped.code(), 101, "its stop cannot be recorded, which is no panic");

    disk.resize(64 * 1024);
    bastion.boot();
    let mut psql = bastion.client("psql", "alice", "ledger-dev+dba");
    let goes_on: Finished = psql.args(["-XAtqc", "SELECT 'goes on'"]).output().unwrap().into();
    assert_eq!(goes_on.success().stdout, "goes on\n");
    // What was changed and reported as not recorded is recorded now.
    let mut outcomes: Vec<_> =
        bastion.events("block_added").iter().map(|event| event["outcome"].clone()).collect();
    outcomes.sort_by_key(ToString::to_string);
    assert_eq!(outcomes, ["done", "refused"], "both what was done and what was answered");
    assert_eq!(crate::ready(&bastion).0, 200);
    bastion.ask("alice", "ledger-uat", "readonly", 60);
    bastion.stop().success();
    let verified = bastion.verify().success();
    assert!(verified.stdout.contains("0 without an end"), "{}", verified.stdout);
}

/// Nothing is let in, nothing is changed silently, and it is said why: one of these.
pub(crate) fn is_refused(bastion: &Bastion, why: &[&str]) {
    let (sqlstate, message, hint) = crate::refusal(bastion, "ledger-dev");
    assert_eq!(sqlstate, "58030");
    assert!(message.contains("cannot record this connection"), "{message}");
    assert!(hint.contains("Tell the operator"), "{hint}");
    let (status, body) = crate::ready(bastion);
    assert_eq!(status, 503);
    let failed: Vec<_> =
        body["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert_eq!(failed.len(), 1, "{body}");
    assert_eq!(failed[0]["name"], "journal");
    assert_eq!(bastion.api(None, "GET", "/healthz", None).0, 200);
    let arguments = ["request", "ledger-dev", "readonly", "--for", "60s", "--reason", "a test"];
    let asked = bastion.run_as("alice", &arguments).failure();
    assert!(asked.stderr.contains("cannot record"), "{}", asked.stderr);
    let blocked = bastion.run_as("erin", &["block", "kim", "--why", "a test"]).failure();
    assert!(blocked.stderr.contains("cannot record"), "{}", blocked.stderr);
    let log = bastion.log();
    assert!(why.iter().any(|why| log.contains(why)), "the operator is told why, one of {why:?}: {log}");
}
