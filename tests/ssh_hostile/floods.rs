//! Who is known and misbehaves keeps nobody from anything.

use std::time::{Duration, Instant};

use crate::support::sshd::HOST;
use crate::support::{Hosts, Options, Shell, wait_until};

const MANY: usize = 10_000;
const MAX_CHANNELS: usize = 20;
const CHANNEL_DATA: u8 = 94;
const OPEN_CONFIRMATION: u8 = 91;
const OPEN_FAILURE: u8 = 92;

fn hosts() -> Hosts {
    let settings = vec![("ssh", format!("max_channels = {MAX_CHANNELS}"))];
    Hosts::start_for(Options { settings, ..Options::default() }, &["alice", "bob", "erin", "olga"])
}

/// Somebody else's terminal, which must go on answering.
fn bystander(hosts: &Hosts) -> Shell {
    hosts.bastion.grant("olga", HOST, "deploy", 3600, &[]);
    let mut ssh = hosts.through("ssh", "olga", HOST);
    let mut shell = Shell::start(ssh.args(["-tt", "localhost", "exec sh"]));
    shell.types("echo up[$((40 + 2))]\n");
    assert_eq!(shell.value("up"), "42");
    shell
}

#[test]
fn a_known_client_that_floods_is_bounded_and_disturbs_nobody() {
    let hosts = hosts();
    hosts.grant();
    let mut bystander = bystander(&hosts);
    let before = hosts.bastion.resident_kib();
    for (number, what) in
        ["opens", "other opens", "requests", "answered requests", "window", "nowhere", "kexinit"]
            .into_iter()
            .enumerate()
    {
        let began = Instant::now();
        let count = if what == "kexinit" { 100 } else { MANY };
        let flood = std::thread::scope(|scope| {
            let flood = scope.spawn(|| crate::peer(&hosts, "floods", what, count));
            let mut asked = 0;
            while !flood.is_finished() {
                asked += 1;
                bystander.types(&format!("echo n{number}x{asked}[$((40 + 2))]\n"));
                assert_eq!(bystander.value(&format!("n{number}x{asked}")), "42", "{what}");
            }
            flood.join().unwrap()
        });
        println!("{what}: {:?}, {flood:?}", began.elapsed());
        match what {
            "opens" => {
                assert_eq!(flood.of(OPEN_CONFIRMATION), MAX_CHANNELS, "{flood:?}");
                assert_eq!(flood.of(OPEN_FAILURE), MANY - MAX_CHANNELS, "{flood:?}");
            }
            "other opens" => assert_eq!(flood.of(OPEN_FAILURE), MANY, "{flood:?}"),
            "requests" => assert!(flood.of(CHANNEL_DATA) > 0, "{flood:?}"),
            "answered requests" => assert_eq!(flood.of(82), MANY, "{flood:?}"),
            "kexinit" => assert!(flood.closed, "{flood:?}"),
            _ => {}
        }
        crate::nobody_notices(&hosts, before);
        wait_until("the flood's connection is over", || {
            hosts.bastion.events("connection_ended").len() > number
        });
    }
    hosts.bastion.verify().success();
}

#[test]
fn data_beyond_the_window_are_not_kept() {
    let hosts = hosts();
    hosts.grant();
    let mut bystander = bystander(&hosts);
    let before = hosts.bastion.resident_kib();
    // 320 MB, where 2 MiB are allowed and nobody reads.
    let flood = std::thread::scope(|scope| {
        let flood = scope.spawn(|| crate::peer(&hosts, "floods", "beyond", MANY));
        let began = Instant::now();
        wait_until("the peer is at it, or over", || {
            flood.is_finished() || began.elapsed() > Duration::from_secs(3)
        });
        bystander.types("echo goes[$((40 + 2))]\n");
        assert_eq!(bystander.value("goes"), "42");
        let resident = hosts.bastion.resident_kib();
        assert!(resident < before + 64 * 1024, "{before} KiB before, {resident} KiB now");
        // The peer stands still where it is not closed: the session's end ends it as well.
        let sessions = hosts.bastion.api(Some("alice"), "GET", "/pam/sessions?mine=true", None).1;
        let session = sessions["items"][0]["id"].clone();
        let body = serde_json::json!({ "session": session, "why": "flooding" });
        assert_eq!(hosts.bastion.post("erin", "/pam/revoke", body).0, 200);
        flood.join().unwrap()
    });
    assert!(flood.closed, "{flood:?}");
    crate::nothing_broke(&hosts.bastion);
    hosts.bastion.verify().success();
}
