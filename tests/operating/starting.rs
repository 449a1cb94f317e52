//! Starting, reloading, and files that are wrong.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::bastion::target;
use crate::support::{Bastion, Options, Postgres, wait_until};

/// A copy of the shipped policies, to be broken.
fn policies() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn with_policies(dir: &tempfile::TempDir) -> Options {
    let setting = format!("directory = \"{}\"", dir.path().display());
    Options { settings: vec![("policies", setting)], ..Options::default() }
}

fn reload(bastion: &Bastion) -> serde_json::Value {
    let before = bastion.events("configuration_reloaded").len();
    bastion.signal(Signal::HUP);
    wait_until("the reload is recorded", || bastion.events("configuration_reloaded").len() > before);
    bastion.events("configuration_reloaded").pop().unwrap()
}

#[test]
fn a_reload_takes_what_is_good_and_keeps_what_was_in_force_otherwise() {
    let dir = policies();
    let (postgres, bastion) = crate::start(with_policies(&dir));
    let who = dir.path().join("who.cedar");
    let good = fs::read_to_string(&who).unwrap();
    let config = fs::read_to_string(bastion.config_file()).unwrap();

    for broken in
        ["permit (principal, action", "permit (principal, action, resource) when { principal.nonsense };"]
    {
        fs::write(&who, format!("{good}\n{broken}\n")).unwrap();
        let event = reload(&bastion);
        assert_eq!(event["outcome"], "failed", "{event}");
        assert!(event["detail"]["why"].as_str().unwrap().contains("who.cedar"), "{event}");
        assert_eq!(bastion.psql("alice", "ledger-dev", "SELECT 1").success().stdout, "1\n");
    }
    fs::write(&who, &good).unwrap();
    fs::write(bastion.config_file(), config.replace("environment = \"dev\"", "environment = \"test\""))
        .unwrap();
    let event = reload(&bastion);
    assert_eq!(event["outcome"], "failed");
    let why = event["detail"]["why"].as_str().unwrap();
    assert!(why.contains("sallyport.toml") && why.contains("`test` is not an environment"), "{why}");
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();

    // A new target is usable at once; one that is gone cuts those who are in it.
    let added = target("books-dev", "dev", "bank-core", &postgres, bastion.scratch());
    fs::write(bastion.config_file(), format!("{config}{added}")).unwrap();
    let event = reload(&bastion);
    assert_eq!(event["outcome"], "done", "{event}");
    bastion.ask("alice", "books-dev", "readonly", 600);
    assert_eq!(bastion.psql("alice", "books-dev", "SELECT 'new'").success().stdout, "new\n");
    let (mut wire, _) = crate::Wire::session(&bastion, "alice", "books-dev");
    fs::write(bastion.config_file(), &config).unwrap();
    reload(&bastion);
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P01", "{message}");
    assert!(message.contains("no longer permits"), "{message}");
    assert_eq!(crate::refusal(&bastion, "books-dev").1, "there is no target `books-dev`");

    // A rule that is new in force holds for those who are in.
    let (mut wire, _) = crate::Wire::session(&bastion, "alice", "ledger-dev");
    let rule = "@id(\"FREEZE\") @needs(\"the end of the freeze\") forbid (principal, action == Action::\"connect\", resource);";
    fs::write(dir.path().join("freeze.cedar"), rule).unwrap();
    let event = reload(&bastion);
    assert_eq!(event["outcome"], "done", "{event}");
    let (sqlstate, message, _) = wire.last_words();
    assert_eq!(sqlstate, "57P01", "{message}");
    assert!(message.contains("FREEZE"), "{message}");
    let (sqlstate, message, _) = crate::refusal(&bastion, "ledger-dev");
    assert_eq!(sqlstate, "42501");
    assert!(message.contains("FREEZE: the end of the freeze"), "{message}");
    fs::remove_file(dir.path().join("freeze.cedar")).unwrap();
    reload(&bastion);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    bastion.verify().success();
}

