//! Peers that do not read: everything is closed all the same, and soon.

use std::io::Write as _;

use rustix::process::Signal;
use serde_json::json;

use crate::clients::{self, runs};
use crate::support::sshd::HOST;
use crate::support::{Hosts, Options, Shell, wait_until};

/// Waits until a count stays as it is: nothing goes through any more.
#[track_caller]
fn wait_until_stuck(what: &str, mut count: impl FnMut() -> u64) {
    let (mut last, mut same) = (0, 0);
    wait_until(what, || {
        let now = count();
        same = if now > 0 && now == last { same + 1 } else { 0 };
        last = now;
        same == 30
    });
}

/// The bytes that a process has written.
fn written_by(pid: &str) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_client_that_reads_nothing_is_cut_like_any_other() {
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let session = hosts.grant().session;
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let mut flood = Shell::start(ssh.args(["localhost", "echo pid[$$] >&2; exec yes"]));
    let pid = in_brackets(&flood);
    flood.signal(Signal::STOP);
    wait_until_stuck("the flood is stuck", || written_by(&pid));
    assert_eq!(crate::sockets(&hosts.bastion), 1);

    let answer = crate::revoke(&hosts, &session);
    assert_eq!(answer["cuts"][0]["ended"], true, "{answer}");
    assert_eq!(crate::sockets(&hosts.bastion), 0, "closed when the call returns, although it never reads");
    wait_until("nothing runs on the host", || !runs(&pid));
    assert_eq!(crate::live(&hosts.bastion), [""; 0]);
    flood.signal(Signal::CONT);
    assert_eq!(flood.ends(), Some(255), "{}", flood.err());
    crate::all_is_well(&hosts.bastion);
}

/// A process id that a program says on its standard error.
fn in_brackets(shell: &Shell) -> String {
    shell.says("]");
    shell.err().split(['[', ']']).nth(1).unwrap().to_owned()
}

#[test]
fn a_program_that_does_not_take_its_input_keeps_nobody() {
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let session = hosts.grant().session;
    let mut ssh = hosts.through("ssh", "alice", HOST);
    let mut stalled = Shell::start(ssh.args(["localhost", "echo pid[$$]; kill -STOP $$; cat >/dev/null"]));
    let pid = stalled.value("pid");
    let mut input = stalled.input.take().unwrap();
    let writer = std::thread::spawn(move || {
        let block = vec![b'x'; 64 * 1024];
        let mut written = 0_u64;
        while input.write_all(&block).is_ok() {
            written += 64 * 1024;
        }
        written
    });
    let ssh_pid = stalled.pid().to_string();
    // More than the host's program and the sockets on the way take.
    wait_until("the input waits", || written_by(&ssh_pid) > 2_000_000);
    let answer = crate::revoke(&hosts, &session);
    assert_eq!(answer["cuts"][0]["ended"], true, "{answer}");
    assert_eq!(stalled.ends(), Some(255));
    stalled.says("sallyport: your session was revoked by erin: incident 42");
    assert!(writer.join().unwrap() > 0);
    assert_eq!(crate::sockets(&hosts.bastion), 0);
    assert_eq!(crate::live(&hosts.bastion), [""; 0]);
    // It was stopped: let it see that its input has ended.
    clients::signal(&pid, "CONT");
    wait_until("nothing runs on the host", || !runs(&pid));
    crate::all_is_well(&hosts.bastion);
}

#[test]
fn a_shared_connection_is_cut_with_all_its_channels_half_of_them_stalled() {
    const CHANNELS: usize = 20;
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    let session = hosts.grant().session;
    let socket = hosts.bastion.scratch().join("mux");
    let control = format!("ControlPath={}", socket.display());
    let mut master = hosts.through("ssh", "alice", HOST);
    let mut master = Shell::start(master.args(["-o", &control, "-M", "-N", "localhost"]));
    wait_until("the master is there", || socket.exists());
    // What a client of a shared connection does not read is not read by the one that shares it.
    let mut unread = Vec::new();
    let mut channels: Vec<(Shell, String)> = (0..CHANNELS)
        .map(|number| {
            let mut ssh = hosts.through("ssh", "alice", HOST);
            ssh.args(["-o", &control, "localhost"]);
            let channel = if number % 2 == 0 {
                let (channel, out) = Shell::start_unread(ssh.arg("echo pid[$$] >&2; exec yes"));
                unread.push(out);
                channel
            } else {
                Shell::start(ssh.arg("echo pid[$$] >&2; while :; do echo tick; sleep 0.1; done"))
            };
            let pid = in_brackets(&channel);
            (channel, pid)
        })
        .collect();
    for (_, pid) in channels.iter().step_by(2) {
        wait_until_stuck("the flood is stuck", || written_by(pid));
    }
    // The others go on beside those.
    for (channel, _) in channels.iter().skip(1).step_by(2) {
        let before = channel.out().len();
        wait_until("it goes on", || channel.out().len() > before);
    }
    assert_eq!(crate::live(&hosts.bastion).len(), 1);

    let answer = crate::revoke(&hosts, &session);
    assert_eq!(answer["cuts"][0]["ended"], true, "{answer}");
    assert_eq!(crate::sockets(&hosts.bastion), 0);
    assert_eq!(master.ends(), Some(255), "{}", master.err());
    master.says("sallyport: your session was revoked by erin: incident 42");
    drop(unread);
    for (channel, pid) in &mut channels {
        assert_eq!(channel.ends(), Some(255), "{}", channel.err());
        wait_until("nothing runs on the host", || !runs(pid));
    }
    let connection = hosts.records("ended").pop().unwrap()["rec"].clone();
    let ended = hosts.bastion.recording(connection.as_str().unwrap());
    assert_eq!(ended.iter().filter(|record| record["kind"] == "channel_ended").count(), CHANNELS);
    assert_eq!(
        ended.last().unwrap()["reason"],
        json!({ "end": "revoked", "by": "erin", "why": "incident 42" })
    );
    crate::all_is_well(&hosts.bastion);
}
