//! Each reason for which a connection ends, told to a shell, a command and a forward.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::Clients;
use crate::support::sshd::HOST;
use crate::support::{Hosts, Options, wait_until};

const IDLE_SECONDS: u64 = 900;

struct Case {
    name: &'static str,
    /// Brings the end about, given alice's session.
    act: fn(&Hosts, &str),
    /// What each client reads.
    why: &'static str,
    reason: Value,
    /// Status and word of the next attempt to get in.
    next: (i32, &'static str),
    /// Makes good what was done.
    undo: fn(&Hosts),
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let no_more = |why: &str| json!({ "end": "no_longer_permitted", "why": why });
    vec![
        Case {
            name: "revoked",
            act: |hosts, session| drop(crate::revoke(hosts, session)),
            why: "your session was revoked by erin: incident 42",
            reason: json!({ "end": "revoked", "by": "erin", "why": "incident 42" }),
            next: (77, "was revoked by erin: incident 42"),
            undo: |_| {},
        },
        Case {
            name: "blocked",
            act: |hosts, _| {
                let body = json!({ "user": "alice", "why": "a stolen laptop" });
                assert_eq!(hosts.bastion.post("erin", "/pam/block", body).0, 201);
            },
            why: "you were blocked by erin: a stolen laptop",
            reason: json!({ "end": "blocked", "by": "erin", "why": "a stolen laptop" }),
            next: (77, "you are blocked by erin: a stolen laptop"),
            undo: |hosts| {
                let block = &hosts.bastion.api(Some("erin"), "GET", "/pam/blocks", None).1["items"][0];
                let body = json!({ "block": block["id"] });
                assert_eq!(hosts.bastion.post("erin", "/pam/unblock", body).0, 200);
            },
        },
        Case {
            name: "disabled",
            act: |hosts, _| {
                user(hosts, "disable");
                hosts.bastion.advance(1);
            },
            why: "your session no longer permits this connection: this account is disabled",
            reason: no_more("this account is disabled"),
            next: (255, "Permission denied"),
            undo: |hosts| {
                user(hosts, "enable");
                // What was issued before has ended with the account.
                hosts.bastion.log_in("alice").success();
                // The server's clock was moved on; the library goes by the system's (docs/ssh.md).
                wait_until("the new certificate is valid", || hosts.run("true").code() != 255);
            },
        },
        Case {
            name: "access removed",
            act: |hosts, _| reload(hosts, |config| config.replace("deploy = ", "admin = ")),
            why: "your session no longer permits this connection: how `web-1` is reached was changed: connect \
                  anew",
            reason: no_more("how `web-1` is reached was changed: connect anew"),
            next: (77, "no longer offers the access `deploy`"),
            undo: |hosts| reload(hosts, |config| config.replace("admin = ", "deploy = ")),
        },
        Case {
            name: "policy changed",
            act: |hosts, _| {
                let rule = "@id(\"CLOSED\")\n@needs(\"that the host is open again\")\n@about(\"closed hosts\")\n\
                            forbid (principal, action == Action::\"connect\", resource);\n";
                fs::write(policies(hosts).join("closed.cedar"), rule).unwrap();
                reload(hosts, str::to_owned);
            },
            why: "your session no longer permits this connection: refused by policy: CLOSED: that the host is open \
                  again",
            reason: no_more("refused by policy: CLOSED: that the host is open again"),
            next: (77, "CLOSED"),
            undo: |hosts| {
                fs::remove_file(policies(hosts).join("closed.cedar")).unwrap();
                reload(hosts, str::to_owned);
            },
        },
        Case {
            name: "target removed",
            act: |hosts, _| reload(hosts, |config| config.replace("name = \"web-1\"", "name = \"web-2\"")),
            why: "your session no longer permits this connection: there is no target `web-1`",
            reason: no_more("there is no target `web-1`"),
            next: (77, "there is no target `web-1`"),
            undo: |hosts| reload(hosts, |config| config.replace("name = \"web-2\"", "name = \"web-1\"")),
        },
        Case {
            name: "expired",
            act: |hosts, _| hosts.bastion.advance(3601),
            why: "your session has ended: its time is up",
            reason: json!({ "end": "expired" }),
            next: (77, "ended at"),
            undo: |_| {},
        },
    ]
}

/// Where the policies are, for which there is room beside the data.
fn policies(hosts: &Hosts) -> PathBuf {
    hosts.bastion.data().join("policies")
}

/// The shipped policies as the operator's own, from now on.
fn take_policies_over(hosts: &Hosts) {
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    fs::create_dir(policies(hosts)).unwrap();
    for entry in fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), policies(hosts).join(entry.file_name())).unwrap();
    }
    reload(hosts, |config| format!("[policies]\ndirectory = \"policies\"\n\n{config}"));
}

