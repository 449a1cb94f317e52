//! Accounts and targets that go while somebody is connected.

use std::fs;

use sallyport::crypto::ssh::{generate_ed25519, public_line};

use crate::support::wire::Wire;
use crate::support::{Bastion, Options, Postgres, wait_until};

#[test]
fn a_disabled_user_is_cut_by_the_next_look_and_stays_out_until_enabled() {
    let (_postgres, bastion) = crate::start(&["alice", "erin", "olga"]);
    crate::dev_session(&bastion, "alice", "readonly");
    crate::dev_session(&bastion, "olga", "readonly");
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut olga, _) = Wire::session(&bastion, "olga", "ledger-dev");
    let config = bastion.config_file();
    let user = |how: &str| bastion.operator(&["user", how, "alice", "--config", config.to_str().unwrap()]);
    user("disable").success();
    bastion.advance(1);
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P01");
    assert_eq!(message, "your session no longer permits this connection: this account is disabled");
    crate::is_served(&mut olga);
    let (sqlstate, ..) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!(sqlstate, "28P01");
    assert_eq!(bastion.try_ask("alice", "ledger-dev", None).0, 401);
    assert!(!bastion.log_in("alice").status.success());
    user("enable").success();
    bastion.log_in("alice").success();
    crate::is_let_in(&bastion, "alice", "ledger-dev");
    assert_eq!(bastion.events("user_changed").len(), 2);
    bastion.verify().success();
}

/// Puts a configuration in place and has the server read it.
fn reload(bastion: &Bastion, config: &str) -> serde_json::Value {
    let before = bastion.events("configuration_reloaded").len();
    fs::write(bastion.config_file(), config).unwrap();
    bastion.signal(rustix::process::Signal::HUP);
    wait_until("it is read", || bastion.events("configuration_reloaded").len() > before);
    bastion.events("configuration_reloaded").pop().unwrap()
}

/// A configuration with something else in place of one target.
fn instead_of_ledger_dev(config: &str, entry: &str) -> String {
    let at = config.find("[[target]]\nname = \"ledger-dev\"").unwrap();
    let rest = &config[at + 1..];
    let end = rest.find("[[target]]").map_or(config.len(), |next| at + 1 + next);
    format!("{}{entry}{}", &config[..at], &config[end..])
}

#[test]
fn a_removed_target_cuts_and_a_bad_file_changes_nothing() {
    let (postgres, bastion) = crate::start(&["alice", "bob", "erin"]);
    let dev = crate::dev_session(&bastion, "alice", "readonly");
    bastion.grant("alice", "ledger-uat", "readonly", 3600, &["bob"]);
    let (mut removed, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let (mut kept, _) = Wire::session(&bastion, "alice", "ledger-uat");
    let config = fs::read_to_string(bastion.config_file()).unwrap();

    for bad in [format!("{config}\n[[target]]\nname = \"half\"\n"), "not = [toml".to_owned()] {
        let event = reload(&bastion, &bad);
        assert_eq!(event["outcome"], "failed", "{event}");
        crate::is_served(&mut removed);
        crate::is_let_in(&bastion, "alice", "ledger-dev");
    }
    let log = bastion.log();
    assert_eq!(log.matches("configuration not reloaded").count(), 2, "{log}");

    let event = reload(&bastion, &instead_of_ledger_dev(&config, ""));
    assert_eq!(event["outcome"], "done", "{event}");
    let (sqlstate, message, _) = removed.last_words();
    assert_eq!(sqlstate, "57P01");
    assert_eq!(message, "your session no longer permits this connection: there is no target `ledger-dev`");
    crate::is_served(&mut kept);
    let (sqlstate, message, _) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!((sqlstate.as_str(), message.as_str()), ("28000", "there is no target `ledger-dev`"));

    // Its session can still be revoked; the role is dropped once the target is known again.
    let answer = crate::revoke(&bastion, "erin", &dev, "the target is gone");
    assert_eq!(answer["credential"]["state"], "pending", "{answer}");
    assert_eq!(reload(&bastion, &config)["outcome"], "done");
    bastion.advance(6);
    assert_eq!(postgres.session_roles().len(), 1, "only the other session's is left");
    crate::is_served(&mut kept);
    bastion.verify().success();
}

/// A gateway for SSH, with the keys that `init` made.
fn with_ssh() -> Options {
    let keys = ["host_key = \"ssh/host_ed25519\"", "host_ca = \"ssh/host_ca\"", "user_ca = \"ssh/user_ca\""];
    let rest = ["login_ca = \"ssh/login_ca\"", "listen = \"127.0.0.1:0\""];
    let settings = keys.iter().chain(&rest).map(|line| ("ssh", (*line).to_owned())).collect();
    Options { settings, ..Options::default() }
}

#[test]
fn a_database_that_becomes_an_ssh_host_cuts_and_its_role_is_dropped_once_it_is_back() {
    let postgres = Postgres::start();
    let bastion = Bastion::start_for(&postgres, with_ssh(), &["alice", "erin"]);
    let dev = crate::dev_session(&bastion, "alice", "readonly");
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let config = fs::read_to_string(bastion.config_file()).unwrap();
    let host = format!(
        "[[target]]\nname = \"ledger-dev\"\nkind = \"ssh\"\naddress = \"localhost:{}\"\n\
         environment = \"dev\"\ndomain = \"bank-core\"\naccesses = {{ readonly = \"nobody\" }}\n\
         host_keys = [\"{}\"]\n\n",
        postgres.port,
        public_line(generate_ed25519().public_key(), ""),
    );
    assert_eq!(reload(&bastion, &instead_of_ledger_dev(&config, &host))["outcome"], "done");
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P01");
    let expected =
        "your session no longer permits this connection: target `ledger-dev` is no database any more";
    assert_eq!(message, expected);
    let (sqlstate, message, hint) = crate::refusal(&bastion, "alice", "ledger-dev");
    assert_eq!((sqlstate.as_str(), message.as_str()), ("28000", "target `ledger-dev` is an SSH host"));
    assert!(hint.contains("ssh USER+ledger-dev@"), "{hint}");
    let refused = bastion.events("connection_refused").pop().unwrap();
    assert_eq!(refused["detail"]["code"], "other_protocol", "{refused}");
    let (_, targets) = bastion.api(Some("alice"), "GET", "/pam/targets", None);
    let listed = targets["items"].as_array().unwrap().iter().find(|item| item["name"] == "ledger-dev");
    let listed = listed.unwrap_or_else(|| panic!("{targets}"));
    assert_eq!((&listed["kind"], &listed["databases"]), (&"ssh".into(), &serde_json::json!([])));
    let shown = bastion.run_as("alice", &["targets"]).success().stdout;
    assert!(shown.lines().any(|line| line.contains("ledger-dev") && line.contains("ssh")), "{shown}");

    let answer = crate::revoke(&bastion, "erin", &dev, "it is a host now");
    assert_eq!(answer["credential"]["state"], "pending", "{answer}");
    assert_eq!(postgres.session_roles().len(), 1);
    assert_eq!(reload(&bastion, &config)["outcome"], "done");
    bastion.advance(6);
    assert!(postgres.session_roles().is_empty());
    bastion.verify().success();
}
