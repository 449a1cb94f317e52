//! Who has not proved anything gets nothing.

use crate::support::{Hosts, Options};

const USERAUTH_FAILURE: u8 = 51;
const USERAUTH_SUCCESS: u8 = 52;
const USERAUTH_PK_OK: u8 = 60;
const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
const REQUEST_SUCCESS: u8 = 81;

#[test]
fn only_a_signature_of_ones_own_over_this_connection_lets_in() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "bob"]);
    hosts.grant();
    let key = hosts.bastion.home("alice").join("ssh/id_ed25519.pub");
    hosts.bastion.run_as("alice", &["key", "add", key.to_str().unwrap()]).success();
    let before = hosts.bastion.resident_kib();
    for what in
        ["nothing", "offer", "offered certificate", "other data", "other session", "other key", "nested"]
    {
        let answers = crate::peer(&hosts, "proofs", what, 0);
        println!("{what}: {answers:?}");
        for granted in [USERAUTH_SUCCESS, CHANNEL_OPEN_CONFIRMATION, REQUEST_SUCCESS] {
            assert_eq!(answers.of(granted), 0, "{what}: {answers:?}");
        }
        assert!(answers.closed || answers.of(USERAUTH_FAILURE) > 0, "{what}: {answers:?}");
        if what == "offer" {
            assert_eq!(answers.of(USERAUTH_PK_OK), 1, "the key is worth proving: {answers:?}");
        }
        assert_eq!(hosts.bastion.events("connection_opened").len(), 0, "{what}");
    }
    crate::nobody_notices(&hosts, before);
}

#[test]
fn an_rsa_signature_with_sha_1_proves_nothing() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    let key = hosts.bastion.scratch().join("rsa");
    let mut make = std::process::Command::new("ssh-keygen");
    make.args(["-q", "-t", "rsa", "-b", "3072", "-N", "", "-f"]).arg(&key);
    crate::Finished::from(make.output().unwrap()).success();
    let public = format!("{}.pub", key.display());
    hosts.bastion.run_as("alice", &["key", "add", &public]).success();
    let by = |algorithm: &str| -> crate::Finished {
        let mut ssh = std::process::Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(&key);
        ssh.args(["-o", &hosts.known_hosts(), "-o", &format!("PubkeyAcceptedAlgorithms={algorithm}")]);
        ssh.args(["-p", &hosts.bastion.ssh_port.to_string(), "alice+web-1@localhost", "echo in"]);
        ssh.env("HOME", hosts.bastion.scratch()).output().unwrap().into()
    };
    by("ssh-rsa").failure().says("Permission denied");
    assert_eq!(by("rsa-sha2-256").success().stdout, "in\n");
    crate::nothing_broke(&hosts.bastion);
}
