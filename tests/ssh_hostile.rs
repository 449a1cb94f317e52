//! Peers of the SSH gateway that keep to no rule: what they get is a closed connection, and nobody else
//! notices them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "ssh_hostile/algorithms.rs"]
mod algorithms;
#[path = "ssh_hostile/floods.rs"]
mod floods;
#[path = "ssh_hostile/proofs.rs"]
mod proofs;
#[path = "ssh_hostile/strangers.rs"]
mod strangers;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use support::amazon::python;
use support::process::PATIENCE;
use support::sshd::HOST;
use support::{Bastion, Finished, Hosts};

/// What the server answered to a peer that misbehaves after the key exchange.
#[derive(Debug)]
struct Answers {
    /// How many of each message.
    messages: BTreeMap<u8, usize>,
    closed: bool,
}

impl Answers {
    fn of(&self, message: u8) -> usize {
        self.messages.get(&message).copied().unwrap_or_default()
    }
}

/// Runs `peer.py` as alice, with bob's key for what wants another.
fn peer(hosts: &Hosts, group: &str, what: &str, count: usize) -> Answers {
    let key = |who: &str| hosts.bastion.home(who).join("ssh/id_ed25519");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ssh_hostile/peer.py");
    let mut command = Command::new(python("python"));
    command
        .arg(script)
        .arg(hosts.bastion.ssh_port.to_string())
        .arg(format!("alice+{HOST}"))
        .arg(key("alice"));
    command.args([group, what, &count.to_string()]).env("OTHER_KEY", key("bob"));
    let finished = Finished::from(command.output().unwrap()).success();
    let messages = finished.stdout.lines().filter_map(|line| line.strip_prefix("message "));
    let pair = |line: &str| {
        let (kind, count) = line.split_once(": ").unwrap();
        (kind.parse().unwrap(), count.parse().unwrap())
    };
    Answers { messages: messages.map(pair).collect(), closed: finished.stdout.contains("closed") }
}

/// Somebody else is served as ever, soon, and the gateway has kept nothing of what it was sent.
#[track_caller]
fn nobody_notices(hosts: &Hosts, resident_before: u64) {
    let began = Instant::now();
    assert_eq!(hosts.run("echo served").success().stdout, "served\n");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let resident = hosts.bastion.resident_kib();
    assert!(resident < resident_before + 64 * 1024, "{resident_before} KiB before, {resident} KiB now");
    nothing_broke(&hosts.bastion);
}

#[track_caller]
fn nothing_broke(bastion: &Bastion) {
    let log = bastion.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains("ended by a defect"), "{log}");
}
