//! What no well-behaved client does: a clear refusal, nothing reaches the target, nothing is left
//! behind, and everybody else is served as before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::format_push_string,
    reason = "a test fails by panicking, and tells its story in one piece"
)]

#[path = "hostile_input/disconnects.rs"]
mod disconnects;
#[path = "hostile_input/identity.rs"]
mod identity;
#[path = "hostile_input/messages.rs"]
mod messages;
mod support;

use serde_json::Value;
use support::{Bastion, Options, Postgres, wait_until};

/// Alice, who may read and write in the development database; erin, who administers.
fn start(options: Options) -> (Postgres, Bastion) {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    (postgres, bastion)
}

/// Connections that the gateway believes are up.
fn live(bastion: &Bastion) -> usize {
    let (status, body) = bastion.api(Some("erin"), "GET", "/pam/connections", None);
    assert_eq!(status, 200, "{body}");
    body["items"].as_array().unwrap_or_else(|| panic!("{body}")).len()
}

/// How connections ended, in order.
fn ends(bastion: &Bastion) -> Vec<Value> {
    bastion.records().into_iter().filter(|record| record["kind"] == "ended").collect()
}

/// Everybody else is served as before, and nothing is left behind.
#[track_caller]
fn is_unharmed(bastion: &Bastion, postgres: &Postgres) {
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 'served'").success().stdout, "served\n");
    assert_eq!(bastion.api(None, "GET", "/readyz", None).0, 200);
    wait_until("no connection is live", || live(bastion) == 0);
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'";
    wait_until("no backend is left", || postgres.value("postgres", backends) == "0");
    assert!(!bastion.log().contains("panicked"), "{}", bastion.log());
    bastion.verify().success();
}

/// Everything until the peer closes; a reset is an end, too.
fn read_to_end(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error stays in `bytes`.
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let kind = error.kind();
        assert!(
            !matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "the peer keeps the connection open"
        );
    }
    bytes
}
