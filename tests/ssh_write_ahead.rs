//! G1 for SSH: nothing reaches a host that is not in the record first, wherever the server is killed.
//!
//! People type into a terminal whose program keeps every byte, feed a command and upload files, while the
//! server is killed (SIGKILL) at random moments and started again. Afterwards the host has no byte that
//! the record does not have. A killed process loses what it had not given to the kernel, so a byte
//! that was forwarded before its record was written would be missing.

mod support;

use std::time::Duration;

use support::load::Moments;
use support::process::pause_for;
use support::typists::{Effort, Typed, Typists};
use support::{Hosts, Options};

const KILLS: u32 = 8;
const SEED: u64 = 0x5a11_7000;

#[test]
fn whatever_reached_the_host_is_in_the_record_wherever_the_server_is_killed() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice", "erin"]);
    hosts.grant();
    let mut people = Typists::start(&hosts, Effort { rest: 2, words: 100_000, uploads: 20 });
    let mut moments = Moments(SEED);
    for kill in 1..=KILLS {
        people.are_at_work(100_000);
        pause_for(Duration::from_millis(50 + moments.next() % 1000));
        hosts.bastion.kill();
        hosts.bastion.boot();
        hosts.bastion.verify().success();
        println!("kill {kill} of {KILLS}: {} bytes have reached the host", people.kept_bytes());
    }
    people.stop();
    let mut typed = Typed::default();
    hosts.bastion.each_record(|record| typed.take(&record));
    typed.has_all_of(&people);
    hosts.bastion.verify().success();
}
