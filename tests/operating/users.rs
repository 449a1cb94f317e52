//! Users are shut out and let in again.

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
