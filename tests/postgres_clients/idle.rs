//! Who says nothing for too long is told so, but not while the target is at work for them.

use crate::support::process::Running;
use crate::support::wire::Wire;
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

    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    bastion.advance(61);
    let (sqlstate, said, _) = wire.last_words();
    assert_eq!(sqlstate, "57P05", "{said}");
    bastion.verify().success();
}
