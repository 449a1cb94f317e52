//! Real clients notice nothing but another address: what they do through the gateway gives what it
//! gives when they talk to the host directly; and it is on record as what it was.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "ssh_clients/bulk.rs"]
mod bulk;
#[path = "ssh_clients/commands.rs"]
mod commands;
#[path = "ssh_clients/files.rs"]
mod files;
#[path = "ssh_clients/forwards.rs"]
mod forwards;
#[path = "ssh_clients/multiplexed.rs"]
mod multiplexed;
#[path = "ssh_clients/others.rs"]
mod others;
mod support;
#[path = "ssh_clients/terminals.rs"]
mod terminals;
#[path = "ssh_clients/way.rs"]
mod way;

use support::Hosts;

/// Alice, who has a session on the open host and one on the closed.
fn hosts() -> Hosts {
    let hosts = Hosts::start_for(support::Options::default(), &["alice"]);
    hosts.grant();
    hosts.bastion.grant("alice", "web-closed", support::sshd::ACCESS, 3600, &[]);
    hosts
}
