//! Who gets in by SSH, with the real `ssh`: keys, certificates, passwords; and what those are told, and
//! what is on record of them, who do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "ssh_identity/certificates.rs"]
mod certificates;
#[path = "ssh_identity/keys.rs"]
mod keys;
#[path = "ssh_identity/names.rs"]
mod names;
#[path = "ssh_identity/passwords.rs"]
mod passwords;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Finished, Hosts, wait_until};

/// What OpenSSH says, and its status, when nothing of what it has proves anything.
const NOT_PROVED: i32 = 255;
/// The status of who is known and has no session.
const NO_SESSION: i32 = 77;

/// Makes a key pair of a kind; gives the private key's path.
fn make_key(hosts: &Hosts, name: &str, kind: &[&str]) -> PathBuf {
    let path = hosts.bastion.scratch().join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", name]).args(kind).arg("-f").arg(&path);
    Finished::from(command.output().unwrap()).success();
    path
}

fn public(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", key.display()))
}

fn fingerprint(key: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(public(key)).output().unwrap();
    Finished::from(output).success().stdout.split_whitespace().nth(1).unwrap().to_owned()
}

/// `ssh` with one key.
fn by_key(hosts: &Hosts, key: &Path, user: &str) -> Finished {
    let mut command = hosts.client("ssh", user);
    command.args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i"]).arg(key);
    command.args(["localhost", "echo in"]).output().unwrap().into()
}

/// Whom strangers said they were and why they were not let in, in order; waits until there are `count`:
/// a client is written down when it has given up.
fn unproved(hosts: &Hosts, count: usize) -> Vec<(String, String)> {
    let text = |event: &serde_json::Value, field: &str| {
        find(event, field).unwrap_or_else(|| panic!("no {field} in {event}")).as_str().unwrap().to_owned()
    };
    let mut found = Vec::new();
    wait_until("strangers are on record", || {
        let events = hosts.bastion.events("connection_refused").into_iter();
        let unproved = events.filter(|event| find(event, "code").is_some_and(|code| code == "unproved"));
        found = unproved.map(|event| (text(&event, "claimed"), text(&event, "why"))).collect();
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

/// A detail of an event, wherever in it that is.
fn find<'a>(event: &'a serde_json::Value, field: &str) -> Option<&'a serde_json::Value> {
    let inside = event.as_object()?.values().find_map(|value| find(value, field));
    event.get(field).or(inside)
}
