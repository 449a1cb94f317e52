//! Targets that are down, or not what they should be.

use std::fs;

use crate::support::bastion::target;
use crate::support::wire::{self, Wire};
use crate::support::{Bastion, Options, Postgres, wait_until};

#[test]
fn a_target_that_is_down_is_named_and_works_again_without_a_restart() {
    let (mut postgres, bastion) = crate::start(Options::default());
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    postgres.stop();
    let (sqlstate, ..) = wire.last_words();
    assert!(["57P01", "57P02", "08006"].contains(&sqlstate.as_str()), "{sqlstate}");
    let (sqlstate, message, hint) = crate::refusal(&bastion, "ledger-dev");
    assert_eq!(sqlstate, "08001", "{message}");
    assert!(message.contains("Connection refused"), "{message}");
    assert!(hint.contains("Tell the operator"), "{hint}");
    // A session without a credential yet.
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    let mut wire = Wire::connect(&bastion);
    let user = [("user", "alice+ledger-dev+readonly")];
    let refused = wire.log_in(&user, &bastion.token("alice")).unwrap_err();
    let (sqlstate, message, _) = wire::error(Some(refused));
    assert_eq!(sqlstate, "08001");
    assert!(message.contains("cannot reach the target"), "{message}");
    assert_eq!(crate::ready(&bastion).0, 200, "a target's trouble is not the gateway's");

    postgres.restart();
    let mut psql = bastion.client("psql", "alice", "ledger-dev");
    psql.env("PGUSER", "alice+ledger-dev+dba").args(["-XAtqc", "SELECT 'back'"]);
    assert_eq!(String::from_utf8(psql.output().unwrap().stdout).unwrap(), "back\n");
    let mut wire = Wire::connect(&bastion);
    wire.log_in(&user, &bastion.token("alice")).unwrap();
    drop(wire);
    bastion.advance(3601);
    assert!(postgres.session_roles().is_empty());
    bastion.verify().success();
}

/// Another target's entry, changed.
fn variant(postgres: &Postgres, bastion: &Bastion, name: &str, from: &str, to: &str) -> String {
    let entry = target(name, "dev", "bank-core", postgres, bastion.scratch());
    assert!(entry.contains(from), "{entry}");
    entry.replace(from, to)
}

#[test]
fn a_target_that_cannot_prove_itself_is_refused_before_any_secret_is_sent() {
    let (postgres, bastion) = crate::start(Options::default());
    let key = rcgen::KeyPair::generate().unwrap();
    let strange = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let strange_ca = bastion.scratch().join("strange.crt");
    fs::write(&strange_ca, strange.pem()).unwrap();
    let ca = postgres.ca_file();
    let wrong_password = bastion.scratch().join("wrong-password");
    fs::write(&wrong_password, "not this").unwrap();
    fs::set_permissions(&wrong_password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let password = bastion.scratch().join("admin-password");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let entries = [
        variant(&postgres, &bastion, "wrong-ca", &text(&ca), &text(&strange_ca)),
        variant(&postgres, &bastion, "wrong-name", "\"localhost:", "\"db.elsewhere.example:"),
        variant(&postgres, &bastion, "wrong-password", &text(&password), &text(&wrong_password)),
        variant(&postgres, &bastion, "no-role", "\"ledger_owner\"", "\"nobody_made_this\""),
    ];
    // A server that is ready at once: targets are added while it runs.
    let config = fs::read_to_string(bastion.config_file()).unwrap();
    fs::write(bastion.config_file(), config + &entries.concat()).unwrap();
    bastion.signal(rustix::process::Signal::HUP);
    wait_until("the targets are known", || bastion.events("configuration_reloaded").len() == 1);
    for (name, reason) in [
        ("wrong-ca", "invalid peer certificate"),
        ("wrong-name", "not valid for name"),
        ("wrong-password", "password authentication failed"),
        ("no-role", "`nobody_made_this` does not exist on the target"),
    ] {
        bastion.ask("alice", name, "dba", 3600);
        let (sqlstate, message, _) = crate::refusal(&bastion, name);
        assert_eq!(sqlstate, "57P03", "{name}: {message}");
        assert!(message.contains(reason), "{name}: {message}");
    }
    assert!(postgres.session_roles().is_empty(), "nothing is left of them");
    assert!(!bastion.log().contains("not this"), "no secret in the log");
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    bastion.verify().success();
}

/// Waits until a login is refused for a reason that says `text`; it must be refused from the start.
#[track_caller]
fn is_refused_with(bastion: &Bastion, text: &str) {
    let (sqlstate, message, _) = crate::refusal(bastion, "ledger-dev");
    assert!(["08001", "57P03"].contains(&sqlstate.as_str()), "{sqlstate} {message}");
    assert!(message.contains(text), "{message}");
}

#[test]
fn a_target_that_asks_for_less_than_scram_gets_no_secret() {
    let (postgres, bastion) = crate::start(Options::default());
    let admin = "hostssl all sallyport_admin 127.0.0.1/32 scram-sha-256\n";
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");

    // For the session's credential, which exists by now.
    for (method, asked) in [("trust", "asks for nothing"), ("password", "asks for a password in clear")] {
        postgres.admit(&format!("{admin}hostssl all all 127.0.0.1/32 {method}"));
        is_refused_with(&bastion, asked);
        is_refused_with(&bastion, "have it ask for scram-sha-256");
    }
    postgres.admit(&format!("{admin}hostssl all all 127.0.0.1/32 reject"));
    let (_, message, _) = crate::refusal(&bastion, "ledger-dev");
    assert!(message.contains("pg_hba.conf rejects connection"), "the target's own words: {message}");
    postgres.admit(&format!("{admin}hostssl all all 127.0.0.1/32 scram-sha-256"));
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 2").success().stdout, "2\n");

    // For the admin's: a session that has no credential yet, and no connection of the admin's that is kept for a moment.
    let kept = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sallyport_admin'";
    postgres.query("postgres", kept).success();
    postgres
        .query(
            "postgres",
            "SET password_encryption = md5; ALTER ROLE sallyport_admin PASSWORD 'makes and drops roles'",
        )
        .success();
    let user = [("user", "alice+ledger-dev+readonly")];
    bastion.ask("alice", "ledger-dev", "readonly", 3600);
    for method in ["trust", "password", "md5"] {
        postgres.admit(&format!("hostssl all all 127.0.0.1/32 {method}"));
        let mut wire = Wire::connect(&bastion);
        let refused = wire.log_in(&user, &bastion.token("alice")).expect_err("was let in");
        let (sqlstate, message, _) = wire::error(Some(refused));
        assert_eq!(sqlstate, "57P03", "{message}");
        assert!(message.contains("cannot obtain a credential"), "{method}: {message}");
    }
    // Without TLS nothing is said at all.
    postgres.query("postgres", "ALTER SYSTEM SET ssl = off").success();
    postgres.query("postgres", "SELECT pg_reload_conf()").success();
    // The admin connection comes first, and says so in its library's words.
    let off = || crate::refusal(&bastion, "ledger-dev+dba").1.contains("server does not support TLS");
    wait_until("TLS is off", off);
}
