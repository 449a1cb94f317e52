//! What a session may be used for: the operator's rules and the target's labels, asked for each thing
//! that a client wants, while it is connected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::process::Command;

use support::process::Running;
use support::sshd::HOST;
use support::{Finished, Hosts, Options, Terminal, wait_until};

/// Rules of an operator who lets nobody run programs but one, and none copy files.
const STRICT: &str = r#"
@id("SHELL-ONLY")
@needs("a shell: programs are not run on {target} without one")
forbid (principal, action == Action::"exec", resource)
unless { context.command == "uptime" };

@id("NO-SFTP")
@needs("a ticket for the file service")
forbid (principal, action == Action::"sftp", resource);
"#;

/// Commands are for those who keep the network.
const NETWORK: &str = r#"
@id("NETWORK")
@needs("a member of net-admins")
forbid (principal, action == Action::"exec", resource)
unless { principal in Group::"net-admins" };
"#;

fn strict() -> Hosts {
    with_rules(STRICT)
}

fn with_rules(rules: &str) -> Hosts {
    let mut hosts = Hosts::start_for(Options::default(), &["alice", "erin"]);
    let directory = hosts.bastion.data().join("policies");
    fs::create_dir_all(&directory).unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
    for entry in fs::read_dir(ours).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension != "md") {
            fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
        }
    }
    fs::write(directory.join("strict.cedar"), rules).unwrap();
    let config = hosts.bastion.config_file();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("[policies]\ndirectory = \"policies\"\n\n{text}")).unwrap();
    hosts.bastion.kill();
    hosts.bastion.boot();
    hosts
}

/// The refusals on record: what, rule.
fn refused(hosts: &Hosts) -> Vec<(String, String)> {
    let text = |record: &serde_json::Value, field: &str| record[field].as_str().unwrap().to_owned();
    let records = hosts.records("channel_refused");
    records.iter().map(|record| (text(record, "what"), text(record, "rule"))).collect()
}

#[test]
fn what_an_operators_rule_forbids_is_refused_told_and_on_record_with_the_rule() {
    let hosts = strict();
    hosts.grant();
    let finished = hosts.run("id");
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says("sallyport: refused by policy: SHELL-ONLY: a shell: programs are not run on web-1");
    hosts.run("uptime").success();
    let mut terminal = Terminal::start(hosts.through("ssh", "alice", HOST).args(["-tt", "localhost"]));
    terminal.types("echo in-$((6*7)); exit\r");
    terminal.shows("in-42");
    assert_eq!(terminal.finish().0, 0);
    // Neither as a subsystem nor as the program behind it.
    let mut sftp = hosts.through("sftp", "alice", HOST);
    Finished::from(sftp.arg("localhost").output().unwrap()).failure().says("NO-SFTP");
    let mut sftp = hosts.through("sftp", "alice", HOST);
    sftp.args(["-s", "/usr/lib/openssh/sftp-server", "localhost"]);
    Finished::from(sftp.output().unwrap()).failure().says("SHELL-ONLY");
    let expected = [("exec", "SHELL-ONLY"), ("sftp", "NO-SFTP"), ("exec", "SHELL-ONLY")];
    let expected = expected.map(|(what, rule)| (what.to_owned(), rule.to_owned()));
    assert_eq!(refused(&hosts), expected);
    let programs = hosts.records("program");
    assert_eq!(programs.len(), 2, "nothing that was refused reached the host: {programs:?}");
    hosts.bastion.verify().success();
}

#[test]
fn sftp_is_seen_as_what_it_is_by_whichever_name_it_comes() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    let (batch, to) = (hosts.bastion.scratch().join("batch"), hosts.bastion.scratch().join("to"));
    fs::write(&batch, format!("put {} {}\n", batch.display(), to.display())).unwrap();
    for options in [&[][..], &["-s", "/usr/lib/openssh/sftp-server"]] {
        let mut sftp = hosts.through("sftp", "alice", HOST);
        sftp.args(options).arg("-b").arg(&batch).arg("localhost");
        Finished::from(sftp.output().unwrap()).success();
    }
    let programs = hosts.records("program");
    assert_eq!((&programs[0]["how"], &programs[1]["how"]), (&"subsystem".into(), &"exec".into()));
    wait_until("the files are on record", || hosts.records("channel_ended").len() == 2);
    for rec in [&programs[0]["rec"], &programs[1]["rec"]] {
        let files = hosts.records("file");
        let written: Vec<_> = files.iter().filter(|file| file["rec"] == *rec).collect();
        assert!(written.iter().any(|file| file.to_string().contains(to.to_str().unwrap())), "{files:?}");
    }
}

