//! After the end: nothing that opened the host is kept, and no program of the session goes on.

use crate::support::calls::{files_under, holders};
use crate::support::sshd::{HOST, login};
use crate::support::{Hosts, Options, Shell, wait_until};

#[test]
fn what_opened_the_host_is_kept_nowhere() {
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let session = hosts.grant().session;
    let (mut shell, _) = crate::clients::shell(&hosts);
    let of_host = files_under(hosts.sshd.path("log").parent().unwrap());
    let files = [hosts.bastion.kept_files(), of_host].concat();
    // While it is in use as well: it is in memory alone.
    let certificate = "ssh-ed25519-cert-v01@openssh.com";
    assert_eq!(holders(&files, certificate), [""; 0]);
    let secrets = |files: &[std::path::PathBuf]| holders(files, "OPENSSH PRIVATE KEY").len();
    let before = secrets(&files);
    crate::revoke(&hosts, &session);
    shell.ends();
    let of_host = files_under(hosts.sshd.path("log").parent().unwrap());
    let files = [hosts.bastion.kept_files(), of_host].concat();
    assert_eq!(holders(&files, certificate), [""; 0]);
    assert_eq!(secrets(&files), before, "no private key but those that were configured");
    crate::credentials_are_destroyed(&hosts.bastion);
}

/// An account of the host's whose programs `sshd` may send signals to: not the superuser's, for which it
/// does not separate privileges.
fn account() -> String {
    let own = login();
    if own == "root" { "postgres".to_owned() } else { own }
}

#[test]
fn a_program_without_a_terminal_is_killed_when_the_right_ends_and_not_when_the_client_leaves() {
    let mut hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let target = hosts.sshd.target(HOST, "dev", "");
    let own = format!("deploy = \"{}\"", login());
    hosts.bastion.set_targets(&target.replace(&own, &format!("deploy = \"{}\"", account())));
    hosts.bastion.stop().success();
    hosts.bastion.boot();
    // PAM lets into accounts that have no password.
    hosts.sshd.configure("UsePAM yes");
    hosts.sshd.restart();
    let start = || {
        let mut ssh = hosts.through("ssh", "alice", HOST);
        let program = "trap '' HUP PIPE; echo pid[$$]; while :; do sleep 0.1; done";
        let command = Shell::start(ssh.args(["localhost", program]));
        let pid = command.value("pid");
        (command, pid)
    };
    let session = hosts.grant().session;
    let (left, pid_of_left) = start();
    left.signal(rustix::process::Signal::KILL);
    drop(left);
    wait_until("it is over", || crate::live(&hosts.bastion).is_empty());
    assert!(crate::clients::runs(&pid_of_left), "as without a gateway");
    crate::clients::signal(&pid_of_left, "KILL");

    let (mut revoked, pid) = start();
    crate::revoke(&hosts, &session);
    assert_eq!(revoked.ends(), Some(255), "{}", revoked.err());
    wait_until("it is killed", || !crate::clients::runs(&pid));
    crate::all_is_well(&hosts.bastion);
}
