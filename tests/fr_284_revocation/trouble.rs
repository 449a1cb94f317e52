//! Revocation while clients are connecting, and while the target does not do what it should.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::process::Running;
use crate::support::wire::{self, Wire};
use crate::support::{Bastion, wait_until};

const ROUNDS: usize = 10;
const CLIENTS: usize = 6;

/// Connects as alice, twice in a row; what was let in is kept open.
fn connect(bastion: &Bastion, token: &str, begun: &AtomicUsize) -> Vec<Wire> {
    let mut let_in = Vec::new();
    for _ in 0..2 {
        begun.fetch_add(1, Ordering::Relaxed);
        let mut wire = Wire::connect(bastion);
        if wire.log_in(&[("user", "alice+ledger-dev")], token).is_ok() {
            let_in.push(wire);
        }
    }
    let_in
}

#[test]
fn revocation_amid_connecting_clients_leaves_no_connection_and_no_role() {
    let (postgres, bastion) = crate::start(&["alice", "erin"]);
    let token = bastion.token("alice");
    for round in 0..ROUNDS {
        let session = crate::dev_session(&bastion, "alice", "readonly");
        let begun = AtomicUsize::new(0);
        let let_in: Vec<Wire> = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| connect(&bastion, &token, &begun))).collect();
            wait_until("clients are connecting", || begun.load(Ordering::Relaxed) > round);
            crate::revoke(&bastion, "erin", &session, "a race");
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        for mut wire in let_in {
            wire.is_closed();
        }
        wait_until("nothing is live", || crate::live(&bastion).is_empty());
        assert_eq!(postgres.session_roles(), [""; 0], "round {round}");
        assert_eq!(crate::backends(&postgres), "0", "round {round}");
    }
    assert_eq!(bastion.events("credential_destruction_failed").len(), 0);
    bastion.verify().success();
}

#[test]
fn a_role_that_cannot_be_dropped_is_reported_and_dropped_as_soon_as_it_can_be() {
    let (postgres, bastion) = crate::start(&["alice", "erin"]);
    let session = crate::dev_session(&bastion, "alice", "readonly");
    let running = bastion.psql_sleeping(&postgres, "alice", "ledger-dev");
    let everybody = "hostssl all all 127.0.0.1/32 scram-sha-256";
    postgres.admit(&format!("hostssl all sallyport_admin 127.0.0.1/32 reject\n{everybody}"));

    let said = bastion.run_as("erin", &["revoke", &session, "--why", "incident 42"]).failure();
    assert!(said.stdout.contains(": cut"), "{}", said.stdout);
    assert!(said.stdout.contains("NOT DESTROYED YET, retried until it is"), "{}", said.stdout);
    running.finish().failure().says("revoked by erin: incident 42");
    wait_until("the statement is cancelled all the same", || crate::backends(&postgres) == "0");
    assert_eq!(crate::refusal(&bastion, "alice", "ledger-dev").0, "57P01");
    let again = crate::revoke(&bastion, "erin", &session, "still there?");
    assert_eq!((&again["before"], &again["credential"]["state"]), (&json!(true), &json!("pending")));
    bastion.advance(6);
    assert_eq!(postgres.session_roles().len(), 1);
    assert_eq!(bastion.events("credential_destroyed").len(), 0);

    postgres.admit(everybody);
    bastion.advance(6);
    assert!(postgres.session_roles().is_empty(), "the next try succeeds");
    assert_eq!(bastion.events("credential_destroyed").len(), 1);
    let again = crate::revoke(&bastion, "erin", &session, "and now?");
    assert_eq!(again["credential"]["state"], "none", "{again}");
    bastion.verify().success();
}

#[test]
fn a_destruction_that_hangs_delays_neither_cuts_nor_blocks_nor_other_revocations() {
    let (postgres, bastion) = crate::start(&["alice", "erin", "olga"]);
    let hanging = crate::dev_session(&bastion, "alice", "dba");
    let other = crate::dev_session(&bastion, "olga", "readonly");
    let (mut alice, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut olga, _) = Wire::session(&bastion, "olga", "ledger-dev");
    alice.send(&wire::query("CREATE TABLE held (id int)"));
    alice.until(b'Z');
    let mut locking = postgres.client("psql", "ledger");
    locking.args(["-XAtqc", "BEGIN; LOCK TABLE held; SELECT pg_sleep(600)"]).stdout(Stdio::null());
    let locking = Running::start(&mut locking);
    let locks = |granted: &str| {
        format!("SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND {granted}")
    };
    wait_until("the table is locked", || postgres.value("ledger", &locks("granted")) == "1");

    let arguments = ["revoke", &hanging, "--why", "incident 42", "--block"];
    let mut revoking = Running::start_quietly(&mut bastion.command_as("erin", &arguments));
    assert_eq!(alice.last_words().1, "your session was revoked by erin: incident 42");
    wait_until("the role's objects are waited for", || {
        postgres.value("ledger", &locks("NOT granted")) == "1"
    });
    assert_eq!(bastion.try_ask("alice", "ledger-dev", None).0, 403, "the block is in force already");
    let answer = crate::revoke(&bastion, "erin", &other, "incident 43");
    assert_eq!(answer["credential"]["state"], "destroyed", "{answer}");
    assert_eq!(olga.last_words().1, "your session was revoked by erin: incident 43");
    assert!(revoking.is_running(), "nothing of this waited for the one that hangs");

    postgres
        .value("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE held%' AND pid <> pg_backend_pid()");
    drop(locking);
    revoking.finish().success().says(": destroyed");
    assert!(postgres.session_roles().is_empty());
    assert_eq!(
        postgres.value("ledger", "SELECT relowner::regrole FROM pg_class WHERE relname = 'held'"),
        "ledger_owner"
    );
    bastion.verify().success();
}
