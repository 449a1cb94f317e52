use serde_json::Value;

use super::support::sshd::{ACCESS, HOST};
use super::support::{Terminal, wait_until};
use super::{NO_SESSION, ask, becomes, requests, shell, start};

#[test]
fn approvals_are_shown_as_they_come_and_the_last_opens_the_shell() {
    let hosts = start();
    let mut terminal = Terminal::start(&shell(&hosts, "web-prod"));
    let id = ask(&hosts, &mut terminal, "a release", "30m");
    terminal.shows("waiting for FR-283");
    hosts.bastion.run_as("bob", &["approve", &id]).success();
    terminal.shows("approved by bob (bank-core)");
    terminal.resize(90, 20);
    hosts.bastion.run_as("carol", &["approve", &id]).success();
    terminal.shows("approved by carol (bank-core)");
    wait_until("the shell runs", || !hosts.records("program").is_empty());
    terminal.types("stty size; exit\r");
    terminal.shows("20 90");
    assert_eq!(terminal.finish().0, 0);
    let opened = &hosts.records("opened")[0];
    assert_eq!((opened["target"].as_str(), opened["request"].as_str()), (Some("web-prod"), Some(&*id)));
    let by: Vec<_> =
        opened["approvals"].as_array().unwrap().iter().map(|each| each["by"]["name"].clone()).collect();
    assert_eq!(by, ["bob", "carol"]);
    let about = |record: &Value| record["kind"] == "read" || record["action"] == "read";
    let reads = hosts
        .bastion
        .records()
        .iter()
        .filter(|record| about(record) && record.to_string().contains("\"request\""))
        .count();
    assert!((1..12).contains(&reads), "a wait is on record and does not flood it: {reads}");
}

#[test]
fn a_denial_a_lapse_and_a_block_end_the_wait_with_their_reason() {
    let hosts = start();
    let mut terminal = Terminal::start(&shell(&hosts, "web-uat"));
    let id = ask(&hosts, &mut terminal, "a look", "");
    hosts.bastion.run_as("bob", &["deny", &id, "--why", "not today"]).success();
    terminal.shows("sallyport: denied by bob: not today");
    assert_eq!(terminal.finish().0, NO_SESSION);

    let mut terminal = Terminal::start(&shell(&hosts, "web-uat"));
    let id = ask(&hosts, &mut terminal, "a look", "");
    hosts.bastion.run_as("alice", &["cancel", &id]).success();
    terminal.shows("sallyport: the request was withdrawn");
    assert_eq!(terminal.finish().0, NO_SESSION);

    let mut terminal = Terminal::start(&shell(&hosts, "web-uat"));
    let id = ask(&hosts, &mut terminal, "a look", "");
    hosts.bastion.run_as("erin", &["block", "alice", "--why", "a lost laptop"]).success();
    terminal.shows("you are blocked by erin: a lost laptop");
    assert_eq!(terminal.finish().0, NO_SESSION);
    let (_, body) = hosts.bastion.api(Some("erin"), "GET", "/pam/blocks", None);
    let block = body["items"][0]["id"].as_str().unwrap().to_owned();
    let mut terminal = Terminal::start(&shell(&hosts, "web-uat"));
    terminal.answers("reason: ", "a look");
    terminal.answers("for how long [1h]: ", "");
    terminal.shows("you are blocked by erin: a lost laptop");
    assert_eq!(terminal.finish().0, NO_SESSION);
    hosts.bastion.run_as("erin", &["unblock", &block]).success();
    assert!(!id.is_empty());

    let mut terminal = Terminal::start(&shell(&hosts, "web-uat"));
    ask(&hosts, &mut terminal, "a look", "");
    hosts.bastion.advance(3601);
    terminal.shows("sallyport: nobody decided in time: the request has lapsed");
    assert_eq!(terminal.finish().0, NO_SESSION);
}

#[test]
fn whoever_stops_waiting_withdraws_the_request() {
    let mut hosts = start();
    let mut terminal = Terminal::start(&shell(&hosts, "web-prod"));
    let id = ask(&hosts, &mut terminal, "a release", "");
    terminal.types("typed ahead\x03");
    terminal.shows(&format!("sallyport: request {id} is withdrawn"));
    assert_eq!(terminal.finish().0, NO_SESSION);
    becomes(&hosts, &id, "cancelled");

    // Killed, and closed by its own escape.
    let mut terminal = Terminal::start(&shell(&hosts, "web-prod"));
    let killed = ask(&hosts, &mut terminal, "a release", "");
    terminal.kill();
    becomes(&hosts, &killed, "cancelled");
    let mut terminal = Terminal::start(&shell(&hosts, "web-prod"));
    let escaped = ask(&hosts, &mut terminal, "a release", "");
    terminal.types("\r~.");
    becomes(&hosts, &escaped, "cancelled");

    // The server stops: nobody waits for that either.
    let mut terminal = Terminal::start(&shell(&hosts, "web-prod"));
    ask(&hosts, &mut terminal, "a release", "");
    hosts.bastion.stop().success();
    let (status, shown) = terminal.finish();
    assert_eq!(status, 255, "{shown}");
    assert!(shown.contains("the gateway is shutting down"), "{shown}");
    hosts.bastion.boot();
    assert!(requests(&hosts).iter().all(|request| request["state"] == "cancelled"), "{:?}", requests(&hosts));
    hosts.bastion.verify().success();
}

#[test]
fn a_session_that_comes_on_another_way_is_taken_at_the_next_channel() {
    let hosts = start();
    let socket = hosts.bastion.scratch().join("mux");
    let control = format!("ControlPath={}", socket.display());
    let mut master = hosts.through("ssh", "alice", HOST);
    master.args(["-o", "ControlMaster=yes", "-o", &control, "-N", "localhost"]);
    let _master = super::support::process::Running::start(&mut master);
    wait_until("the master is there", || socket.exists());
    let run = || {
        let mut command = hosts.through("ssh", "alice", HOST);
        let output = command.args(["-o", &control, "localhost", "echo in"]).output().unwrap();
        super::support::Finished::from(output)
    };
    assert_eq!(run().code(), NO_SESSION);
    hosts.bastion.grant("alice", HOST, ACCESS, 3600, &[]);
    assert_eq!(run().success().stdout, "in\n");
    assert_eq!(run().success().stdout, "in\n");
    assert_eq!(hosts.records("opened").len(), 1);
}
