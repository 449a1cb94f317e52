//! `ssh -J USER@gateway TARGET`: the gateway as a jump host, with the real `ssh` at both ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "ssh_jump/endings.rs"]
mod endings;
mod support;
#[path = "ssh_jump/ways.rs"]
mod ways;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::sshd::{ACCESS, HOST};
use support::{Finished, Hosts, Options, Sshd};

/// Hosts, and a configuration that knows the gateway as `gateway`.
struct Jumps {
    hosts: Hosts,
    /// A host with an address of its own: `solo`.
    solo: Sshd,
}

impl Jumps {
    fn start() -> Self {
        let mut hosts = Hosts::start_for(Options::default(), &["alice", "bob", "erin"]);
        let authority = fs::read_to_string(hosts.bastion.data().join("ssh/login_ca.pub")).unwrap();
        let solo = Sshd::start(&authority);
        hosts.bastion.kill();
        let targets = hosts.sshd.target(HOST, "dev", support::sshd::OPEN)
            + &hosts.sshd.target("web-closed", "dev", "")
            + &solo.target("solo", "dev", "");
        hosts.bastion.set_targets(&targets);
        hosts.bastion.boot();
        let jumps = Self { hosts, solo };
        jumps.configure("alice", "");
        for target in [HOST, "solo"] {
            jumps.hosts.bastion.grant("alice", target, ACCESS, 3600, &[]);
        }
        jumps
    }

    fn path(&self, name: &str) -> PathBuf {
        self.hosts.bastion.scratch().join(name)
    }

    /// Writes what both connections of a jump read. `own` goes first and so counts.
    fn configure(&self, inner: &str, own: &str) {
        let identity = |who: &str| {
            let key = self.hosts.bastion.home(who).join("ssh/id_ed25519");
            format!("IdentityFile {0}\nCertificateFile {0}-cert.pub\n", key.display())
        };
        let text = format!(
            "{own}\nHost gateway\nHostName localhost\nPort {}\nUser alice\n{}\nHost *\n{}\
             IdentitiesOnly yes\nIdentityAgent none\nStrictHostKeyChecking yes\nBatchMode yes\nLogLevel INFO\n{}\n",
            self.hosts.bastion.ssh_port,
            identity("alice"),
            identity(inner),
            self.hosts.known_hosts().replace('=', " "),
        );
        fs::write(self.path("config"), text).unwrap();
    }

    /// A program of OpenSSH's with that configuration.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.path("config")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.client("ssh").args(["-J", "gateway"]).args(arguments).output().unwrap().into()
    }
}

/// A detail of an event, wherever in it that is.
fn find<'a>(event: &'a serde_json::Value, field: &str) -> Option<&'a serde_json::Value> {
    let inside = event.as_object()?.values().find_map(|value| find(value, field));
    event.get(field).or(inside)
}
