//! From a login to plain `ssh TARGET`: what `sallyport config ssh` writes does with the real programs,
//! and what `sallyport target bootstrap ssh` prints makes a host accept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::sshd::{ACCESS, HOST, login};
use support::{Finished, Hosts, Options, Sshd};

fn config_of(hosts: &Hosts) -> PathBuf {
    hosts.bastion.scratch().join(".ssh/config")
}

/// A program of OpenSSH's with what was written. It asks the system for the home directory, and so
/// would not find a test's.
fn plain(hosts: &Hosts, program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("-F").arg(config_of(hosts)).args(["-o", "LogLevel=ERROR"]).stdin(Stdio::null());
    command
}

fn finish(command: &mut Command) -> Finished {
    command.output().unwrap().into()
}

#[test]
fn after_a_login_and_config_ssh_every_program_reaches_a_host_by_its_name() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    hosts.bastion.run_as("alice", &["config", "ssh"]).success().says("connect: ssh ");
    let output = finish(plain(&hosts, "ssh").args([HOST, "echo by-name"])).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("by-name\n", ""));
    finish(plain(&hosts, "ssh").args(["web-1.dev", "true"])).success();
    let (from, to) = (hosts.bastion.scratch().join("from"), hosts.bastion.scratch().join("to"));
    fs::write(&from, "copied").unwrap();
    let remote = format!("{HOST}:{}", to.display());
    let shell = format!("ssh -F {}", config_of(&hosts).display());
    let mut rsync = Command::new("rsync");
    rsync.args(["-e", &shell]).arg(&from).arg(&remote);
    let mut scp = plain(&hosts, "scp");
    scp.arg(&from).arg(&remote);
    for command in [&mut scp, &mut rsync] {
        finish(command).success();
        assert_eq!(fs::read_to_string(&to).unwrap(), "copied");
        fs::remove_file(&to).unwrap();
    }
    // The gateway's own name says no target yet.
    let finished = finish(plain(&hosts, "ssh").args(["sallyport", "true"]));
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says("name a target");
    let finished = finish(plain(&hosts, "ssh").args(["web-prod", "true"]));
    assert_eq!(finished.code(), 77, "{finished:?}");
    finished.says("sallyport request web-prod");

    let finished = hosts.bastion.run_as("alice", &["ssh", HOST, "--", "echo by-sallyport; exit 3"]);
    assert_eq!((finished.code(), finished.stdout.as_str()), (3, "by-sallyport\n"), "{finished:?}");
    let finished = hosts.bastion.run_as("alice", &["ssh", HOST, "--access", ACCESS, "--", "true"]);
    assert_eq!(finished.code(), 0, "{finished:?}");
    hosts.bastion.run_as("alice", &["ssh", "nowhere"]).failure().says("there is no SSH target `nowhere`");

    // Written again it stays one block, and what was there stays.
    let own = "Host mine\n    User me\n";
    let written = fs::read_to_string(config_of(&hosts)).unwrap();
    fs::write(config_of(&hosts), written + own).unwrap();
    hosts.bastion.run_as("alice", &["config", "ssh"]).success();
    let written = fs::read_to_string(config_of(&hosts)).unwrap();
    assert_eq!((written.matches("Include").count(), written.matches(own).count()), (1, 1), "{written}");
    finish(plain(&hosts, "ssh").args([HOST, "true"])).success();
    // A logout leaves nothing that lets in.
    hosts.bastion.run_as("alice", &["logout"]).success();
    assert_eq!(finish(plain(&hosts, "ssh").args(["-o", "BatchMode=yes", HOST, "true"])).code(), 255);
}

/// The script is for a host's own `/etc/ssh`; here it works on a copy of that layout, with a `systemctl`
/// that says what it was told.
#[test]
fn the_bootstrap_script_makes_a_fresh_sshd_accept() {
    let mut hosts = Hosts::start_for(Options::default(), &["alice"]);
    let mut fresh = Sshd::start(&fs::read_to_string(hosts.sshd.path("direct.pub")).unwrap());
    hosts.bastion.kill();
    hosts.bastion.set_targets(&fresh.target(HOST, "dev", ""));
    hosts.bastion.boot();
    hosts.grant();
    hosts.run("true").failure().says("`sallyport target bootstrap ssh`");
    let script = hosts.bastion.run_as("alice", &["target", "bootstrap", "ssh", HOST]).success().stdout;

    let etc = fresh.path("etc");
    fs::create_dir_all(etc.join("sshd_config.d")).unwrap();
    let told = fresh.path("told");
    for (name, text) in [
        ("systemctl", format!("#!/bin/sh\necho \"$@\" >> {}\n", told.display())),
        ("sshd", format!("#!/bin/sh\nexec /usr/sbin/sshd -f {} \"$@\"\n", fresh.path("config").display())),
    ] {
        fs::write(fresh.path(name), text).unwrap();
        fs::set_permissions(fresh.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", fresh.path("").display(), std::env::var("PATH").unwrap());
    let here = script.replace("/etc/ssh", etc.to_str().unwrap());
    let prepare =
        || Finished::from(Command::new("sh").args(["-ec", &here]).env("PATH", &path).output().unwrap());
    // The harness's host has an authority already, and sshd takes one file of them.
    let told_why = prepare();
    told_why
        .failure()
        .says(&format!("sshd has its authorities in {}", fresh.path("authority.pub").display()));
    assert!(!etc.join("sallyport_login_ca.pub").exists() && !told.exists());
    let trusting_nobody = || {
        let config = fs::read_to_string(fresh.path("config")).unwrap();
        let lines = config.lines().filter(|line| !line.starts_with("TrustedUserCAKeys"));
        fs::write(fresh.path("config"), lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    };
    trusting_nobody();
    prepare().failure().says("sshd does not read");
    // As Debian has it: the directory is included first.
    fresh.configure(&format!("Include {}/sshd_config.d/*.conf", etc.display()));
    trusting_nobody();
    prepare().success();
    prepare().success();
    assert_eq!(fs::read_to_string(&told).unwrap(), "reload ssh\nreload ssh\n");
    fresh.restart();
    assert_eq!(hosts.run("id -un").success().stdout.trim(), login());
}
