use super::support::process::Running;
use super::support::sshd::HOST;
use super::support::{Terminal, wait_until};
use super::{Jumps, find};

#[test]
fn inside_one_is_who_one_jumped_as() {
    let jumps = Jumps::start();
    jumps.configure("bob", "");
    let finished = jumps.run(&["bob@web-1", "true"]);
    assert_eq!(finished.code(), 255, "{finished:?}");
    finished.says("Permission denied");
    wait_until("it is on record", || {
        let refused = jumps.hosts.bastion.events("connection_refused").into_iter();
        refused
            .filter(|event| find(event, "claimed").is_some_and(|name| name == "bob"))
            .any(|event| find(&event, "why").unwrap().as_str().unwrap().contains("is not for `alice`"))
    });
    assert!(jumps.hosts.records("opened").is_empty());
}

#[test]
fn a_revocation_reaches_what_is_behind_a_jump() {
    let jumps = Jumps::start();
    let mut command = jumps.client("ssh");
    command.args(["-tt", "-J", "gateway", HOST]);
    let mut terminal = Terminal::start(&command);
    terminal.types("echo shell-$((6*7))\r");
    terminal.shows("shell-42");
    let session = jumps.hosts.records("opened")[0]["session"].as_str().unwrap().to_owned();
    jumps.hosts.bastion.run_as("erin", &["revoke", &session, "--why", "enough"]).success();
    terminal.shows("sallyport: your session was revoked by erin: enough");
    let (status, shown) = terminal.finish();
    assert_eq!(status, 255, "{shown}");
}

#[test]
fn a_client_that_vanishes_leaves_a_recording_with_its_end() {
    let jumps = Jumps::start();
    let mut command = jumps.client("ssh");
    command.args(["-J", "gateway", HOST, "sleep 600"]);
    let running = Running::start_quietly(&mut command);
    wait_until("the program runs", || !jumps.hosts.records("program").is_empty());
    // The outer ssh, which carries the other's bytes, is a child of it.
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let outer = std::fs::read_to_string(children).unwrap();
    let outer = rustix::process::Pid::from_raw(outer.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(outer, rustix::process::Signal::KILL).unwrap();
    wait_until("the recording has its end", || {
        jumps.hosts.bastion.events("connection_ended").len() == 1
            && jumps.hosts.records("channel_ended").len() == 1
    });
    running.finish().failure();
}
