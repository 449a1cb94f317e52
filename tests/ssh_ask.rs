//! Asking on the spot, at a real terminal: the list of hosts, the questions, the wait for approvals, and
//! a shell in the same window.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "ssh_ask/questions.rs"]
mod questions;
mod support;
#[path = "ssh_ask/verdicts.rs"]
mod verdicts;
#[path = "ssh_ask/without_terminal.rs"]
mod without_terminal;

use std::process::Command;

use serde_json::Value;
use support::sshd::HOST;
use support::{Hosts, Options, Terminal, wait_until};

/// The status of who gets no session.
const NO_SESSION: i32 = 77;

/// A development and a production host, and one that needs one approval.
fn start() -> Hosts {
    let mut hosts = Hosts::start_for(Options::default(), &["alice", "bob", "carol", "erin"]);
    let targets = [HOST, "web-2", "web-3"].map(|name| hosts.sshd.target(name, "dev", "")).concat()
        + &hosts.sshd.target("web-uat", "uat", "")
        + &hosts.sshd.target("web-prod", "prod", "");
    hosts.bastion.kill();
    hosts.bastion.set_targets(&targets);
    hosts.bastion.boot();
    hosts
}

/// `ssh -tt` as Alice; `target` may be empty.
fn shell(hosts: &Hosts, target: &str) -> Command {
    let mut command = hosts.through("ssh", "alice", target);
    command.args(["-tt", "-o", "SendEnv=LC_NOTE", "localhost"]).env("LC_NOTE", "a note").env("TERM", "xterm");
    command
}

/// Answers what is asked for a session; gives the request's id once it is filed.
fn ask(hosts: &Hosts, terminal: &mut Terminal, reason: &str, duration: &str) -> String {
    terminal.answers("reason: ", reason);
    terminal.answers("for how long [1h]: ", duration);
    terminal.shows("; ^C withdraws it");
    let requests = requests(hosts);
    requests.last().unwrap()["id"].as_str().unwrap().to_owned()
}

/// Alice's requests, the oldest first.
fn requests(hosts: &Hosts) -> Vec<Value> {
    let (status, body) = hosts.bastion.api(Some("alice"), "GET", "/pam/requests?all=true", None);
    assert_eq!(status, 200, "{body}");
    let mut items = body["items"].as_array().unwrap().clone();
    items.sort_by_key(|item| item["created_at"].as_str().map(ToOwned::to_owned));
    items
}

#[track_caller]
fn becomes(hosts: &Hosts, request: &str, state: &str) {
    wait_until(&format!("the request is {state}"), || {
        requests(hosts).iter().any(|item| item["id"] == request && item["state"] == state)
    });
}
