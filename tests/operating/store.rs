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
    fs::write(&store, "this is not a database, but somebody's only copy of something").unwrap();
    let refused = bastion.refuses_to_start();
    assert!(refused.stderr.contains("sallyport.db"), "{}", refused.stderr);
    assert!(fs::read_to_string(&store).unwrap().contains("only copy"));
}

#[test]
fn a_store_that_is_gone_lets_nobody_in_and_nobody_stay() {
    let (_postgres, bastion) = crate::start(Options::default());
    let (mut wire, _) = Wire::session(&bastion, "alice", "ledger-dev");
    let store = bastion.data().join("sallyport.db");
    let aside = bastion.scratch().join("aside.db");
    fs::rename(&store, &aside).unwrap();
    wait_until("it is not ready", || crate::ready(&bastion).0 == 503);
    let (_, body) = crate::ready(&bastion);
    let store_check =
        body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "store").unwrap();
    assert_eq!(store_check["ok"], false, "{body}");
    let mut stranger = Wire::connect(&bastion);
    let refused = stranger.log_in(&[("user", "alice+ledger-dev")], &bastion.token("alice")).unwrap_err();
    assert_eq!(crate::wire::error(Some(refused)).0, "57P03");
    // Whoever is in is cut when the lease has run out.
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P03", "{message}");
    assert!(message.contains("can no longer be confirmed"), "{message}");
    fs::rename(&aside, &store).unwrap();
    wait_until("it is ready again", || crate::ready(&bastion).0 == 200);
    assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    bastion.verify().success();
}
