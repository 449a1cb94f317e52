//! G1: nothing reaches a target that is not in the record first, wherever the server is killed.
//!
//! Clients run distinguishable statements while the server is killed (SIGKILL) at random moments and
//! started again. Afterwards everything in the target's own log of statements must be in the audit log.
//! A killed process loses what it had not given to the kernel, so a statement that was forwarded
//! before its record was written would be missing.

mod support;

use std::time::Duration;

use support::load::{Load, Moments, Recorded};
use support::process::pause_for;
use support::{Bastion, Options, Postgres};

const KILLS: usize = 12;
const SEED: u64 = 0x5a11_7000;

#[test]
fn whatever_reached_the_target_is_in_the_record_wherever_the_server_is_killed() {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    let mut load = Load::start(&bastion, Duration::ZERO);
    let mut moments = Moments(SEED);
    for kill in 1..=KILLS {
        load.is_at_work();
        pause_for(Duration::from_millis(50 + moments.next() % 1000));
        bastion.kill();
        bastion.boot();
        bastion.verify().success();
        println!("kill {kill} of {KILLS}: {} statements answered", load.answered());
    }
    load.stop(&postgres);
    assert_eq!(bastion.stop().code(), 0);

    let mut recorded = Recorded::default();
    bastion.each_record(|record| recorded.take(&record));
    recorded.has_all_of(&postgres, &load, 100);
    assert!(recorded.all_have_ended() >= KILLS, "connections were open when it was killed");
    bastion.verify().success();
}
