use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::SystemTime;

use data_encoding::BASE32_NOPAD;

use super::support::bastion::PASSWORD;
use super::support::sshd::HOST;
use super::support::{Finished, Hosts, Options, Terminal};
use super::{NO_SESSION, NOT_PROVED, find, unproved};

/// `ssh` of a person without a key.
fn asked(hosts: &Hosts, user: &str) -> Command {
    let mut command = hosts.client("ssh", user);
    command.args(["-o", "PubkeyAuthentication=no", "localhost", "echo in"]);
    command
}

/// What an authenticator shows.
#[expect(clippy::disallowed_methods, reason = "an authenticator has a clock of its own")]
fn code(secret: &[u8], steps_later: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let hash = sallyport::crypto::hmac_sha1(secret, &(now / 30 + steps_later).to_be_bytes());
    let offset = usize::from(hash[19] & 0xf);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[test]
fn a_password_or_a_login_token_lets_in_and_a_wrong_one_does_not() {
    let hosts = Hosts::start_for(Options::default(), &["alice", "bob"]);
    hosts.grant();
    let user = format!("alice+{HOST}");
    for secret in [PASSWORD, &hosts.bastion.token("alice")] {
        let mut terminal = Terminal::start(&asked(&hosts, &user));
        terminal.answers("Password: ", secret);
        let (status, shown) = terminal.finish();
        assert_eq!(status, 0, "{shown}");
        assert!(shown.contains("in\r\n") && !shown.contains(secret), "{shown}");
    }
    let started = hosts.records("opened");
    assert!(started.iter().all(|record| find(record, "auth").unwrap() == "keyboard-interactive"));

    // Each time wrong in another way; what was wrong is said before the next attempt.
    let mut terminal = Terminal::start(&asked(&hosts, &user));
    terminal.answers("Password: ", "a wrong password");
    terminal.shows("the user name or the password is wrong");
    terminal.answers("Password: ", "sp_not-a-token");
    terminal.answers("Password: ", &hosts.bastion.token("bob"));
    let (status, shown) = terminal.finish();
    assert_eq!(status, NOT_PROVED, "{shown}");
    let wrong = hosts.bastion.events("login");
    let wrong: Vec<_> = wrong.iter().filter(|event| event["outcome"] == "refused").collect();
    assert!(!wrong.is_empty(), "the password's attempt is on record");
    assert!(wrong.iter().all(|event| find(event, "claimed").unwrap() == "alice"), "{wrong:?}");
    let (claimed, why) = unproved(&hosts, 1).pop().unwrap();
    assert_eq!(claimed, user);
    assert!(why.contains("token"), "{why}");
    let log = format!("{:?}{}", hosts.bastion.records(), hosts.bastion.log());
    for secret in ["a wrong password", PASSWORD, &hosts.bastion.token("bob"), &hosts.bastion.token("alice")] {
        assert!(!log.contains(secret), "a secret is on record");
    }
}

#[test]
fn whoever_has_a_second_factor_is_asked_for_it_and_a_code_counts_once() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    let config = hosts.bastion.config_file();
    let made = hosts.bastion.operator(&["user", "totp", "bob", "--config", config.to_str().unwrap()]);
    let made = made.success().stdout;
    let secret = BASE32_NOPAD.decode(made.lines().nth(1).unwrap().trim().as_bytes()).unwrap();
    let user = format!("bob+{HOST}");
    let attempt = |given: &str| {
        let mut ordered = hosts.client("ssh", &user);
        ordered.args(["-o", "NumberOfPasswordPrompts=1", "-o", "PubkeyAuthentication=no"]);
        ordered.args(["localhost", "true"]);
        let mut terminal = Terminal::start(&ordered);
        terminal.answers("Password: ", PASSWORD);
        terminal.answers("Verification code: ", given);
        terminal.finish()
    };
    let right = code(&secret, 0);
    let wrong = if right == "000000" { "000001" } else { "000000" };
    assert_eq!(attempt(wrong).0, NOT_PROVED);
    let (status, shown) = attempt(&right);
    assert_eq!(status, NO_SESSION, "known: {shown}");
    assert_eq!(attempt(&right).0, NOT_PROVED, "the same code again");
    let checked = hosts.bastion.events("second_factor_checked");
    let outcomes: Vec<&str> = checked.iter().map(|event| event["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["refused", "done", "refused"]);
    // The password alone, wrong, asks for no code.
    let mut terminal = Terminal::start(&asked(&hosts, &user));
    terminal.answers("Password: ", "wrong");
    terminal.shows("Password: ");
    assert!(!terminal.text().contains("Verification"), "{}", terminal.text());
}

#[test]
fn passwords_cannot_be_guessed_and_a_malformed_name_is_said_to_be_one() {
    let hosts = Hosts::start_for(Options::default(), &["alice"]);
    let guess = hosts.bastion.scratch().join("guess");
    fs::write(&guess, "#!/bin/sh\necho wrong\n").unwrap();
    fs::set_permissions(&guess, fs::Permissions::from_mode(0o755)).unwrap();
    let attempt = |user: &str, prompts: u32| -> Finished {
        let mut command = hosts.client("ssh", user);
        command.args(["-o", "PubkeyAuthentication=no", "-o", &format!("NumberOfPasswordPrompts={prompts}")]);
        command.env("SSH_ASKPASS", &guess).env("SSH_ASKPASS_REQUIRE", "force");
        command.args(["localhost", "true"]).output().unwrap().into()
    };
    attempt("alice+", 1).failure().says("is not a target name").says("log in as USER or USER+TARGET");
    for _ in 0..2 {
        attempt("alice+web-1", 9).failure().says("the user name or the password is wrong");
    }
    attempt("alice+web-1", 9).failure().says("too many attempts: wait");
    let refused = hosts.bastion.events("login");
    let refused = refused.iter().filter(|event| event["outcome"] == "refused").count();
    assert!((18..=24).contains(&refused), "{refused} are on record, the limited ones are counted only");
    // Who has proved to be somebody is not kept out by those who have not.
    assert_eq!(hosts.run("true").code(), NO_SESSION);
}
