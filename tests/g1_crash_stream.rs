//! G1, GOV-006: wherever the server is killed under the load of both protocols, nothing has reached a target that is not
//! on record, every recording has its end, and the stream's archive is the journal to the byte.
//!
//! 1. Clients of a database and people at a host are at work, through one server, and do not stop.
//! 2. It is killed (SIGKILL) at a random moment, sometimes once more while it starts, and started again; its log goes to
//!    Amazon Kinesis through a proxy that loses, doubles and refuses.
//! 3. At the end the database's own log and the host's files are compared with the record, and the record with the archive.
//!
//! `SALLYPORT_TEST_KILLS` says how often.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use support::amazon::{Emulator, FaultProxy, Faults};
use support::archive::{STREAM, alarms, assert_archived, consume, streaming};
use support::load::{Load, Moments, Recorded};
use support::process::{pause_for, wait_for};
use support::typists::{Effort, Typed, Typists};
use support::{Bastion, Hosts, Postgres, wait_until};

const SEED: u64 = 0x5a11_7004;
/// What the proxy does to requests, in percent.
const FAULTS: Faults = Faults { down: false, partial: 20, throttled: 10, unheard: 10, doubled: 10 };
/// How often the log is verified, and the stream read, while all go on.
const LOOKS: usize = 2;

/// Nobody is heard of while the server is down.
const PATIENT: [&str; 4] = ["--silent-after", "1h", "--gap-after", "1h"];

fn kills() -> usize {
    std::env::var("SALLYPORT_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

#[test]
fn whenever_it_is_killed_the_record_has_all_that_was_done_and_the_archive_all_that_is_recorded() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 3);
    let proxy = FaultProxy::before(&amazon, SEED);
    proxy.set(FAULTS);
    let mut hosts = Hosts::start_beside(&postgres, streaming(&proxy.url(), &[]), &["alice", "erin"]);
    hosts.grant();
    hosts.bastion.ask("alice", "ledger-dev", "readonly", 7200);
    let mut load = Load::start(&hosts.bastion, Duration::from_millis(20));
    let mut people = Typists::start(&hosts, Effort { rest: 20, words: 2000, uploads: 3 });
    let (mut moments, kills, mut in_its_start) = (Moments(SEED), kills(), 0);
    for kill in 1..=kills {
        load.is_at_work();
        people.are_at_work(1000);
        in_its_start += kill_somewhen(&mut hosts.bastion, &mut moments);
        hosts.bastion.boot();
        if kill.is_multiple_of(kills.div_ceil(LOOKS)) {
            hosts.bastion.verify().success();
            read_amid_it_all(&amazon, &hosts.bastion);
        }
        println!(
            "kill {kill} of {kills}: {} statements answered, {} bytes have reached the host, the stream lacks {} records",
            load.answered(),
            people.kept_bytes(),
            hosts.bastion.metric("sallyport_stream_backlog_records")
        );
    }
    people.stop();
    load.stop(&postgres);
    proxy.set(Faults::default());
    all_is_sent(&hosts.bastion);
    assert_eq!(hosts.bastion.stop().code(), 0);

    let (mut recorded, mut typed) = (Recorded::default(), Typed::default());
    hosts.bastion.each_record(|record| {
        recorded.take(&record);
        typed.take(&record);
    });
    recorded.has_all_of(&postgres, &load, 1);
    typed.has_all_of(&people);
    assert!(recorded.all_have_ended() >= kills, "connections were open when it was killed");
    hosts.bastion.verify().success();

    let (spoiled, passed) = proxy.counts();
    println!(
        "kills while it started: {in_its_start}; requests to the stream: {spoiled} spoiled, {passed} not"
    );
    assert!(spoiled > 10, "{spoiled} requests were spoiled");
    let key = hosts.bastion.verify_key();
    let archive = archive(&hosts.bastion);
    let consumed = consume(&amazon, STREAM, &archive, &key, &PATIENT).success();
    assert_eq!(alarms(&consumed), BTreeSet::new(), "{}", consumed.stdout);
    assert_archived(&hosts.bastion, &archive);
}

/// While records are written, what comes late or twice is no alarm, and reading comes to an end.
fn read_amid_it_all(amazon: &Emulator, bastion: &Bastion) {
    wait_until("the stream is read", || {
        let consumed = consume(amazon, STREAM, &archive(bastion), &bastion.verify_key(), &PATIENT);
        assert_eq!(alarms(&consumed), BTreeSet::new(), "{}", consumed.stdout);
        // moto fails where it is read and written at the same moment.
        consumed.status.success()
    });
}

fn archive(bastion: &Bastion) -> PathBuf {
    bastion.scratch().join("archive")
}

/// SIGKILL at a random moment, and in one of three cases again while it starts. Gives how often that was.
fn kill_somewhen(bastion: &mut Bastion, moments: &mut Moments) -> usize {
    pause_for(Duration::from_millis(moments.next() % 500));
    bastion.kill();
    let mut again = 0;
    while moments.next().is_multiple_of(3) {
        bastion.spawn("/nonexistent".as_ref());
        pause_for(Duration::from_millis(moments.next() % 600));
        bastion.kill();
        again += 1;
    }
    again
}

/// Waits until the stream has all that is recorded, as long as there is progress.
fn all_is_sent(bastion: &Bastion) {
    let behind = || bastion.metric("sallyport_stream_backlog_records");
    loop {
        let before = behind();
        if before == 0.0 {
            return;
        }
        // An emulator that is busy with what it was sent twice answers late, and is then sent it once more.
        wait_for("the stream takes more", Duration::from_mins(3), || behind() < before);
    }
}