#[test]
fn forwards_go_where_the_targets_labels_let_them() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice"]);
    let open = hosts.sshd.target("open", "dev", "forward = \"any\"");
    let local = hosts.sshd.target("local", "dev", "forward = \"local\"");
    let targets = open + &local + &hosts.sshd.target("closed", "dev", "");
    hosts.bastion.kill();
    hosts.bastion.set_targets(&targets);
    hosts.bastion.boot();
    let port = hosts.sshd.port;
    for (target, host, let_in) in [
        ("open", "localhost", true),
        ("open", "127.0.0.2", true),
        ("local", "localhost", true),
        ("local", "127.0.0.1", true),
        ("local", "127.0.0.2", false),
        ("local", "web-1", false),
        ("closed", "localhost", false),
    ] {
        if hosts.bastion.run_as("alice", &["sessions"]).stdout.lines().all(|line| !line.contains(target)) {
            hosts.bastion.grant("alice", target, support::sshd::ACCESS, 3600, &[]);
        }
        let before = refused(&hosts).len();
        let mut command: Command = hosts.through("ssh", "alice", target);
        command.args(["-o", "LogLevel=INFO", "-W", &format!("{host}:{port}"), "localhost"]);
        // `-o LogLevel` was given before, and the first counts.
        let finished: Finished = command.output().unwrap().into();
        let records = refused(&hosts);
        assert_eq!(records.len() > before, !let_in, "{target} to {host}: {finished:?}");
        if !let_in {
            assert_eq!(records.last().unwrap().1, "FORWARD", "{target} to {host}");
            assert_eq!(
                hosts.records("channel_refused").last().unwrap()["destination"],
                format!("{host}:{port}")
            );
        }
    }
}

#[test]
fn a_use_of_a_connection_is_judged_by_the_groups_of_the_moment() {
    let hosts = with_rules(NETWORK);
    hosts.grant();
    let config = hosts.bastion.config_file();
    let change = |groups: &[&str]| {
        let mut arguments = vec!["user", "set", "alice", "--config", config.to_str().unwrap()];
        arguments.extend(groups.iter().flat_map(|group| ["--group", *group]));
        hosts.bastion.operator(&arguments).success();
    };
    change(&["requesters", "net-admins"]);
    let control = format!("ControlPath={}", hosts.bastion.scratch().join("control").display());
    let mut master = hosts.through("ssh", "alice", HOST);
    let mut master = Running::start(master.args(["-M", "-N", "-o", &control, "localhost"]));
    let over_it = || -> Finished {
        let mut ssh = hosts.through("ssh", "alice", HOST);
        ssh.args(["-o", "ControlMaster=no", "-o", &control, "localhost", "echo done"])
            .output()
            .unwrap()
            .into()
    };
    wait_until("the connection is there", || hosts.records("opened").len() == 1);
    wait_until("its socket is", || hosts.bastion.scratch().join("control").exists());
    assert_eq!(over_it().success().stdout, "done\n");
    change(&["requesters"]);
    wait_until("the command is refused", || over_it().code() == 77);
    over_it().failure().says("NETWORK: a member of net-admins");
    assert!(master.is_running(), "what is permitted goes on");
    change(&["requesters", "net-admins"]);
    wait_until("the command is permitted", || over_it().code() == 0);
    assert_eq!(hosts.records("opened").len(), 1, "all of it over one connection");
}

#[test]
fn whoever_leaves_the_group_is_cut_and_let_in_no_more() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    let mut terminal = Terminal::start(hosts.through("ssh", "alice", HOST).args(["-tt", "localhost"]));
    terminal.types("echo in-$((6*7))\r");
    terminal.shows("in-42");
    let config = hosts.bastion.config_file();
    let change = |groups: &[&str]| {
        let mut arguments = vec!["user", "set", "alice", "--config", config.to_str().unwrap()];
        for group in groups {
            arguments.extend(["--group", group]);
        }
        hosts.bastion.operator(&arguments).success();
    };
    change(&["oncall"]);
    terminal.shows("sallyport: your session no longer permits this connection");
    assert_eq!(terminal.finish().0, 255);
    let finished = hosts.run("true");
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says("refused by policy");
    change(&["requesters"]);
    hosts.run("true").success();
}
