//! The gateway's own way to a host: how it knows the host, what it shows there, and what a person is
//! told when one of both does not do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use support::process::Running;
use support::sshd::{ACCESS, HOST, login};
use support::{Finished, Hosts, Options, Sshd, wait_until};

/// What `ssh` ends with when the connection was the problem.
const FAILED: i32 = 255;

fn start() -> Hosts {
    Hosts::start_for(Options::default(), &["alice"])
}

/// Other targets, and sessions for Alice on all of them.
fn with_targets(hosts: &mut Hosts, targets: &[(&str, String)]) {
    hosts.bastion.kill();
    hosts.bastion.set_targets(&targets.iter().map(|(_, text)| text.as_str()).collect::<String>());
    hosts.bastion.boot();
    for (name, _) in targets {
        hosts.bastion.grant("alice", name, ACCESS, 3600, &[]);
    }
}

fn run(hosts: &Hosts, target: &str) -> Finished {
    hosts.through("ssh", "alice", target).args(["localhost", "echo in"]).output().unwrap().into()
}

fn login_authority(hosts: &Hosts) -> String {
    fs::read_to_string(hosts.bastion.data().join("ssh/login_ca.pub")).unwrap()
}

fn keygen(arguments: &[&str]) -> String {
    Finished::from(Command::new("ssh-keygen").args(arguments).output().unwrap()).success().stdout
}