#[test]
fn a_broken_file_refuses_the_start_and_names_the_place() {
    let dir = policies();
    let postgres = Postgres::start();
    let mut bastion = Bastion::prepare(&postgres, with_policies(&dir));
    let config = fs::read_to_string(bastion.config_file()).unwrap();
    let path = bastion.config_file();

    fs::write(dir.path().join("mine.cedar"), "permit (principal,\n  action,\n  resource) when { oops };\n")
        .unwrap();
    let refused = bastion.refuses_to_start();
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("mine.cedar"), "{}", refused.stderr);
    fs::remove_file(dir.path().join("mine.cedar")).unwrap();

    fs::write(&path, format!("{config}\n[server\n")).unwrap();
    let line = config.lines().count() + 2;
    let refused = bastion.refuses_to_start();
    assert!(refused.stderr.contains(&format!("sallyport.toml:{line}")), "{}", refused.stderr);

    // Every mistake at once, each with its line, and the same from `check-config`.
    let wrong = config
        .replace("environment = \"prod\"", "environment = \"production\"")
        .replace("kind = \"postgres\"", "kind = \"oracle\"")
        .replace("[audit]\n", "[audit]\nsegment_bites = 1\n");
    fs::write(&path, &wrong).unwrap();
    let refused = bastion.refuses_to_start();
    let checked = bastion.operator(&["check-config", "--config", path.to_str().unwrap()]).failure();
    for said in [&refused.stderr, &checked.stderr] {
        assert_eq!(said.matches("`production` is not an environment").count(), 2, "{said}");
        assert_eq!(said.matches("`oracle` is not a kind of target").count(), 4, "{said}");
        assert!(said.contains("segment_bites"), "{said}");
        let lines = said.lines().filter(|line| line.contains("sallyport.toml:")).count();
        assert!(lines >= 7, "each with file and line: {said}");
    }
    fs::write(&path, &config).unwrap();
    let checked = bastion.operator(&["check-config", "--config", path.to_str().unwrap()]).success();
    assert!(checked.stdout.contains("good"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("makes and drops roles"), "no secret is shown");
    // A key that is missing, and one that others may read.
    let key = bastion.data().join("audit-signing.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(bastion.refuses_to_start().stderr.contains("audit-signing.key"));
    fs::write(&key, kept).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    bastion.boot();
    bastion.stop().success();
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let (postgres, bastion) = crate::start(Options::default());
    let config = bastion.config_file();
    let second = bastion.operator(&["serve", "--config", config.to_str().unwrap()]).failure();
    assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    drop(postgres);
    bastion.verify().success();
}

#[test]
fn a_clock_that_was_set_back_brings_no_session_back() {
    let (_postgres, mut bastion) = crate::start(Options::default());
    let session = bastion.psql("alice", "ledger-dev", "SELECT 1").success();
    assert_eq!(session.stdout, "1\n");
    bastion.advance(5 * 3600);
    assert_eq!(crate::refusal(&bastion, "ledger-dev").0, "57P01");
    let latest = bastion.records().pop().unwrap()["at"].as_str().unwrap().to_owned();
    bastion.stop().success();
    // The machine's clock is five hours behind what the served process has seen.
    bastion.boot();
    let (sqlstate, message, _) = crate::refusal(&bastion, "ledger-dev");
    assert_eq!(sqlstate, "57P01", "the session stays over: {message}");
    let behind = bastion.events("clock_behind");
    assert_eq!(behind.len(), 1);
    let seconds = behind[0]["detail"]["behind_seconds"].as_u64().unwrap();
    assert!((5 * 3600 - 120..=5 * 3600).contains(&seconds), "{seconds}");
    // An event may have happened before the record that stands before it; none after the start before the stop.
    let records = bastion.records();
    let stopped = records.iter().rposition(|record| record["action"] == "node_stopped").unwrap();
    let times: Vec<&str> = records[stopped..].iter().map(|record| record["at"].as_str().unwrap()).collect();
    assert!(times.len() > 1 && times[0] >= latest.as_str(), "{times:?}");
    assert!(times.iter().all(|at| *at >= times[0]), "no record is older than the stop: {times:?}");
    assert!(bastion.log().contains("clock is behind"), "the operator is told");
    bastion.verify().success();
}
