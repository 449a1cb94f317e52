//! Accounts and targets that go while somebody is connected.

use std::fs;

use crate::support::wire::Wire;
use crate::support::{Bastion, wait_until};

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

    let at = config.find("[[target]]\nname = \"ledger-dev\"").unwrap();
    let rest = &config[at + 1..];
    let end = rest.find("[[target]]").map_or(config.len(), |next| at + 1 + next);
    let event = reload(&bastion, &format!("{}{}", &config[..at], &config[end..]));
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
