//! Cancel requests: which come on connections of their own.

use std::io::Write as _;
use std::path::Path;

use rustix::process::Signal;

use crate::support::bastion::{ADMIN_DIR, target};
use crate::support::wire::{self, Wire};
use crate::support::{Bastion, Options, Postgres, wait_until};

fn at_work(postgres: &Postgres) -> bool {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'";
    postgres.value("postgres", sql) == "1"
}

fn cancels(bastion: &Bastion) -> usize {
    bastion.records().iter().filter(|record| record["kind"] == "cancel").count()
}

#[test]
fn ctrl_c_in_psql_cancels_the_statement_and_is_recorded() {
    let (postgres, bastion) = crate::dba();
    ctrl_c_cancels(&postgres, &bastion, "ledger-dev");
}

/// With the server's long keys, where it has such.
#[test]
fn the_target_may_be_asked_for_a_newer_protocol() {
    let postgres = Postgres::start();
    let entry = target("newer-dev", "dev", "bank-core", &postgres, Path::new(ADMIN_DIR));
    let targets = entry.replace("databases =", "protocol = \"3.2\"\ndatabases =");
    let bastion = Bastion::start_for(&postgres, Options { targets, ..Options::default() }, &["alice"]);
    bastion.ask("alice", "newer-dev", "dba", 3600);
    ctrl_c_cancels(&postgres, &bastion, "newer-dev");
}

fn ctrl_c_cancels(postgres: &Postgres, bastion: &Bastion, target: &str) {
    let mut psql = bastion.psql_command("alice", target, &[]);
    psql.args(["-v", "VERBOSITY=verbose", "-c", "SELECT pg_sleep(600)"]);
    let running = crate::support::process::Running::start_quietly(&mut psql);
    wait_until("the target is at work", || at_work(postgres));
    running.signal(Signal::INT);
    let ended = running.finish().failure();
    assert!(ended.stderr.contains("57014"), "{}", ended.stderr);
    assert!(ended.stderr.contains("canceling statement due to user request"), "{}", ended.stderr);
    assert_eq!(cancels(bastion), 1);
    assert!(!at_work(postgres));
    let ends = bastion.records();
    let end = ends.iter().find(|record| record["kind"] == "statement_end").unwrap();
    assert_eq!(end["outcome"], "cancelled", "{end}");
}

#[test]
fn a_cancel_request_needs_the_right_key_and_the_connection_goes_on() {
    let (postgres, bastion) = crate::dba();
    let (mut wire, key) = Wire::session(&bastion, "alice", "ledger-dev");
    let process = u32::from_be_bytes(key[..4].try_into().unwrap());
    let key = &key[4..];
    assert_eq!(key.len(), 4, "protocol 3.0 has keys of four bytes");
    let real = postgres.value("postgres", "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'sp\\_%'");
    assert_ne!(process.to_string(), real, "the target's own key is not given out");

    wire.send(&wire::query("SELECT pg_sleep(600)"));
    wait_until("the target is at work", || at_work(&postgres));
    let wrong: Vec<u8> = key.iter().map(|byte| byte ^ 1).collect();
    let requests = [
        wire::cancel_request(process, &wrong),
        wire::cancel_request(process ^ 1, key),
        wire::cancel_request(process, &[key, key].concat()),
        wire::cancel_request(real.parse().unwrap(), key),
    ];
    for request in requests {
        // In clear, as libpq before version 17 does; it is answered by the connection's end alone.
        let mut stream = wire::tcp(&bastion);
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(answer.is_empty());
    }
    assert!(at_work(&postgres));
    assert_eq!(cancels(&bastion), 0);

    // Inside TLS, as libpq 17 does.
    let mut other = Wire::connect(&bastion);
    other.send(&wire::cancel_request(process, key));
    // libpq takes an end without TLS's own for a failure; and when it comes, the target has been told.
    other.ends_well();
    assert_eq!(cancels(&bastion), 1);
    let (sqlstate, ..) = loop {
        match wire.receive() {
            Some((b'E', body)) => break wire::error(Some((b'E', body))),
            Some(_) => {}
            None => panic!("the connection ended"),
        }
    };
    assert_eq!(sqlstate, "57014");
    wire.until(b'Z');
    assert_eq!(cancels(&bastion), 1);
    wire.send(&wire::query("SELECT 42"));
    assert!(wire.until(b'D').ends_with(b"42"));
    wire.until(b'Z');

    // The key is worth nothing once its connection has ended.
    wire.send(&wire::message(b'X', b""));
    wire.is_closed();
    let ended = || bastion.records().iter().any(|record| record["kind"] == "ended");
    wait_until("the connection's end is recorded", ended);
    let mut late = Wire::connect(&bastion);
    late.send(&wire::cancel_request(process, key));
    late.is_closed();
    assert_eq!(cancels(&bastion), 1);
}
