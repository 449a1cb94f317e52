//! Another key for each of the SSH authorities while people work, with OpenSSH on both sides: those who were told in
//! time notice nothing, and those who were not are refused with the reason.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use support::sshd::HOST;
use support::{Finished, Hosts, Options, wait_until};

fn start() -> Hosts {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    hosts.grant();
    hosts
}

fn rotate(hosts: &Hosts, step: &str, authority: &str) -> Finished {
    let config = hosts.bastion.config_file();
    hosts.bastion.operator(&["ca", "rotate", step, authority, "--config", config.to_str().unwrap()])
}

/// Has the server take up what there is; gives what it says of the authority's keys.
fn reload(hosts: &Hosts, authority: &str) -> Vec<Value> {
    let before = hosts.bastion.events("configuration_reloaded").len();
    hosts.bastion.signal(Signal::HUP);
    let reloaded = || hosts.bastion.events("configuration_reloaded").get(before).cloned();
    wait_until("the server has reloaded", || reloaded().is_some());
    reloaded().unwrap()["detail"][format!("ssh_{authority}_ca")].as_array().unwrap().clone()
}

/// The authority's keys in a role.
fn keys(hosts: &Hosts, authority: &str, role: &str) -> Vec<Value> {
    let config = hosts.bastion.config_file();
    let shown = hosts.bastion.operator(&["ca", "show", "--json", "--config", config.to_str().unwrap()]);
    let shown = shown.success().json();
    let authorities = shown["authorities"].as_array().unwrap();
    let of = authorities.iter().find(|found| found["name"] == authority).unwrap();
    of["keys"].as_array().unwrap().iter().filter(|key| key["role"] == role).cloned().collect()
}

fn key(hosts: &Hosts, authority: &str, role: &str) -> Value {
    let [key] = keys(hosts, authority, role).try_into().unwrap();
    key
}

/// What a host is told to trust: the lines between `<<'END'` and `END` of the script.
fn bootstrap(hosts: &Hosts) -> String {
    let script = hosts.bastion.run_as("alice", &["target", "bootstrap", "ssh", HOST]).success().stdout;
    let (_, rest) = script.split_once("sallyport_login_ca.pub <<'END'\n").unwrap();
    rest.split_once("END\n").unwrap().0.to_owned()
}

/// Has the host trust these.
fn trust(hosts: &Hosts, lines: &str) {
    fs::write(hosts.sshd.path("authority.pub"), lines).unwrap();
}

