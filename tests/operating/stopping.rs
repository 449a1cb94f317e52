//! SIGTERM: nothing new, time for what is there, then a clear word and the end.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::support::process::PATIENCE;
use crate::support::wire::{self, Wire};
use crate::support::{Bastion, Options, wait_until};

fn draining(seconds: u32) -> Options {
    let setting = format!("drain_timeout = \"{seconds}s\"");
    Options { settings: vec![("server", setting)], ..Options::default() }
}

/// Nobody new is accepted; returns once that is so.
fn wait_for_drain(bastion: &Bastion) {
    wait_until("nothing new is accepted", || {
        std::net::TcpStream::connect(("127.0.0.1", bastion.postgres_port)).is_err()
    });
}

#[track_caller]
fn ended_cleanly(mut bastion: Bastion) {
    bastion.ended().success();
    let verified = bastion.verify().success();
    assert!(verified.stdout.contains("0 without an end"), "{}", verified.stdout);
    assert_eq!(bastion.events("node_stopped").len(), 1);
    assert!(!bastion.log().contains("panicked"), "{}", bastion.log());
}

#[test]
fn what_is_under_way_may_finish_while_nothing_new_is_let_in() {
    let (_postgres, bastion) = crate::start(draining(3600));
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    // Somebody who is halfway in.
    let mut halfway = Wire::connect(&bastion);
    halfway.send(&wire::startup(wire::VERSION_3_0, &[("user", "alice+ledger-dev")]));
    halfway.until(b'R');
    bastion.signal(Signal::TERM);
    wait_for_drain(&bastion);
    bastion.psql("alice", "ledger-dev", "SELECT 1").failure().says("Connection refused");
    let (_, _, last) = halfway.scram(&bastion.token("alice"));
    halfway.send(&last);
    let (sqlstate, message, _) = halfway.last_words();
    assert_eq!((sqlstate.as_str(), message.as_str()), ("57P03", "the gateway is shutting down"));
    // Those inside go on, and can still be revoked.
    wire.send(&wire::query("SELECT 'goes on'"));
    assert!(wire.until(b'D').ends_with(b"goes on"));
    wire.until(b'Z');
    assert_eq!(bastion.api(Some("erin"), "GET", "/pam/connections", None).0, 200);
    wire.send(&wire::message(b'X', b""));
    wire.is_closed();
    ended_cleanly(bastion);
}

#[test]
fn what_has_not_finished_in_time_is_cut_and_told_why() {
    let (postgres, bastion) = crate::start(draining(1));
    let (mut idle, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let busy = bastion.psql_sleeping(&postgres, "alice", "ledger-dev");
    bastion.signal(Signal::TERM);
    let (sqlstate, message, _) = idle.last_words();
    assert_eq!((sqlstate.as_str(), message.as_str()), ("57P01", "the gateway is shutting down"));
    busy.finish().failure().says("the gateway is shutting down");
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("the statement does not run on", || postgres.value("postgres", asleep) == "0");
    let ends =
        || -> Vec<_> { bastion.records().into_iter().filter(|record| record["kind"] == "ended").collect() };
    wait_until("both ends are recorded", || ends().len() == 2);
    assert!(ends().iter().all(|end| end["reason"]["end"] == "shutdown"), "{:?}", ends());
    ended_cleanly(bastion);
}

#[test]
fn a_second_signal_cuts_at_once() {
    let (_postgres, bastion) = crate::start(draining(3600));
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    bastion.signal(Signal::TERM);
    wait_for_drain(&bastion);
    wire.send(&wire::query("SELECT 'still here'"));
    assert!(wire.until(b'D').ends_with(b"still here"));
    wire.until(b'Z');
    bastion.signal(Signal::TERM);
    assert_eq!(wire.last_words().1, "the gateway is shutting down");
    ended_cleanly(bastion);
}

#[test]
fn systemd_is_told_of_the_start_and_of_the_stop() {
    let (_postgres, mut bastion) = crate::start(Options::default());
    bastion.stop().success();
    let path = bastion.scratch().join("systemd");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    bastion.spawn(&path);
    let receive = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    assert!(receive().contains("READY=1"));
    // Ready means that it serves.
    assert_eq!(crate::ready(&bastion).0, 200);
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    bastion.signal(Signal::TERM);
    assert!(receive().contains("STOPPING=1"));
    ended_after_two_starts(bastion);
}

fn ended_after_two_starts(mut bastion: Bastion) {
    bastion.ended().success();
    assert_eq!(bastion.events("node_started").len(), 2);
    assert_eq!(bastion.events("node_stopped").len(), 2);
    let repaired: Vec<_> =
        bastion.events("node_started").iter().map(|event| event["detail"]["repaired"].clone()).collect();
    assert_eq!(repaired, [false, false], "a clean stop leaves nothing to repair");
    bastion.verify().success();
}
