//! Who says nothing for too long is told so, but not while the target is at work for them.

use super::protocol::{bind, execute, parse};
use crate::support::process::Running;
use crate::support::wire::{Wire, query};
use crate::support::{Bastion, Options, Postgres, wait_until};

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";

#[test]
fn a_statement_that_takes_its_time_is_not_idle() {
    let postgres = Postgres::start();
    let settings = vec![("postgres", "idle_timeout = \"60s\"".to_owned())];
    let bastion = Bastion::start_for(&postgres, Options { settings, ..Options::default() }, &["alice"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    let takes = "SELECT pg_advisory_lock(7); SELECT pg_sleep(600)";
    let holder = Running::start_quietly(postgres.client("psql", "ledger").args(["-c", takes]));
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    wait_until("the lock is held", || postgres.value("ledger", held) == "1");
    let work = ["-Atc", "SELECT 'done' FROM pg_advisory_lock(7)"];
    let client = Running::start_quietly(&mut bastion.psql_command("alice", "ledger-dev", &work));
    wait_until("the target is at work", || postgres.value("ledger", WAITING) == "1");
    for _ in 0..3 {
        bastion.advance(61);
    }
    assert_eq!(postgres.value("ledger", WAITING), "1");
    holder.signal(rustix::process::Signal::KILL);
    postgres
        .query(
            "ledger",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        )
        .success();
    assert_eq!(client.finish().success().stdout, "done\n");

    // Nor is it a client's work that the target waits for: the end of a batch, or what is to be copied.
    let left = [parse("", "SELECT 1"), bind("", "", &[], 0), execute("", 0)].concat();
    for left in [Vec::new(), left, query("COPY accounts FROM STDIN")] {
        let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
        if !left.is_empty() {
            wire.send(&left);
            wait_until("it is recorded", || bastion.statements().iter().any(|one| is_of(one, &left)));
        }
        if left.starts_with(b"Q") {
            wire.until(b'G');
        }
        bastion.advance(61);
        let (sqlstate, said, _) = wire.last_words();
        assert_eq!(sqlstate, "57P05", "{said}");
    }
    // Nor a result that is not read.
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&query("SELECT repeat('x', 100000) FROM generate_series(1, 10000)"));
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    wait_until("it is stuck", || postgres.value("ledger", stuck) == "1");
    let ended = || {
        let is_idle = |record: &serde_json::Value| record["reason"]["end"] == "idle";
        bastion.records().iter().filter(|record| is_idle(record)).count()
    };
    assert_eq!(ended(), 3);
    bastion.advance(61);
    wait_until("it is ended", || ended() == 4);
    bastion.verify().success();
}

/// Whether it is the record of one of these messages.
fn is_of(statement: &serde_json::Value, messages: &[u8]) -> bool {
    let sql = statement["sql"].as_str().unwrap_or_default();
    !sql.is_empty() && messages.windows(sql.len()).any(|found| found == sql.as_bytes())
}
