//! Clients that go away in the middle, or never come to the point.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::wire::{self, SSL_REQUEST, VERSION_3_0, Wire};
use crate::support::{Bastion, Options, wait_until};

const PAIRS: [(&str, &str); 2] = [("user", "alice+ledger-dev"), ("database", "ledger")];

/// Every prefix, the whole included.
fn prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..=bytes.len()).map(|length| &bytes[..length])
}

/// Inside TLS, with the startup sent and a password asked for.
fn asked(bastion: &Bastion) -> Wire {
    let mut wire = Wire::connect(bastion);
    wire.send(&wire::startup(VERSION_3_0, &PAIRS));
    wire.until(b'R');
    wire
}

#[test]
fn a_client_may_go_away_at_every_byte_of_its_login() {
    let (postgres, bastion) = crate::start(Options::default());
    let token = bastion.token("alice");
    for prefix in prefixes(&SSL_REQUEST) {
        wire::tcp(&bastion).write_all(prefix).unwrap();
    }
    let mut hello = Vec::new();
    wire::tls(&bastion, &[]).write_tls(&mut hello).unwrap();
    for prefix in prefixes(&hello).step_by(7) {
        let mut stream = wire::tcp(&bastion);
        stream.write_all(&[&SSL_REQUEST[..], prefix].concat()).unwrap();
    }
    let startup = wire::startup(VERSION_3_0, &PAIRS);
    for prefix in prefixes(&startup) {
        let mut wire = Wire::connect(&bastion);
        wire.send(prefix);
        wire.cut();
    }
    // The two messages of SCRAM.
    let mut wire = asked(&bastion);
    let (_, first, last) = wire.scram(&token);
    wire.cut();
    for prefix in prefixes(&first) {
        let mut wire = asked(&bastion);
        wire.send(prefix);
        wire.cut();
    }
    for length in (0..=last.len()).step_by(2).chain([last.len()]) {
        let mut wire = asked(&bastion);
        let (_, _, last) = wire.scram(&token);
        wire.send(&last[..length]);
        wire.cut();
    }
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    // In the first message after it, and with an answer on its way.
    for prefix in prefixes(&wire::query("SELECT 'cut'")) {
        let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
        wire.send(prefix);
        wire.cut();
    }
    wait_until("every connection has ended", || crate::live(&bastion) == 0);
    let opened = bastion.records().iter().filter(|record| record["kind"] == "opened").count();
    wait_until("every end is recorded", || crate::ends(&bastion).len() == opened);
    for end in crate::ends(&bastion) {
        assert_eq!(end["reason"]["end"], "client_closed", "{end}");
    }
    let whole = bastion.statements().iter().filter(|one| one["sql"] == "SELECT 'cut'").count();
    assert!(whole <= 1, "a part of a message is no statement");
    crate::is_unharmed(&bastion, &postgres);
    // Nothing is left at the target once the session is over.
    bastion.advance(3601);
    assert!(postgres.session_roles().is_empty(), "{:?}", postgres.session_roles());
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing_at_work() {
    let (postgres, bastion) = crate::start(Options::default());
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    // A statement under way.
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&wire::query("SELECT pg_sleep(600)"));
    wait_until("the target is at work", || postgres.value("postgres", sleeping) == "1");
    wire.cut();
    wait_until("the statement was cancelled", || postgres.value("postgres", sleeping) == "0");
    // A result that is not read.
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&wire::query("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)"));
    wire.until(b'D');
    wire.cut();
    // A COPY under way, a transaction left open, a message without its end.
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&wire::query("COPY accounts FROM STDIN"));
    wire.until(b'G');
    wire.send(&wire::message(b'd', b"1001\tnobody\t1\n"));
    wire.send(b"d\0\0\xff\xff1002\tno");
    wire.cut();
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    wire.send(&wire::query("BEGIN; DELETE FROM accounts"));
    wire.until(b'Z');
    wire.send(b"Q\0\0");
    wire.cut();
    wait_until("every connection has ended", || crate::live(&bastion) == 0);
    assert_eq!(postgres.value("ledger", "SELECT count(*) FROM accounts"), "100");
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn clients_that_never_come_to_the_point_are_closed_and_keep_nobody_out() {
    let settings =
        vec![("postgres", "handshake_timeout = \"1s\"".into()), ("postgres", "max_handshakes = 8".into())];
    let (postgres, bastion) = crate::start(Options { settings, ..Options::default() });
    // Somebody who is in stays in, however little he says.
    let (mut inside, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let begun = Instant::now();
    let mut silent = wire::tcp(&bastion);
    let mut started = wire::tcp(&bastion);
    started.write_all(&SSL_REQUEST[..3]).unwrap();
    let mut in_tls = Wire::connect(&bastion);
    let mut unproved = asked(&bastion);
    assert!(crate::read_to_end(&mut silent).is_empty());
    assert!(crate::read_to_end(&mut started).is_empty());
    in_tls.is_closed();
    unproved.is_closed();
    assert!(begun.elapsed() >= Duration::from_millis(900), "they had their second");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // One byte at a time buys no time.
    let mut dripping = wire::tcp(&bastion);
    dripping.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    let startup = [&SSL_REQUEST[..], &[0x16; 10_000]].concat();
    let mut answer = [0; 16];
    for byte in startup {
        let ended = dripping.write_all(&[byte]).is_err()
            || matches!(std::io::Read::read(&mut dripping, &mut answer), Ok(0));
        if ended {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    // More than there are places: the oldest go at once, the others when their time is up.
    let mut crowd: Vec<_> = (0..8).map(|_| wire::tcp(&bastion)).collect();
    let mut late = wire::tcp(&bastion);
    assert!(crate::read_to_end(&mut late).is_empty());
    assert!(crowd.iter_mut().all(|one| crate::read_to_end(one).is_empty()));
    inside.send(&wire::query("SELECT 'still in'"));
    assert!(inside.until(b'D').ends_with(b"still in"));
    drop(inside);
    crate::is_unharmed(&bastion, &postgres);
}