fn fingerprint(public: &str) -> String {
    keygen(&["-lf", public]).split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_host_with_another_key_is_refused_with_both_fingerprints_and_learns_nothing() {
    let mut hosts = start();
    // The key that was known before it changed.
    let was = fs::read_to_string(hosts.sshd.path("direct.pub")).unwrap();
    let text = hosts.sshd.target("moved", "dev", "").replace(&hosts.sshd.host_key(), was.trim());
    with_targets(&mut hosts, &[("moved", text)]);
    let logins = hosts.sshd.log().matches("Postponed").count() + hosts.sshd.log().matches("Accepted").count();
    let finished = run(&hosts, "moved");
    assert_eq!(finished.code(), FAILED, "{finished:?}");
    let [found, expected] =
        ["host.pub", "direct.pub"].map(|name| fingerprint(hosts.sshd.path(name).to_str().unwrap()));
    finished.says(&format!("has the host key {found}, and {expected} is expected")).says("`host_keys`");
    let ended = &hosts.ended(1)[0];
    assert!(ended["why"].as_str().unwrap().contains(&found), "{ended}");
    let log = hosts.sshd.log();
    assert_eq!(log.matches("Postponed").count() + log.matches("Accepted").count(), logins, "{log}");
}

#[test]
fn a_host_is_known_by_a_certificate_of_its_authority_that_holds() {
    let mut hosts = start();
    for name in ["ca", "other-ca"] {
        keygen(&["-q", "-t", "ed25519", "-N", "", "-f", hosts.sshd.path(name).to_str().unwrap()]);
    }
    let authority = fs::read_to_string(hosts.sshd.path("ca.pub")).unwrap();
    let pinned = format!("host_keys = [\"{}\"]", hosts.sshd.host_key());
    let certified = format!("host_ca = [\"{}\"]", authority.trim());
    let text = hosts.sshd.target("certified", "dev", "").replace(&pinned, &certified);
    with_targets(&mut hosts, &[("certified", text)]);
    let plain = run(&hosts, "certified");
    assert_eq!(plain.code(), FAILED, "{plain:?}");
    plain.says("and a host certificate is expected");
    let now = ["-V", "-1h:+1h"];
    let cases: [(&str, &str, Vec<&str>, Option<&str>); 5] = [
        ("as it should be", "ca", [&["-n", "127.0.0.1"][..], &now].concat(), None),
        (
            "for another name",
            "ca",
            [&["-n", "other.example"][..], &now].concat(),
            Some("is not for `127.0.0.1`"),
        ),
        ("for no name", "ca", now.to_vec(), Some("names nobody")),
        ("expired", "ca", vec!["-n", "127.0.0.1", "-V", "-2h:-1h"], Some("the certificate expired at")),
        (
            "of another authority",
            "other-ca",
            [&["-n", "127.0.0.1"][..], &now].concat(),
            Some("is not trusted here"),
        ),
    ];
    hosts.sshd.configure(&format!("HostCertificate {}", hosts.sshd.path("host-cert.pub").display()));
    for (what, ca, options, told) in cases {
        let [ca, key] = [ca, "host.pub"].map(|name| hosts.sshd.path(name).display().to_string());
        keygen(&[&["-q", "-h", "-s", &ca, "-I", "host"][..], &options, &[&key]].concat());
        hosts.sshd.restart();
        let finished = run(&hosts, "certified");
        match told {
            None => assert_eq!(finished.code(), 0, "{what}: {finished:?}"),
            Some(told) => {
                assert_eq!(finished.code(), FAILED, "{what}: {finished:?}");
                assert!(finished.stderr.contains(told), "{what}: {finished:?}");
            }
        }
    }
}

#[test]
fn a_host_that_cannot_be_had_is_said_to_be_so_and_holds_nobody_else_up() {
    let mut hosts = start();
    let distrusting = Sshd::start(&fs::read_to_string(hosts.sshd.path("direct.pub")).unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = |port: u16| {
        let here = format!("127.0.0.1:{}", hosts.sshd.port);
        hosts.sshd.target("x", "dev", "").replace(&here, &format!("127.0.0.1:{port}"))
    };
    let named = |name: &str, text: String| text.replace("name = \"x\"", &format!("name = \"{name}\""));
    let targets = [
        (HOST, hosts.sshd.target(HOST, "dev", "")),
        ("distrusting", distrusting.target("distrusting", "dev", "")),
        ("down", named("down", at(support::postgres::free_port()))),
        ("silent", named("silent", at(silent.local_addr().unwrap().port()))),
    ];
    with_targets(&mut hosts, &targets);
    let mut waiting =
        Running::start_quietly(hosts.through("ssh", "alice", "silent").args(["localhost", "true"]));
    let accepted = silent.accept().unwrap();
    for (target, told) in [
        ("distrusting", "`TrustedUserCAKeys` (`sallyport target bootstrap ssh`)"),
        ("down", "cannot be reached"),
    ] {
        let finished = run(&hosts, target);
        assert_eq!(finished.code(), FAILED, "{target}: {finished:?}");
        finished.says("sallyport: the target cannot be reached: 127.0.0.1:").says(told);
    }
    run(&hosts, HOST).success();
    assert!(waiting.is_running(), "the others did not wait for it");
    let finished = waiting.finish();
    assert_eq!(finished.code(), FAILED, "{finished:?}");
    finished.says("does not answer within 10 s");
    drop(accepted);
    let whys = hosts.ended(4).into_iter().filter(|record| record["why"].is_string()).count();
    assert_eq!(whys, 3, "each is on record");
    let steps = hosts.records("credential");
    for step in ["issued", "destroyed"] {
        // None for the one to which there was no connection.
        assert_eq!(steps.iter().filter(|record| record["step"] == step).count(), 3, "{step}: {steps:?}");
    }
}

#[test]
fn a_host_sees_who_comes_by_the_certificates_id_and_from_where_it_may_be_used() {
    let mut hosts = start();
    let with = |name: &str, source: &str| {
        let text = hosts.sshd.target(name, "dev", "").trim_end().to_owned();
        (text + &format!("\nsource_address = \"{source}\"\n\n"), name.to_owned())
    };
    let (here, elsewhere) = (with("here", "127.0.0.0/8"), with("elsewhere", "192.0.2.1"));
    with_targets(&mut hosts, &[("here", here.0), ("elsewhere", elsewhere.0)]);
    run(&hosts, "here").success();
    let opened = &hosts.records("opened")[0];
    let id = format!(
        "sallyport {}/{}/1",
        opened["session"].as_str().unwrap(),
        opened["connection"].as_str().unwrap()
    );
    let authority = hosts.bastion.scratch().join("authority.pub");
    fs::write(&authority, login_authority(&hosts)).unwrap();
    let log = hosts.sshd.log();
    let accepted = log.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("{id}: {log}"));
    assert!(accepted.contains(&fingerprint(authority.to_str().unwrap())), "{accepted}");
    let issued = &hosts.records("credential")[0];
    assert_eq!(issued["handle"], id.as_str(), "{issued}");

    let finished = run(&hosts, "elsewhere");
    assert_eq!(finished.code(), FAILED, "{finished:?}");
    finished.says(&format!("does not accept our certificate for `{}`", login()));
    wait_until("sshd says why", || {
        hosts.sshd.log().contains("not in listed") || hosts.sshd.log().contains("not from")
    });
}
