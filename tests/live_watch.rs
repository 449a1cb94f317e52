//! `sallyport watch`: a recording as it grows, for as long as who watches may.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::process::Running;
use support::sshd::HOST;
use support::{Hosts, Options, Shell, wait_until};

fn live(hosts: &Hosts) -> String {
    let opened = || hosts.records("opened").last().cloned();
    wait_until("the connection is on record", || opened().is_some());
    let record = opened().unwrap();
    record.get("connection").and_then(Value::as_str).unwrap().to_owned()
}

#[test]
fn what_is_done_is_seen_as_it_is_done_and_to_its_end() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "bob", "frank"]);
    hosts.grant();
    let mut shell = Shell::start(hosts.through("ssh", "alice", HOST).args(["-tt", "localhost"]));
    let connection = live(&hosts);
    let mut watch = Shell::start(&mut hosts.bastion.command_as("frank", &["watch", &connection]));
    let mut json = Shell::start(&mut hosts.bastion.command_as("frank", &["watch", "--json", &connection]));
    for n in [1, 2, 3] {
        shell.types(&format!("echo seen-$((10*{n}))\r"));
        watch.says(&format!("seen-{n}0"));
    }
    assert!(!hosts.records("ended").iter().any(|record| record["rec"] == connection.as_str()));
    shell.types("exit\r");
    assert_eq!(shell.ends(), Some(0));
    assert_eq!((watch.ends(), json.ends()), (Some(0), Some(0)), "{}", watch.err());
    let lines = json.out();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds = |record: Option<&Value>| record.unwrap()["kind"].as_str().unwrap().to_owned();
    assert_eq!((kinds(records.first()), kinds(records.last())), ("opened".to_owned(), "ended".to_owned()));
    assert_eq!(records.len(), hosts.bastion.recording(&connection).len());
    // Of one that is over, all there is.
    let over = hosts.bastion.run_as("frank", &["watch", &connection]).success().stdout;
    assert_eq!(over, watch.out());
    // It takes the right to replay.
    hosts.bastion.run_as("bob", &["watch", &connection]).failure().says("refused by policy");
    let watched = hosts.bastion.events("recording_replayed");
    assert!(watched.iter().any(|event| event["principal"]["name"] == "bob" && event["outcome"] == "refused"));
}

#[test]
fn who_watches_is_shown_no_more_when_the_right_is_gone() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "frank"]);
    hosts.grant();
    let mut shell = Shell::start(hosts.through("ssh", "alice", HOST).args(["-tt", "localhost"]));
    let connection = live(&hosts);
    let mut watch = Shell::start(&mut hosts.bastion.command_as("frank", &["watch", &connection]));
    shell.types("echo seen-$((10*4))\r");
    watch.says("seen-40");
    let config = hosts.bastion.config_file();
    hosts.bastion.operator(&["user", "disable", "frank", "--config", config.to_str().unwrap()]).success();
    assert!(watch.ends().is_some());
    hosts.bastion.operator(&["user", "enable", "frank", "--config", config.to_str().unwrap()]).success();
    hosts.bastion.log_in("frank").success();
    let mut again = Shell::start(&mut hosts.bastion.command_as("frank", &["watch", &connection]));
    again.says("seen-40");
    hosts.bastion.operator(&["user", "logout", "frank", "--config", config.to_str().unwrap()]).success();
    assert!(again.ends().is_some(), "a token that is void shows nothing more");
    shell.types("echo unseen-$((10*5))\r");
    shell.says("unseen-50");
    assert!(!watch.out().contains("unseen-50"), "{}", watch.out());
}

#[test]
fn a_watch_does_not_keep_the_gateway_from_stopping() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice", "frank"]);
    hosts.grant();
    let ssh = Running::start(hosts.through("ssh", "alice", HOST).args(["localhost", "sleep 1000"]));
    let connection = live(&hosts);
    let mut watch = Shell::start(&mut hosts.bastion.command_as("frank", &["watch", &connection]));
    watch.says("sleep 1000");
    // Whoever is connected may finish, until the second.
    hosts.bastion.signal(Signal::TERM);
    wait_until("it drains", || hosts.bastion.log().contains("draining"));
    hosts.bastion.signal(Signal::TERM);
    assert!(watch.ends().is_some() && !ssh.finish().status.success());
    hosts.bastion.ended().success();
    hosts.bastion.verify().success();
}
