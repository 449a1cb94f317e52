//! The main job from end to end: refused, asked, approved, connected, recorded, revoked, replayed,
//! verified. With the real psql and a real server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::format_push_string,
    reason = "a test fails by panicking, and tells its story in one piece"
)]

mod support;

use support::{Bastion, Postgres};

#[test]
fn a_dba_gets_in_under_an_approved_session_and_out_at_its_revocation() {
    let postgres = Postgres::start();
    let bastion = Bastion::start(&postgres);

    let refused = bastion.psql("alice", "ledger-prod", "SELECT 1").failure();
    assert!(refused.stderr.contains("sallyport request ledger-prod"), "{}", refused.stderr);

    let granted = bastion.grant_prod("readonly");
    let rows = bastion.psql("alice", "ledger-prod", "SELECT count(*) FROM accounts").success();
    assert_eq!(rows.stdout.trim(), "100");
    assert_eq!(postgres.session_roles().len(), 1);

    let running = bastion.psql_sleeping(&postgres, "alice", "ledger-prod");
    bastion.run_as("erin", &["revoke", &granted.session, "--why", "incident 42"]).success();
    assert!(postgres.session_roles().is_empty(), "the role is gone when the call returns");
    let cut = running.finish().failure();
    assert!(cut.stderr.contains("revoked by erin: incident 42"), "{}", cut.stderr);
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";
    assert_eq!(postgres.value("postgres", asleep), "0", "the statement does not run on");

    bastion.psql("alice", "ledger-prod", "SELECT 1").failure().says("revoked by erin");

    let statement = &bastion.statements()[0];
    let connection = statement["rec"].as_str().unwrap();
    let replay = bastion.run_as("frank", &["replay", connection]).success();
    assert!(replay.stdout.contains("SELECT count(*) FROM accounts"), "{}", replay.stdout);
    bastion.verify().success();
}
