//! GOV-006: the log of a node that will not come back is finished elsewhere: its open recordings get their end, the
//! stream gets what it lacks, and all of it verifies.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::amazon::{ENVIRONMENT, Emulator, FaultProxy, Faults, REGION};
use support::calls::psql_at_work;
use support::{Bastion, Finished, Options, Postgres};

const STREAM: &str = "audit";

fn sallyport(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(arguments).envs(ENVIRONMENT).output().unwrap().into()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A log, its keys, and the stream.
struct Dead {
    log: PathBuf,
    public: PathBuf,
    private: PathBuf,
}

impl Dead {
    fn adopt(&self, more: &[&str]) -> Finished {
        let arguments = ["audit", "adopt", text(&self.log), "--key", text(&self.public), "--json"];
        sallyport(&[&arguments, more].concat())
    }

    fn verified(&self, log: &Path) -> Value {
        sallyport(&["audit", "verify", "--json", "--key", text(&self.public), text(log)]).success().json()
    }

    /// What is in its files, but for how far the stream is.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.log).unwrap().map(|entry| entry.unwrap());
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        named
            .filter(|(name, _)| name != "shipped")
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect()
    }
}

/// All records of a log.
fn records(log: &Path) -> Vec<Value> {
    let tail = sallyport(&["audit", "tail", "--audit-dir", text(log)]).success();
    tail.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Recordings that began and have no end.
fn open(records: &[Value]) -> Vec<&Value> {
    let of = |kind: &'static str| {
        let found = records.iter().filter(move |record| record["kind"] == kind);
        found.map(|record| &record["rec"]).collect::<Vec<_>>()
    };
    let ended = of("ended");
    of("opened").into_iter().filter(|recording| !ended.contains(recording)).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one log, step by step")]
fn a_dead_nodes_log_is_ended_sent_and_proved_elsewhere() {
    let postgres = Postgres::start();
    let amazon = Emulator::moto();
    amazon.create_stream(STREAM, 2);
    let proxy = FaultProxy::before(&amazon, 0x5a11_7005);
    let lines = [
        format!("kinesis = \"{STREAM}\""),
        format!("region = \"{REGION}\""),
        format!("endpoint = \"{}\"", proxy.url()),
    ];
    let options = Options { settings: lines.map(|line| ("stream", line)).into(), ..Options::default() };
    let mut bastion = Bastion::start_for(&postgres, options, &["alice", "erin"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    bastion.psql("alice", "ledger-dev", "SELECT 'sent in time'").success();
    bastion.until_sent();
    proxy.set(Faults { down: true, ..Faults::default() });
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-dev");
    bastion.psql("alice", "ledger-dev", "SELECT 'never sent'").success();

    // A node that lives keeps its log.
    let private = bastion.data().join("audit-signing.key");
    let living = Dead { log: bastion.audit_dir(), public: bastion.verify_key(), private: private.clone() };
    living.adopt(&["--node-key", text(&private)]).failure().says("is in use by another process");
    bastion.kill();
    running.finish().failure();
    let dead = Dead { log: bastion.scratch().join("disk"), ..living };
    fs::rename(bastion.audit_dir(), &dead.log).unwrap();
    let before = records(&dead.log);
    assert_eq!(open(&before).len(), 1);

    // Another key, another directory: nothing is touched.
    let files = dead.files();
    let other = bastion.scratch().join("other");
    bastion.operator(&["init", text(&other)]).success();
    let refused = dead.adopt(&["--node-key", text(&other.join("audit-signing.key"))]).failure();
    refused.says("is not the key that signed this log");
    let missing = Dead { log: bastion.scratch().join("mistyped"), public: dead.public.clone(), private };
    missing.adopt(&[]).failure();
    assert!(!missing.log.exists());
    assert_eq!(dead.files(), files);

    let url = amazon.url();
    let all = ["--node-key", text(&dead.private), "--stream", STREAM, "--endpoint", &url];
    let adopted = dead.adopt(&all).success().json();
    let after = records(&dead.log);
    assert_eq!(adopted["ended"].as_array().unwrap().len(), 1, "{adopted}");
    assert_eq!(
        (&adopted["records"], &adopted["covered"]),
        (&after.len().into(), &after.len().into()),
        "{adopted}"
    );
    assert!(
        adopted["sent"].as_u64().unwrap() >= u64::try_from(after.len() - before.len()).unwrap(),
        "{adopted}"
    );
    assert!(open(&after).is_empty());
    let end = after.iter().rfind(|record| record["kind"] == "ended").unwrap();
    assert_eq!((&end["reason"]["end"], &end["rec"]), (&"crashed".into(), &adopted["ended"][0]), "{end}");
    let report = dead.verified(&dead.log);
    assert_eq!(report["covered"], report["records"]);

    // Again: nothing more.
    let files = dead.files();
    let again = dead.adopt(&all).success().json();
    assert_eq!((&again["ended"], &again["sent"]), (&Value::Array(Vec::new()), &0.into()), "{again}");
    assert_eq!(dead.files(), files);

    let archive = bastion.scratch().join("archive");
    let consume = ["audit", "consume", "--once", "--stream", STREAM, "--endpoint", &url, "--archive"];
    let consumed =
        sallyport(&[&consume, &[text(&archive), "--key", text(&dead.public)][..]].concat()).success();
    assert_eq!(consumed.stdout, "", "no alarms");
    let node = fs::read_dir(&archive)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    assert_eq!(records(&node), after);
    let archived = dead.verified(&node);
    assert_eq!(archived["covered"], report["covered"], "{archived}");
}

#[test]
fn without_its_key_a_log_is_ended_and_says_that_it_is_not_signed_to_its_end() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &["alice"]);
    bastion.grant("alice", "ledger-dev", "readonly", 3600, &[]);
    let running = psql_at_work(&bastion, &postgres, "alice", "ledger-dev");
    bastion.kill();
    running.finish().failure();
    let (log, public) = (bastion.audit_dir(), bastion.verify_key());
    let dead = Dead { log, public, private: bastion.data().join("audit-signing.key") };
    let adopted = dead.adopt(&[]).success().json();
    assert!(
        adopted["covered"].as_u64() < adopted["records"].as_u64() && adopted["sent"].is_null(),
        "{adopted}"
    );
    assert!(open(&records(&dead.log)).is_empty());
    dead.verified(&dead.log);
    sallyport(&["audit", "adopt", text(&dead.log)]).success().says("alone: give --node-key");
    let signed = dead.adopt(&["--node-key", text(&dead.private)]).success().json();
    assert_eq!((&signed["covered"], &signed["ended"]), (&adopted["records"], &Value::Array(Vec::new())));
    let report = dead.verified(&dead.log);
    assert_eq!(report["covered"], report["records"]);
}
