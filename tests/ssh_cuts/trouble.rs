//! The audit log's disk is full: nobody goes on unrecorded, and it is said why.

use rustix::process::Signal;

use crate::clients;
use crate::support::disk::Disk;
use crate::support::sshd::HOST;
use crate::support::{Hosts, Options, Shell, wait_until};

const TOLD: &str = "sallyport: this connection can no longer be recorded";

#[test]
fn a_full_disk_cuts_who_types_and_who_only_waits_before_anything_goes_unrecorded() {
    let Some(disk) = Disk::new(5 * 1024) else {
        // Neither root nor namespaces: there is no way to fill a disk of one's own.
        eprintln!("skipped: no disk may be mounted here");
        return;
    };
    let settings = vec![
        ("audit", format!("directory = \"{}\"", disk.path().join("audit").display())),
        ("audit", "segment_bytes = 2097152".to_owned()),
    ];
    let options = Options {
        settings,
        wrapper: disk.wrapper(),
        audit_dir: Some(disk.outside().join("audit")),
        ..Options::default()
    };
    let mut hosts = Hosts::start_for(options, crate::PEOPLE);
    hosts.grant();
    let (mut waiting, in_waiting) = clients::shell(&hosts);
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let mut flood = Shell::start(ssh.args(["-tt", "localhost", "echo pid[$$]; exec yes"]));
    let in_flood = flood.value("pid");
    for shell in [&mut flood, &mut waiting] {
        assert_eq!(shell.ends(), Some(255));
    }
    // Who takes a flood may not come to the last line within the time that a goodbye has.
    waiting.says(TOLD);
    for pid in [in_waiting, in_flood] {
        wait_until("nothing runs on the host", || !clients::runs(&pid));
    }
    assert_eq!(crate::sockets(&hosts.bastion), 0);
    hosts.run("true").failure().says("cannot record this connection");
    let verified = hosts.bastion.verify().success();
    assert!(verified.stdout.contains("0 without an end"), "{}", verified.stdout);

    hosts.bastion.signal(Signal::TERM);
    hosts.bastion.ended().failure();
    disk.resize(64 * 1024);
    hosts.bastion.boot();
    assert_eq!(hosts.run("echo goes on").success().stdout, "goes on\n");
    crate::all_is_well(&hosts.bastion);
}