fn user(hosts: &Hosts, how: &str) {
    let config = hosts.bastion.config_file();
    hosts.bastion.operator(&["user", how, "alice", "--config", config.to_str().unwrap()]).success();
}

fn reload(hosts: &Hosts, change: impl Fn(&str) -> String) {
    let bastion = &hosts.bastion;
    let before = bastion.events("configuration_reloaded").len();
    let config = change(&fs::read_to_string(bastion.config_file()).unwrap());
    fs::write(bastion.config_file(), config).unwrap();
    bastion.signal(Signal::HUP);
    wait_until("it is read", || bastion.events("configuration_reloaded").len() > before);
    assert_eq!(bastion.events("configuration_reloaded").pop().unwrap()["outcome"], "done");
}

#[test]
fn who_is_idle_for_too_long_is_told_so() {
    let settings = vec![("ssh", format!("idle_timeout = \"{IDLE_SECONDS}s\""))];
    let hosts = Hosts::start_for(Options { settings, ..Options::default() }, crate::PEOPLE);
    hosts.grant();
    let mut clients = Clients::start(&hosts);
    clients.say_nothing();
    wait_until("nothing moves any more", || {
        hosts.bastion.advance(IDLE_SECONDS);
        crate::live(&hosts.bastion).is_empty()
    });
    clients.speak_again();
    clients.are_cut(&hosts, "the connection was idle for too long");
    for connection in &clients.connections {
        assert_eq!(crate::end_of(&hosts.bastion, connection), json!({ "end": "idle" }));
    }
    crate::all_is_well(&hosts.bastion);
}

#[test]
fn whoever_is_cut_reads_why_and_nothing_goes_on() {
    let hosts = Hosts::start_for(Options::default(), crate::PEOPLE);
    take_policies_over(&hosts);
    for case in cases() {
        println!("case: {}", case.name);
        let session = hosts.grant().session;
        let mut clients = Clients::start(&hosts);
        (case.act)(&hosts, &session);
        clients.are_cut(&hosts, case.why);
        for connection in &clients.connections {
            assert_eq!(crate::end_of(&hosts.bastion, connection), case.reason, "{}", case.name);
        }
        let (status, says) = case.next;
        let again = hosts.through("ssh", "alice", HOST).args(["localhost", "true"]).output().unwrap();
        let again: crate::support::Finished = again.into();
        assert_eq!(again.code(), status, "{}: {again:?}", case.name);
        again.says(says);
        (case.undo)(&hosts);
        let _ended_already =
            hosts.bastion.post("erin", "/pam/revoke", json!({ "session": session, "why": "tidy" }));
    }
    crate::credentials_are_destroyed(&hosts.bastion);
    crate::all_is_well(&hosts.bastion);
}

#[test]
fn a_drain_lets_what_is_up_go_on_and_tells_it_when_its_time_is_over() {
    let settings = vec![("server", "drain_timeout = \"2s\"".to_owned())];
    let mut hosts = Hosts::start_for(Options { settings, ..Options::default() }, crate::PEOPLE);
    hosts.grant();
    let mut clients = Clients::start(&hosts);
    hosts.bastion.signal(Signal::TERM);
    wait_until("nothing new is accepted", || {
        std::net::TcpStream::connect(("127.0.0.1", hosts.bastion.ssh_port)).is_err()
    });
    clients.shell.types("echo goes[$((40 + 2))]\n");
    assert_eq!(clients.shell.value("goes"), "42");
    for client in [&mut clients.shell, &mut clients.command, &mut clients.forward] {
        assert_eq!(client.ends(), Some(255), "{}", client.err());
        client.says("sallyport: the gateway is shutting down");
    }
    hosts.bastion.ended().success();
    for connection in &clients.connections {
        assert_eq!(crate::end_of(&hosts.bastion, connection), json!({ "end": "shutdown" }));
    }
    crate::all_is_well(&hosts.bastion);
}
