//! The store cannot be written, or is gone.

use std::fs;

use crate::support::wire::Wire;
use crate::support::{Bastion, Options, Postgres, wait_until};

#[test]
fn a_store_that_cannot_be_written_refuses_the_start() {
    let postgres = Postgres::start();
    // A view of the file system in which the store's file is for reading only. Root needs no
    // permission to write to a file, but cannot write to what is mounted so.
    let mut options = Options::default();
    let script = "for file; do test -e \"$file\" && config=$file; done; store=$(dirname \"$config\")/sallyport.db; \
                  mount --bind \"$store\" \"$store\" && mount -o remount,bind,ro \"$store\" && exec \"$@\"";
    let unshare = if rustix::process::geteuid().is_root() { "-m" } else { "-Urm" };
    options.wrapper = ["unshare", unshare, "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let mut bastion = Bastion::prepare(&postgres, options);
    assert!(bastion.data().join("sallyport.db").exists());
    let refused = bastion.refuses_to_start();
    assert!(refused.stderr.contains("sallyport.db"), "the file is named: {}", refused.stderr);
    // Garbage is not taken for a store, and not overwritten either.
    let mut bastion = Bastion::prepare(&postgres, Options::default());
    let store = bastion.data().join("sallyport.db");
    let garbage = "not a database, but somebody's only copy of something\n".repeat(300);
    for suffix in ["-wal", "-shm"] {
        let _none = fs::remove_file(bastion.data().join(format!("sallyport.db{suffix}")));
    }
    fs::write(&store, &garbage).unwrap();
    let refused = bastion.refuses_to_start();
    assert!(refused.stderr.contains("sallyport.db"), "{}", refused.stderr);
    assert!(fs::read(&store).unwrap() == garbage.as_bytes(), "it was written to");
}

fn store_is_ready(bastion: &Bastion) -> bool {
    let (_, body) = crate::ready(bastion);
    let checks = body["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "store").unwrap()["ok"] == true
}

#[test]
fn a_store_that_takes_no_writes_lets_nobody_in_and_nobody_stay() {
    let (_postgres, bastion) = crate::start(Options::default());
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let store = bastion.data().join("sallyport.db");
    // Somebody else's transaction, for instance a backup gone wrong.
    let other = rusqlite::Connection::open(&store).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Whoever is in is cut when the lease has run out.
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P03", "{message}");
    assert!(message.contains("can no longer be confirmed"), "{message}");
    let (sqlstate, message, _) = crate::refusal(&bastion, "ledger-dev");
    assert_eq!(sqlstate, "57P03", "{message}");
    assert!(message.contains("cannot confirm your session"), "{message}");
    assert!(!store_is_ready(&bastion));
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    wait_until("it is ready again", || crate::ready(&bastion).0 == 200);
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");

    let aside = bastion.scratch().join("aside.db");
    fs::rename(&store, &aside).unwrap();
    wait_until("a store that was moved is not ready", || !store_is_ready(&bastion));
    fs::rename(&aside, &store).unwrap();
    wait_until("it is ready again", || crate::ready(&bastion).0 == 200);
    bastion.verify().success();
}

#[test]
fn events_after_a_store_was_restored_are_recorded_all_the_same() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::prepare(&postgres, Options::default());
    bastion.boot();
    bastion.stop().success();
    let store = bastion.data().join("sallyport.db");
    let aside = bastion.scratch().join("backup.db");
    let without_companions = |bastion: &Bastion| {
        for suffix in ["-wal", "-shm"] {
            let _none = fs::remove_file(bastion.data().join(format!("sallyport.db{suffix}")));
        }
    };
    let other = rusqlite::Connection::open(&store).unwrap();
    other.execute("VACUUM INTO ?1", [aside.to_str().unwrap()]).unwrap();
    drop(other);

    bastion.boot();
    for name in ["alice", "bob", "carol", "erin", "frank"] {
        bastion.log_in(name).success();
    }
    bastion.stop().success();
    without_companions(&bastion);
    fs::copy(&aside, &store).unwrap();
    // Changed before the server has seen that its store is an old one.
    bastion.add_user("early", "bank-core", &[]);
    assert_eq!(bastion.events("store_restored").len(), 0);
    bastion.boot();
    bastion.add_user("late", "bank-core", &[]);
    bastion.log_in("alice").success();

    let restored = bastion.events("store_restored");
    assert_eq!(restored.len(), 1, "{restored:?}");
    let number = |key: &str| restored[0]["detail"][key].as_i64().unwrap();
    assert!(number("recorded") > number("store"), "{restored:?}");
    assert!(bastion.log().contains("older than the audit log"), "the operator is told");
    let added = bastion.events("user_added");
    let of = |name: &str| added.iter().filter(|event| event["detail"]["user"] == name).count();
    assert_eq!((of("alice"), of("early"), of("late")), (1, 1, 1));
    assert_eq!(bastion.events("login").len(), 6);
    assert_eq!(bastion.events("node_started").len(), 3);
    bastion.stop().success();
    bastion.boot();
    assert_eq!(bastion.events("store_restored").len(), 1, "said once");
    bastion.verify().success();
}