/// The authority of the latest certificate that the host took.
fn let_in_by(hosts: &Hosts) -> String {
    let log = hosts.sshd.log();
    let accepted = log.lines().rfind(|line| line.contains("Accepted publickey")).unwrap();
    accepted.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn targets_that_were_told_in_time_let_the_gateway_in_by_either_key() {
    let hosts = start();
    let first = key(&hosts, "login", "current");
    rotate(&hosts, "activate", "login")
        .failure()
        .says("no next key is prepared")
        .says("ca rotate prepare login");
    rotate(&hosts, "retire", "login").success().says("has no key before its current one");

    rotate(&hosts, "prepare", "login")
        .success()
        .says("sallyport target bootstrap ssh")
        .says("ca rotate activate login");
    rotate(&hosts, "prepare", "login").success().says("is there already");
    rotate(&hosts, "retire", "login").failure().says("activate it first");
    let taken_back = key(&hosts, "login", "next");
    rotate(&hosts, "abandon", "login").success().says("has forgotten its next key");
    rotate(&hosts, "abandon", "login").success().says("has no next key");
    assert_eq!(reload(&hosts, "login"), [first["fingerprint"].clone()]);
    rotate(&hosts, "prepare", "login").success().says("Made the next key");
    let second = key(&hosts, "login", "next");
    assert_ne!(second["fingerprint"], taken_back["fingerprint"]);
    assert_eq!(reload(&hosts, "login"), [first["fingerprint"].clone(), second["fingerprint"].clone()]);
    let both = bootstrap(&hosts);
    assert_eq!(both.lines().count(), 2, "{both}");
    trust(&hosts, &both);
    hosts.run("echo first").success().says("first");
    assert_eq!(let_in_by(&hosts), first["fingerprint"]);

    rotate(&hosts, "activate", "login").success().says("sallyport ca rotate retire login");
    rotate(&hosts, "activate", "login").success().says("already");
    rotate(&hosts, "prepare", "login").failure().says("retire it first");
    rotate(&hosts, "abandon", "login").failure().says("signs already").says("ca rotate retire login");
    // Until it is told, the server signs with the key that it has.
    hosts.run("echo still").success().says("still");
    assert_eq!(let_in_by(&hosts), first["fingerprint"]);
    assert_eq!(reload(&hosts, "login"), [second["fingerprint"].clone(), first["fingerprint"].clone()]);
    assert_eq!(bootstrap(&hosts).lines().count(), 2);
    hosts.run("echo second").success().says("second");
    assert_eq!(let_in_by(&hosts), second["fingerprint"]);

    // One that was not told.
    trust(&hosts, first["line"].as_str().unwrap());
    hosts.run("echo never").failure().says("does not accept our certificate").says("TrustedUserCAKeys");

    rotate(&hosts, "retire", "login").success().says("sallyport target bootstrap ssh");
    assert_eq!(reload(&hosts, "login"), [second["fingerprint"].clone()]);
    trust(&hosts, &bootstrap(&hosts));
    hosts.run("echo alone").success().says("alone");
    let public = fs::read_to_string(hosts.bastion.data().join("ssh/login_ca.pub")).unwrap();
    let bare = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(bare(&bootstrap(&hosts)), bare(second["line"].as_str().unwrap()));
    assert_eq!(bare(&public), bare(second["line"].as_str().unwrap()));
    let shown =
        hosts.bastion.operator(&["ca", "show", "--config", hosts.bastion.config_file().to_str().unwrap()]);
    shown
        .success()
        .says(second["fingerprint"].as_str().unwrap())
        .says("vouches for the gateway, to the targets");
}

#[test]
fn clients_that_were_told_in_time_know_the_gateway_by_either_key() {
    let hosts = start();
    let known = hosts.bastion.scratch().join("known_hosts");
    hosts.run("echo known").success();
    let old = fs::read_to_string(&known).unwrap();
    rotate(&hosts, "prepare", "host").success().says("sallyport config ssh");
    assert_eq!(reload(&hosts, "host").len(), 2);
    let printed = hosts.bastion.run_as("alice", &["config", "ssh", "--print"]).success().stdout;
    let authorities = printed.lines().filter(|line| line.starts_with("@cert-authority"));
    let anywhere =
        authorities.map(|line| ["@cert-authority * ", line.splitn(3, ' ').nth(2).unwrap(), "\n"].concat());
    let new: String = anywhere.collect();
    assert_eq!(new.lines().count(), 2, "{printed}");
    fs::write(&known, &new).unwrap();
    hosts.run("echo told").success();

    rotate(&hosts, "activate", "host").success();
    reload(&hosts, "host");
    hosts.run("echo new").success().says("new");
    // No certificate that was made before is shown any more.
    fs::write(&known, &old).unwrap();
    hosts.run("echo never").failure().says("Host key verification failed");
}

#[test]
fn people_keep_their_certificates_until_the_key_before_is_retired() {
    let hosts = start();
    rotate(&hosts, "prepare", "user").success();
    rotate(&hosts, "activate", "user").success();
    assert_eq!(reload(&hosts, "user").len(), 2);
    hosts.run("echo old").success().says("old");
    rotate(&hosts, "retire", "user").success();
    assert_eq!(reload(&hosts, "user").len(), 1);
    hosts.run("echo never").failure().says("Permission denied");
    hosts.bastion.log_in("alice").success();
    hosts.run("echo again").success().says("again");
}

#[test]
fn a_bad_key_keeps_those_that_are_in_force() {
    let hosts = start();
    fs::write(hosts.bastion.data().join("ssh/login_ca.next"), "not a key").unwrap();
    hosts.bastion.signal(Signal::HUP);
    wait_until("the reload has failed", || {
        hosts.bastion.events("configuration_reloaded").iter().any(|event| event["outcome"] == "failed")
    });
    hosts.run("echo in").success();
}
