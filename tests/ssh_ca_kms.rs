//! SSH authorities whose keys do not leave Amazon KMS: what they sign opens hosts and the gateway as a key in a file
//! does. While KMS is away nobody gets a certificate, and is told why.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail by panicking")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::amazon::{ENVIRONMENT, Emulator, FaultProxy, Faults, REGION};
use support::sshd::HOST;
use support::{Bastion, Finished, Hosts, Options, wait_until};

/// Makes a key of kind `spec`; gives its ARN.
fn create_key(amazon: &Emulator, spec: &str) -> String {
    let made =
        format!("k = c.create_key(KeySpec='{spec}', KeyUsage='SIGN_VERIFY')['KeyMetadata']\nprint(k['Arn'])");
    amazon.python("kms", &made).trim().to_owned()
}

fn options(url: &str, authorities: &[(&str, &str)]) -> Options {
    let reached = [format!("kms_region = \"{REGION}\""), format!("kms_endpoint = \"{url}\"")];
    let keys = authorities.iter().map(|(name, key)| format!("{name}_ca = \"{key}\""));
    Options {
        settings: reached.into_iter().chain(keys).map(|line| ("ssh", line)).collect(),
        ..Options::default()
    }
}

/// The lines of `sallyport ca show` for an authority.
fn shown(bastion: &Bastion, authority: &str) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(["ca", "show", "--json", "--config"]).arg(bastion.config_file()).envs(ENVIRONMENT);
    let shown = Finished::from(command.output().unwrap()).success().json();
    let authorities = shown["authorities"].as_array().unwrap();
    let of = authorities.iter().find(|found| found["name"] == authority).unwrap();
    of["keys"].as_array().unwrap().iter().map(|key| key["line"].as_str().unwrap().to_owned()).collect()
}

/// What a host is told to trust: the lines between `<<'END'` and `END` of the script.
fn bootstrap(hosts: &Hosts) -> String {
    let script = hosts.bastion.run_as("alice", &["target", "bootstrap", "ssh", HOST]).success().stdout;
    let (_, rest) = script.split_once("sallyport_login_ca.pub <<'END'\n").unwrap();
    rest.split_once("END\n").unwrap().0.to_owned()
}

fn trust(hosts: &Hosts, lines: &str) {
    fs::write(hosts.sshd.path("authority.pub"), lines).unwrap();
}

/// Changes the configuration, has the server reload it, and gives the record of that.
fn reconfigure(hosts: &Hosts, change: impl FnOnce(String) -> String) -> serde_json::Value {
    let file = hosts.bastion.config_file();
    fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    let before = hosts.bastion.events("configuration_reloaded").len();
    hosts.bastion.signal(Signal::HUP);
    let reloaded = || hosts.bastion.events("configuration_reloaded").get(before).cloned();
    wait_until("the server has reloaded", || reloaded().is_some());
    reloaded().unwrap()
}

