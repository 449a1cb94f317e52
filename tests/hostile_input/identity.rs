//! Who one is and what one asks for, claimed wrongly.

use crate::support::wire::{self, Wire};
use crate::support::{Bastion, Options};

/// What a login is answered: SQLSTATE, message, hint.
fn refusal(bastion: &Bastion, pairs: &[(&str, &str)], token: &str) -> (String, String, String) {
    let mut wire = Wire::connect(bastion);
    let refused = wire.log_in(pairs, token).unwrap_err();
    let words = wire::error(Some(refused));
    wire.is_closed();
    words
}

/// The refusal of a login that proves who it is and is refused after.
fn refused_later(bastion: &Bastion, pairs: &[(&str, &str)]) -> (String, String, String) {
    refusal(bastion, pairs, &bastion.token("alice"))
}

#[test]
fn wrong_expired_and_revoked_tokens_are_refused_like_unknown_users() {
    let (postgres, bastion) = crate::start(Options::default());
    let token = bastion.token("alice");
    let alice = [("user", "alice+ledger-dev"), ("database", "ledger")];
    let mallory = [("user", "mallory+ledger-dev"), ("database", "ledger")];
    let wrong = |pairs: &[(&str, &str)], token: &str, user: &str| {
        let (sqlstate, message, hint) = refusal(&bastion, pairs, token);
        assert_eq!(sqlstate, "28P01");
        assert_eq!(message, format!("password authentication failed for user \"{user}\""));
        assert!(hint.contains("sallyport login"), "{hint}");
    };
    let last = token.chars().last().unwrap();
    let almost = format!("{}{}", &token[..token.len() - 1], if last == 'A' { 'B' } else { 'A' });
    for bad in ["", "guess", &almost, &format!("{token}x"), &bastion.token("erin"), &"x".repeat(4000)] {
        wrong(&alice, bad, "alice");
        wrong(&mallory, bad, "mallory");
    }
    // Somebody else's valid token does not make one that somebody.
    wrong(&[("user", "erin+ledger-dev")], &token, "erin");

    // An unknown user has a salt, and always the same.
    let salt = |user: &str| {
        let mut wire = Wire::connect(&bastion);
        wire.send(&wire::startup(wire::VERSION_3_0, &[("user", user)]));
        let asked = wire.until(b'R');
        wire.send(&wire::sasl_initial(b"n,,n=,r=client"));
        let first = String::from_utf8(wire.until(b'R')[4..].to_vec()).unwrap();
        let rest = first.split_once(",s=").unwrap().1.to_owned();
        (asked, rest)
    };
    assert_eq!(salt("mallory+ledger-dev"), salt("mallory+ledger-dev"));
    assert_ne!(salt("mallory+ledger-dev").1, salt("trudy+ledger-dev").1);
    let iterations = |user: &str| salt(user).1.split_once(",i=").unwrap().1.to_owned();
    assert_eq!(iterations("mallory+ledger-dev"), iterations("alice+ledger-dev"));
    assert_eq!(salt("mallory+ledger-dev").1.len(), salt("alice+ledger-dev").1.len());

    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    bastion.run_as("alice", &["logout"]).success();
    wrong(&alice, &token, "alice");
    bastion.log_in("alice").success();
    let token = bastion.token("alice");
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    bastion.advance(8 * 3600 + 1);
    wrong(&alice, &token, "alice");
    bastion.log_in("alice").success();
    bastion.log_in("erin").success();
    bastion.ask("alice", "ledger-dev", "dba", 3600);

    let refusals = bastion.events("connection_refused");
    assert_eq!(refusals.len(), 15);
    assert!(refusals.iter().all(|refused| refused["detail"]["code"] == "wrong_token"));
    assert!(!bastion.log().contains(&token), "no token in the log");
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn names_that_name_nothing_are_refused_with_what_to_do() {
    let (postgres, bastion) = crate::start(Options::default());
    let (sqlstate, message, hint) = refused_later(&bastion, &[("user", "alice+nowhere")]);
    assert_eq!((sqlstate.as_str(), message.as_str()), ("28000", "there is no target `nowhere`"));
    assert!(hint.contains("sallyport targets"), "{hint}");
    let (sqlstate, message, hint) = refused_later(&bastion, &[("user", "alice+ledger-prod")]);
    assert_eq!(
        (sqlstate.as_str(), message.as_str()),
        ("28000", "you have no active session for `ledger-prod`")
    );
    assert!(hint.contains("sallyport request ledger-prod ACCESS --reason"), "{hint}");
    let (sqlstate, ..) = refused_later(&bastion, &[("user", "alice+ledger-dev"), ("database", "nowhere")]);
    assert_eq!(sqlstate, "3D000");

    // Before anybody is asked for a password.
    let long = "x".repeat(500);
    for user in
        ["alice", "+ledger-dev", "alice+", "alice+a+b+c", "alice+led ger", "a'; DROP TABLE x;--+y", &long]
    {
        let mut wire = Wire::connect(&bastion);
        wire.send(&wire::startup(wire::VERSION_3_0, &[("user", user)]));
        let (sqlstate, message, hint) = wire.last_words();
        assert_eq!(sqlstate, "28000", "{user}: {message}");
        assert!(hint.contains("USER+TARGET"), "{hint}");
    }
    for pairs in [&[][..], &[("user", "")], &[("database", "ledger")], &[("user", "a+b"), ("user", "c+d")]] {
        let mut wire = Wire::connect(&bastion);
        wire.send(&wire::startup(wire::VERSION_3_0, pairs));
        assert_eq!(wire.last_words().0, "08P01", "{pairs:?}");
    }
    // An empty database is the default, not the user's name.
    let mut wire = Wire::connect(&bastion);
    let pairs = [("user", "alice+ledger-dev"), ("database", "")];
    wire.log_in(&pairs, &bastion.token("alice")).unwrap();
    wire.until(b'Z');
    wire.send(&wire::query("SELECT current_database()"));
    assert!(wire.until(b'D').ends_with(b"ledger"));
    drop(wire);
    crate::is_unharmed(&bastion, &postgres);
}

#[test]
fn replication_connections_are_refused_where_no_access_is_for_them() {
    let (postgres, bastion) = crate::start(Options::default());
    for value in ["true", "database", "on", "1", "YES"] {
        let pairs = [("user", "alice+ledger-dev"), ("database", "ledger"), ("replication", value)];
        let (sqlstate, message, _) = refused_later(&bastion, &pairs);
        assert_eq!(sqlstate, "42501");
        assert!(message.contains("an access with `replication = true`"), "{message}");
    }
    let pairs = [("user", "alice+ledger-dev"), ("replication", "false")];
    Wire::connect(&bastion).log_in(&pairs, &bastion.token("alice")).unwrap();
    // Nor by way of `options`: that is a setting, and PostgreSQL has none of this name.
    let pairs = [("user", "alice+ledger-dev"), ("options", "-c replication=true")];
    let mut wire = Wire::connect(&bastion);
    let refused = wire.log_in(&pairs, &bastion.token("alice")).unwrap_err();
    assert!(wire::error(Some(refused)).1.contains("unrecognized configuration parameter"));
    crate::is_unharmed(&bastion, &postgres);
}
