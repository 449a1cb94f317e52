//! Sessions on hosts with the real `ssh` against a real `sshd`, through the gateway: what a person
//! gets, and what is on record of it.

mod support;

use support::sshd::{ACCESS, HOST};
use support::{Hosts, wait_until};

#[test]
fn a_command_runs_on_the_host_under_a_session_and_is_on_record() {
    let hosts = Hosts::start();
    hosts.grant();
    let finished = hosts.run("echo out; echo err >&2; exit 7");
    assert_eq!((finished.code(), finished.stdout.as_str(), finished.stderr.as_str()), (7, "out\n", "err\n"));
    let program = &hosts.records("program")[0];
    assert_eq!(program["txt"], "echo out; echo err >&2; exit 7");
    assert_eq!((program["target"].as_str(), program["access"].as_str()), (Some(HOST), Some(ACCESS)));
    // The client may be gone before it is written: nobody waits for that record.
    wait_until("the channel's end is on record", || !hosts.records("channel_ended").is_empty());
    let ended = &hosts.records("channel_ended")[0];
    assert_eq!(ended["exit_status"], 7, "{ended}");
    let told: Vec<_> = hosts.records("output").iter().map(|record| record["txt"].clone()).collect();
    assert_eq!(told, ["out\n", "err\n"]);
    hosts.bastion.verify().success();
}

#[test]
fn without_a_session_one_is_told_the_request_to_make_and_gets_a_status_of_its_own() {
    let hosts = Hosts::start();
    let finished = hosts.run("true");
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says(&format!("sallyport request {HOST} {ACCESS} --reason"));
    assert_eq!(hosts.bastion.events("connection_refused").len(), 1);
}
