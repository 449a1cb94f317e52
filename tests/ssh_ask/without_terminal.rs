use std::fs;
use std::process::Command;

use super::support::Finished;
use super::support::sshd::{ACCESS, HOST};
use super::{NO_SESSION, requests, start};

#[test]
fn without_a_terminal_every_client_shows_the_command_that_asks_for_a_session() {
    let hosts = start();
    let line = format!(
        "sallyport: you have no active session for `{HOST}`. Ask for one: sallyport request {HOST} {ACCESS} --reason \"…\"\n"
    );
    let run = |arguments: &[&str]| -> Finished {
        hosts.through("ssh", "alice", HOST).args(arguments).output().unwrap().into()
    };
    let plain = run(&["localhost", "true"]);
    assert_eq!((plain.code(), plain.stderr.as_str(), plain.stdout.as_str()), (NO_SESSION, line.as_str(), ""));
    for arguments in [
        &["localhost"][..],
        &["-T", "localhost"],
        &["-s", "localhost", "sftp"],
        &["-tt", "localhost", "true"],
    ] {
        let finished = run(arguments);
        assert_eq!(finished.code(), NO_SESSION, "{arguments:?}: {finished:?}");
        assert!(
            finished.stderr.contains(line.trim_end()) || finished.stdout.contains(line.trim_end()),
            "{arguments:?}: {finished:?}"
        );
    }
    let file = hosts.bastion.scratch().join("file");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let through = |program: &str, arguments: &[&str]| {
        let mut command = hosts.through(program, "alice", HOST);
        command.args(arguments);
        command
    };
    let ssh = through("ssh", &[]);
    let shell = std::iter::once("ssh".to_owned()).chain(ssh.get_args().map(|part| {
        let part = part.to_str().unwrap();
        assert!(!part.contains(' '), "{part}");
        part.to_owned()
    }));
    let shell = shell.collect::<Vec<_>>().join(" ");
    let mut rsync = Command::new("rsync");
    rsync.args(["-e", &shell, file, "localhost:/tmp/"]);
    for mut command in [
        through("scp", &[file, "localhost:/tmp/"]),
        through("scp", &["-O", file, "localhost:/tmp/"]),
        through("sftp", &["localhost"]),
        rsync,
    ] {
        let finished: Finished = command.output().unwrap().into();
        assert!(!finished.status.success(), "{command:?}");
        assert!(finished.stderr.contains(line.trim_end()), "{command:?}: {finished:?}");
    }
    // The line is right as it stands.
    hosts.bastion.run_as("alice", &["request", HOST, ACCESS, "--reason", "…"]).success();
    run(&["localhost", "true"]).success();
    assert_eq!(requests(&hosts).len(), 1);
}

#[test]
fn what_is_refused_without_a_session_is_on_record_and_so_is_who_comes_for_nothing() {
    let hosts = start();
    let run = |target: &str, arguments: &[&str]| -> Finished {
        hosts.through("ssh", "alice", target).args(arguments).output().unwrap().into()
    };
    run(HOST, &["-W", "localhost:1", "localhost"]).failure();
    let refused = |what: &str| {
        let events = hosts.bastion.events("connection_refused");
        events.iter().any(|event| event["principal"]["name"] == "alice" && event.to_string().contains(what))
    };
    assert!(
        refused("a connection to localhost:1: you have no active session"),
        "{:?}",
        hosts.bastion.events("connection_refused")
    );
    run(HOST, &["-R", "/tmp/never:localhost:1", "localhost", "true"]).failure();
    assert!(refused("listening on /tmp/never"));
    assert!(hosts.bastion.events("login").iter().all(|event| event["detail"]["way"] != "certificate"));
    run("", &["localhost", "true"]).failure().says("name a target");
    let logins = hosts.bastion.events("login");
    assert!(logins.iter().any(|event| event["detail"]["way"] == "certificate"), "{logins:?}");
    hosts.bastion.verify().success();
}
