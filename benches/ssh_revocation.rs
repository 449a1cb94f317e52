//! How soon the sockets of SSH clients are closed after their session is revoked.
//!
//! 200 shells of one session against a real sshd, through the real binary: half of them busy, the other
//! half stalled amid a flood that they do not read. An instant is when a client's socket is closed, seen
//! from the client, counted from the moment the revocation was sent over an open HTTPS connection. Prints
//! a table; asserts what must hold, never a time.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::process::PATIENCE;
use support::ssh_peers::{Closed, Peers, Reads};
use support::{Hosts, Options};

const SHELLS: usize = 200;
const ROUNDS: usize = 3;

/// Nearest rank, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1].as_secs_f64() * 1000.0
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&times, percent));
    println!("{what:<58} {:>5} {p50:>8.1} {p99:>8.1} {most:>8.1}", times.len());
}

/// One revocation; gives when it was sent, how long the call took, and when each socket was closed.
fn round(hosts: &Hosts, runtime: &tokio::runtime::Runtime) -> (Instant, Duration, Vec<Closed>) {
    let session = hosts.grant().session;
    let peers = Peers::start(hosts, SHELLS);
    let ca = reqwest::Certificate::from_pem(&std::fs::read(hosts.bastion.ca_file()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build().unwrap();
    let (url, token) = (format!("https://localhost:{}", hosts.bastion.api_port), hosts.bastion.token("erin"));
    // Opens the connection that the revocation goes over.
    let warm_up = client.get(format!("{url}/whoami")).bearer_auth(&token);
    runtime.block_on(async { warm_up.send().await.unwrap().bytes().await.unwrap() });
    let ((sent, call), closed) = peers.closed_by(|| {
        let body = json!({ "session": session, "why": "measured" });
        let asked = client.post(format!("{url}/pam/revoke")).bearer_auth(&token).json(&body);
        let sent = Instant::now();
        let answer: Value = runtime.block_on(async { asked.send().await.unwrap().json().await.unwrap() });
        let call = sent.elapsed();
        let cuts = answer["cuts"].as_array().unwrap();
        assert!(cuts.len() == SHELLS && cuts.iter().all(|cut| cut["ended"] == true), "{answer}");
        (sent, call)
    });
    (sent, call, closed)
}

fn main() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "erin"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut all, mut busy, mut stalled, mut calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (sent, call, closed) = round(&hosts, &runtime);
        let after =
            |reads: Reads| closed.iter().filter(move |one| one.reads == reads).map(move |one| one.at - sent);
        busy.extend(after(Reads::All));
        stalled.extend(after(Reads::Nothing));
        all.extend(closed.iter().map(|one| one.at - sent));
        calls.push(call);
    }
    println!("{:<58} {:>5} {:>8} {:>8} {:>8}", "milliseconds", "n", "p50", "p99", "most");
    row(&format!("revoke → socket closed, {SHELLS} shells of one session"), all);
    row("  of those that read", busy);
    row("  of those that do not", stalled);
    row("  until the call returned", calls);
    hosts.bastion.verify().success();
}