fn let_in_by(hosts: &Hosts) -> String {
    let log = hosts.sshd.log();
    let accepted = log.lines().rfind(|line| line.contains("Accepted publickey")).unwrap();
    accepted.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn all_three_authorities_may_be_in_kms() {
    let amazon = Emulator::ministack();
    let keys = [(); 3].map(|()| create_key(&amazon, "ECC_NIST_P256"));
    let authorities = [("host", keys[0].as_str()), ("user", &keys[1]), ("login", &keys[2])];
    let hosts = Hosts::start_for(options(&amazon.url(), &authorities), &["alice"]);
    hosts.grant();
    let lines = bootstrap(&hosts);
    assert!(lines.starts_with("ecdsa-sha2-nistp256 ") && lines.lines().count() == 1, "{lines}");
    trust(&hosts, &lines);
    let [host] = shown(&hosts.bastion, "host").try_into().unwrap();
    fs::write(hosts.bastion.scratch().join("known_hosts"), format!("@cert-authority * {host}\n")).unwrap();
    hosts.run("echo in").success().says("in");
    let certificate = hosts.bastion.home("alice").join("ssh/id_ed25519-cert.pub");
    let listed = Command::new("ssh-keygen").arg("-Lf").arg(certificate).output().unwrap();
    Finished::from(listed).success().says("Signing CA: ECDSA").says("using ecdsa-sha2-nistp256");
}

#[test]
fn a_key_in_kms_has_a_successor_by_the_configuration() {
    let amazon = Emulator::ministack();
    let [first, second] = [(); 2].map(|()| create_key(&amazon, "ECC_NIST_P256"));
    let hosts = Hosts::start_for(options(&amazon.url(), &[("login", &first)]), &["alice"]);
    hosts.grant();
    let config = hosts.bastion.config_file();
    let refused =
        hosts.bastion.operator(&["ca", "rotate", "prepare", "login", "--config", config.to_str().unwrap()]);
    refused.failure().says("is in KMS").says("login_ca_trusted");

    let prepared = reconfigure(&hosts, |text| {
        text.replace("login_ca = ", &format!("login_ca_trusted = [\"{second}\"]\nlogin_ca = "))
    });
    let keys = prepared["detail"]["ssh_login_ca"].as_array().unwrap().clone();
    assert_eq!(keys.len(), 2, "{prepared}");
    trust(&hosts, &bootstrap(&hosts));
    hosts.run("echo first").success().says("first");
    assert_eq!(let_in_by(&hosts), keys[0]);
    let swap =
        |text: String| text.replace(&first, "FIRST").replace(&second, &first).replace("FIRST", &second);
    let activated = reconfigure(&hosts, swap);
    assert_eq!(activated["detail"]["ssh_login_ca"], serde_json::json!([keys[1], keys[0]]));
    hosts.run("echo second").success().says("second");
    assert_eq!(let_in_by(&hosts), keys[1]);
    assert_eq!(shown(&hosts.bastion, "login").len(), 2);
    let retired = reconfigure(&hosts, |text| text.replace(&format!("[\"{first}\"]"), "[]"));
    assert_eq!(retired["detail"]["ssh_login_ca"], serde_json::json!([keys[1]]));
}

#[test]
fn while_kms_is_away_nobody_gets_in_and_all_else_goes_on() {
    let amazon = Emulator::ministack();
    let keys = [(); 2].map(|()| create_key(&amazon, "ECC_NIST_P256"));
    let proxy = FaultProxy::before(&amazon, 0x5a11_7010);
    let authorities = [("user", keys[0].as_str()), ("login", &keys[1])];
    let mut hosts = Hosts::start_for(options(&proxy.url(), &authorities), &["alice"]);
    hosts.grant();
    trust(&hosts, &bootstrap(&hosts));
    hosts.run("echo in").success();

    proxy.set(Faults { down: true, ..Faults::default() });
    hosts.run("echo never").failure().says("cannot log in there").says("keeper does not sign");
    let (status, body) = hosts.bastion.api(
        Some("alice"),
        "POST",
        "/pam/ssh-certificate",
        Some(serde_json::json!({ "public_key": hosts.sshd.host_key() })),
    );
    assert_eq!((status, &body["code"]), (503, &"authority_unavailable".into()), "{body}");
    let reloaded = reconfigure(&hosts, |text| text);
    assert_eq!(reloaded["outcome"], "done", "{reloaded}");
    // A crash meanwhile: the public keys are known from before.
    hosts.bastion.kill();
    hosts.bastion.boot();
    hosts.run("echo never").failure().says("keeper does not sign");

    proxy.set(Faults::default());
    proxy.set_silent(true);
    let asked = Instant::now();
    hosts.run("echo never").failure().says("cannot log in there");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    proxy.set_silent(false);
    hosts.run("echo back").success().says("back");
    assert!(!hosts.bastion.log().contains("panicked"), "{}", hosts.bastion.log());
}

#[test]
fn what_another_key_signs_opens_nothing() {
    let amazon = Emulator::ministack();
    let [first, second] = [(); 2].map(|()| create_key(&amazon, "ECC_NIST_P256"));
    let alias = |call: &str, arn: &str| {
        let id = arn.rsplit('/').next().unwrap();
        amazon.python("kms", &format!("c.{call}_alias(AliasName='alias/login', TargetKeyId='{id}')"));
    };
    alias("create", &first);
    let hosts = Hosts::start_for(options(&amazon.url(), &[("login", "alias/login")]), &["alice"]);
    hosts.grant();
    trust(&hosts, &bootstrap(&hosts));
    hosts.run("echo in").success();
    alias("update", &second);
    hosts.run("echo never").failure().says("made with another key");
    // Read again, it is another authority, which the host does not know.
    reconfigure(&hosts, |text| text);
    hosts.run("echo never").failure().says("does not accept our certificate");
    trust(&hosts, &bootstrap(&hosts));
    hosts.run("echo in").success();
}

#[test]
fn a_key_of_another_kind_or_of_another_authority_is_refused_with_a_clear_word() {
    let amazon = Emulator::ministack();
    let (good, other) = (create_key(&amazon, "ECC_NIST_P256"), create_key(&amazon, "ECC_NIST_EDWARDS25519"));
    let twice = format!(
        "c.create_alias(AliasName='alias/twice', TargetKeyId='{}')",
        good.rsplit('/').next().unwrap()
    );
    amazon.python("kms", &twice);
    for (authorities, said) in [
        (&[("login", other.as_str())][..], "make one of kind ECC_NIST_P256 for SIGN_VERIFY"),
        (&[("login", "alias/none")], "KMS refuses"),
        (&[("user", good.as_str()), ("login", "alias/twice")], "ssh.login_ca has the same key as user_ca"),
    ] {
        let mut bastion = Bastion::prepare_hosts(None, options(&amazon.url(), authorities));
        bastion.refuses_to_start().says(said).says("ssh.login_ca");
    }
}
