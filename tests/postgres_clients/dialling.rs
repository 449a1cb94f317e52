//! The target is dialled while the session's credential is made, which may take longer than a server waits for a login.

use crate::support::process::Running;
use crate::support::{Bastion, Options, Postgres, wait_until};

#[test]
fn a_server_that_gave_up_waiting_for_the_credential_is_dialled_again() {
    let postgres = Postgres::start_with(&["authentication_timeout=1"]);
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.grant("alice", "ledger-dev", "dba", 3600, &[]);
    // Nobody can make a role meanwhile.
    let lock = "BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE MODE; SELECT pg_sleep(2); COMMIT";
    let locking = Running::start_quietly(postgres.client("psql", "postgres").args(["-c", lock]));
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("roles are locked", || postgres.value("postgres", locked) == "1");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%CREATE ROLE%'";
    let mut psql = bastion.psql_command("alice", "ledger-dev", &["-Atc", "SELECT 'served'"]);
    let client = Running::start_quietly(&mut psql);
    wait_until("the role waits", || postgres.value("postgres", waiting) == "1");
    let served = client.finish().success();
    assert_eq!(served.stdout, "served\n");
    locking.finish().success();
    bastion.verify().success();
}
