//! Registers: who had access to what, and how fast it ended.

use serde_json::json;

use crate::support::Bastion;
use crate::support::bastion::Granted;
use crate::support::sshd::{ACCESS, HOST};
use crate::world::{FORMULA, World};

#[test]
fn registers_tell_who_had_access_to_what_and_how_fast_it_ended() {
    let world = World::start(&["alice", "bob", "carol", "erin", "frank", "olga"]);
    let bastion = world.bastion();
    let work = world.work();
    let terminal = world.at_host();
    let broken = bastion.break_glass("ledger-prod");
    let prod = bastion.grant_prod("readonly");
    let nap = bastion.psql_sleeping(&world.postgres, "alice", "ledger-prod");
    let ask = bastion.ask("alice", "ledger-prod", "dba", 600);
    bastion.run_as("bob", &["deny", &ask, "--why", "no"]).success();
    bastion.run_as("erin", &["revoke", &prod.session, "--why=-1 leaves"]).success();
    nap.finish();
    bastion.run_as("erin", &["block", "olga", "--why", "=leaving"]).success();

    accesses(&world, &work, &prod, &broken);
    latencies(&world, &prod);

    // A terminal, through the same command as through replay.
    let cast = world.export("frank", "asciicast", &["--connection", &terminal]);
    assert!(cast.starts_with("{\"version\":2") && cast.contains("shown"), "{cast}");
    assert_eq!(
        cast,
        bastion.run_as("frank", &["replay", &terminal, "--format", "asciicast"]).success().stdout
    );
}

fn accesses(world: &World, work: &Granted, prod: &Granted, broken: &Granted) {
    let bastion: &Bastion = world.bastion();
    let rows = world.register("frank", "access-register", &[]);
    assert_eq!(rows.len(), 4, "{rows:?}");
    let row = |session: &str| rows.iter().find(|row| row["session"] == session).unwrap();
    let done = row(&work.session);
    let cells =
        ["principal", "target", "access", "environment", "break_glass", "ticket", "ended_at", "connections"];
    assert_eq!(
        cells.map(|cell| done[cell].as_str()),
        ["alice", "ledger-dev", "dba", "dev", "false", "'+1", "", "2"]
    );
    assert_eq!(done["reason"], format!("'{FORMULA}"), "a formula is text");
    assert_eq!(done["statements"], "10");
    assert_eq!(done["request"], work.request);
    let revoked = row(&prod.session);
    assert_eq!(["ended_by", "end_reason"].map(|cell| revoked[cell].as_str()), ["erin", "'-1 leaves"]);
    let approvals: Vec<&str> = revoked["approvals"].split("; ").collect();
    assert!(
        approvals.len() == 2
            && approvals[0].starts_with("bob (bank-core) ")
            && approvals[1].starts_with("carol (bank-core) "),
        "{approvals:?}"
    );
    let session = bastion.session("alice", &prod.session);
    for cell in ["granted_at", "ends_at"] {
        assert_eq!(json!(revoked[cell]), session[cell]);
    }
    let of_host = rows.iter().find(|row| row["target"] == HOST).unwrap();
    assert_eq!((of_host["channels"].as_str(), of_host["access"].as_str()), ("3", ACCESS), "{of_host:?}");

    let broken_rows = world.register("frank", "break-glass-register", &[]);
    assert_eq!(broken_rows.len(), 1);
    assert_eq!(
        ["session", "principal", "reason", "break_glass", "approvals"]
            .map(|cell| broken_rows[0][cell].as_str()),
        [&broken.session, "olga", "the ledger is down", "true", ""]
    );
    for (rest, count) in [
        (["--principal", "olga"], 1),
        (["--target", "ledger-prod"], 2),
        (["--session", work.session.as_str()], 1),
        (["--from", "2030-01-01"], 0),
    ] {
        assert_eq!(world.register("frank", "access-register", &rest).len(), count, "{rest:?}");
    }
}

fn latencies(world: &World, prod: &Granted) {
    let bastion = world.bastion();
    let cuts = world.register("frank", "revocation-latency", &[]);
    assert_eq!(cuts.len(), 2, "{cuts:?}");
    let cut = &cuts[0];
    assert_eq!(
        ["cause", "by", "why", "session", "principal", "target", "connection_end"]
            .map(|cell| cut[cell].as_str()),
        ["revoked", "erin", "'-1 leaves", &prod.session, "alice", "ledger-prod", "revoked"]
    );
    let recorded = bastion.recording(&cut["connection"]);
    assert_eq!(json!(cut["connection_ended_at"]), recorded.last().unwrap()["at"]);
    let event = &bastion.events("session_revoked")[0];
    assert_eq!(json!(cut["decided_at"]), event["at"]);
    let micros = |cell: &str| {
        let at: sallyport::domain::time::Timestamp = cut[cell].parse().unwrap();
        at.as_micros()
    };
    for (cell, end) in [
        ("connection_latency_ms", "connection_ended_at"),
        ("credential_latency_ms", "credential_destroyed_at"),
    ] {
        let latency: f64 = cut[cell].parse().unwrap();
        let expected = f64::from(i32::try_from(micros(end) - micros("decided_at")).unwrap()) / 1000.0;
        assert!((latency - expected).abs() < 0.0005 && latency >= 0.0, "{cut:?}");
    }
    assert_eq!(cuts[1]["cause"], "blocked");
    assert_eq!(
        ["connection", "why", "principal"].map(|cell| cuts[1][cell].as_str()),
        ["", "'=leaving", "olga"]
    );
}
