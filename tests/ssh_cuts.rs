//! How connections to hosts end when they must: whoever is cut reads why, every socket is closed, what
//! ran on the host is gone, and nothing that opened it can be used again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

#[path = "ssh_cuts/after.rs"]
mod after;
#[path = "ssh_cuts/clients.rs"]
mod clients;
#[path = "ssh_cuts/lobby.rs"]
mod lobby;
#[path = "ssh_cuts/many.rs"]
mod many;
#[path = "ssh_cuts/moments.rs"]
mod moments;
#[path = "ssh_cuts/reasons.rs"]
mod reasons;
#[path = "ssh_cuts/stalled.rs"]
mod stalled;
#[path = "ssh_cuts/trouble.rs"]
mod trouble;

use serde_json::{Value, json};
use support::calls::text;
use support::{Bastion, Hosts};

const PEOPLE: &[&str] = &["alice", "bob", "erin"];

/// Connections that the gateway believes are up.
fn live(bastion: &Bastion) -> Vec<String> {
    let (status, body) = bastion.api(Some("erin"), "GET", "/pam/connections", None);
    assert_eq!(status, 200, "{body}");
    body["items"].as_array().unwrap().iter().map(|item| text(&item["id"])).collect()
}

/// Sockets to clients that the gateway holds; what the kernel alone keeps has no inode.
fn sockets(bastion: &Bastion) -> usize {
    let ours = format!(":{:04X}", bastion.ssh_port);
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", bastion.pid())).unwrap();
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&ours) && fields[3] != "0A" && fields[9] != "0"
    };
    sockets.lines().skip(1).filter(is_open).count()
}

#[track_caller]
fn revoke(hosts: &Hosts, session: &str) -> Value {
    let body = json!({ "session": session, "why": "incident 42" });
    let (status, answer) = hosts.bastion.post("erin", "/pam/revoke", body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// How the recording of a connection ended.
fn end_of(bastion: &Bastion, connection: &str) -> Value {
    let last = bastion.recording(connection).pop().unwrap();
    assert_eq!(last["kind"], "ended", "{last}");
    last["reason"].clone()
}

/// Every certificate that was issued is on record as destroyed.
#[track_caller]
fn credentials_are_destroyed(bastion: &Bastion) {
    let steps = |step: &str| {
        let of_step = |record: &Value| record["kind"] == "credential" && record["step"] == step;
        let mut handles: Vec<String> = bastion
            .records()
            .iter()
            .filter(|record| of_step(record))
            .map(|record| record["handle"].to_string())
            .collect();
        handles.sort_unstable();
        handles
    };
    let issued = steps("issued");
    assert!(!issued.is_empty(), "no credential is on record");
    assert_eq!(issued, steps("destroyed"));
}

/// The log is whole, every recording has its end, and nothing broke inside.
#[track_caller]
fn all_is_well(bastion: &Bastion) {
    let verified = bastion.verify().success();
    assert!(verified.stdout.contains("0 without an end"), "{}", verified.stdout);
    assert!(!bastion.log().contains("panicked"), "{}", bastion.log());
}
