//! Users are shut out and let in again.

use std::fs;
use std::process::Command;

use sallyport::crypto::ssh;

use crate::support::bastion::run_with_input;
use crate::support::{Bastion, Options, Postgres};

/// `sallyport user …` on the server's host.
fn user(bastion: &Bastion, what: &str, name: &str) -> String {
    let config = bastion.config_file();
    bastion.operator(&["user", what, name, "--config", config.to_str().unwrap()]).success().stdout
}

#[test]
fn who_is_logged_out_or_disabled_needs_a_new_token() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice", "bob"]);
    let status = |who| bastion.api(Some(who), "GET", "/whoami", None).0;
    assert_eq!(status("alice"), 200);
    let said = user(&bastion, "logout", "alice");
    assert!(said.contains("1 token ended"), "{said}");
    assert_eq!((status("alice"), status("bob")), (401, 200));
    assert!(user(&bastion, "logout", "alice").contains("0 tokens ended"));

    bastion.log_in("alice").success();
    assert_eq!(status("alice"), 200);
    user(&bastion, "disable", "alice");
    bastion.log_in("alice").failure();
    user(&bastion, "enable", "alice");
    assert_eq!(status("alice"), 401, "what ended stays ended");
    bastion.log_in("alice").success();
    assert_eq!(status("alice"), 200);
    // The server takes what was changed beside it from the store with its own next event.
    let ended = |action: &str| -> Vec<u64> {
        let events = bastion.events(action);
        events.iter().map(|event| event["detail"]["tokens_ended"].as_u64().unwrap()).collect()
    };
    assert_eq!(ended("user_logged_out"), [1]);
    assert_eq!(ended("user_changed"), [1, 0]);
    bastion.verify().success();
}

#[test]
fn an_operator_registers_and_removes_ssh_keys_of_users() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    let config = bastion.config_file();
    let key = |arguments: &[&str]| {
        let end = ["--config", config.to_str().unwrap()];
        bastion.operator(&[&["user", "key"], arguments, &end].concat())
    };
    let (file, pair) = (bastion.scratch().join("id.pub"), ssh::generate_ed25519());
    fs::write(&file, ssh::public_line(pair.public_key(), "a laptop") + "\n").unwrap();
    let (file, fingerprint) = (file.to_str().unwrap(), ssh::fingerprint(pair.public_key()));
    key(&["add", "alice", file]).success().says("a laptop");
    key(&["add", "bob", file]).failure().says("exists already");
    key(&["add", "nobody", file]).failure().says("`nobody` was not found");
    let listed = key(&["list", "alice", "--json"]).success().json();
    assert_eq!(listed[0]["fingerprint"], fingerprint);
    // Through the API one sees what the operator did, and may undo it.
    let own = bastion.run_as("alice", &["key", "list"]).success();
    assert!(own.stdout.contains(&fingerprint), "{}", own.stdout);
    bastion.run_as("alice", &["key", "remove", &fingerprint]).success();
    key(&["remove", "alice", &fingerprint]).failure().says("was not found");
    bastion.run_as("alice", &["key", "add", file]).success();
    key(&["remove", "alice", &fingerprint]).success();
    assert_eq!(bastion.events("ssh_key_added").len(), 2);
    bastion.verify().success();
}

#[test]
fn who_has_a_second_factor_is_asked_for_its_code() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    let config = bastion.config_file();
    let totp = |arguments: &[&str]| {
        let end = ["--config", config.to_str().unwrap()];
        bastion.operator(&[&["user", "totp", "alice"], arguments, &end].concat()).success().stdout
    };
    let shown = totp(&[]);
    let (uri, base32) = shown.trim_end().split_once('\n').unwrap();
    assert!(uri.starts_with("otpauth://totp/Sallyport:alice?secret="), "{uri}");
    let secret = data_encoding::BASE32_NOPAD.decode(base32.as_bytes()).unwrap();
    let log_in = |input: &str, code: &[&str]| {
        let login = [&["login", "--user", "alice", "--password-stdin"], code].concat();
        let command: Command = bastion.command_as("alice", &login);
        run_with_input(command, input)
    };
    let password = "correct horse battery staple\n";
    log_in(password, &[]).failure().says("nothing was given");
    log_in(&format!("{password}000000\n"), &[]).failure().says("the code is wrong");
    log_in(&format!("{password}{}\n", code(&secret)), &[]).success();
    assert_eq!(bastion.api(Some("alice"), "GET", "/whoami", None).0, 200);
    totp(&["--remove"]);
    log_in(password, &["--code", "000000"]).success();
}

/// What an authenticator shows at this moment (RFC 6238).
fn code(secret: &[u8]) -> String {
    let step = sallyport::clock::Clock::system().now().as_micros() / 30_000_000;
    let hash = sallyport::crypto::hmac_sha1(secret, &step.to_be_bytes());
    let offset = usize::from(hash[19] & 0xf);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}
