//! What an operator does, and what happens to one: full disks, targets that are down or not what
//! they should be, broken files, restarts, a clock that is wrong.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper fails by panicking")]

#[path = "operating/full_disk.rs"]
mod full_disk;
#[path = "operating/ssh_files.rs"]
mod ssh_files;
#[path = "operating/starting.rs"]
mod starting;
#[path = "operating/stopping.rs"]
mod stopping;
#[path = "operating/store.rs"]
mod store;
mod support;
#[path = "operating/targets.rs"]
mod targets;
#[path = "operating/users.rs"]
mod users;
#[path = "operating/volume.rs"]
mod volume;

use std::path::Path;

use support::wire::{self, Wire};
use support::{Bastion, Options, Postgres};

fn start(options: Options) -> (Postgres, Bastion) {
    let postgres = Postgres::start_with(&["log_statement=all"]);
    let bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.ask("alice", "ledger-dev", "dba", 3600);
    (postgres, bastion)
}

/// With the audit log on a disk of its own, which is `inside` for the server and `outside` for the test.
fn audit_on(inside: &Path, outside: &Path, wrapper: Vec<String>) -> Options {
    let directory = inside.join("audit");
    let settings = vec![
        ("audit", format!("directory = \"{}\"", directory.display())),
        ("audit", "segment_bytes = 2097152".to_owned()),
    ];
    Options { settings, wrapper, audit_dir: Some(outside.join("audit")), ..Options::default() }
}

/// How alice's login to `target` is refused: SQLSTATE, message, hint.
#[track_caller]
fn refusal(bastion: &Bastion, target: &str) -> (String, String, String) {
    let mut wire = Wire::connect(bastion);
    let user = format!("alice+{target}");
    let refused = wire.log_in(&[("user", &user)], &bastion.token("alice")).unwrap_err();
    wire::error(Some(refused))
}

fn ready(bastion: &Bastion) -> (u16, serde_json::Value) {
    bastion.api(None, "GET", "/readyz", None)
}
