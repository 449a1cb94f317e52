//! GOV-006: a witness on another machine sees the log grow and cosigns; a log that was rewritten or cut off
//! with its own key is refused, an alarm raised, and the verification fails.

#![expect(clippy::unwrap_used, reason = "in the test's own helpers too, a step that fails fails the test")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::postgres::free_port;
use support::{Bastion, Finished, Options, Postgres, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_sallyport");

struct Witness {
    child: Child,
    key: String,
}

impl Witness {
    fn start(state: &Path, log: &Path, port: u16) -> Self {
        let mut child = Command::new(BINARY)
            .args(["audit", "witness", "--name", "witness.example", "--listen", &format!("127.0.0.1:{port}")])
            .arg("--state")
            .arg(state)
            .arg("--log")
            .arg(log)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut key = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut key).unwrap();
        Self { child, key: key.trim().to_owned() }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn verify(bastion: &Bastion, key: &str) -> Finished {
    let log = bastion.verify_key();
    let mut command = Command::new(BINARY);
    command.args(["audit", "verify", "--json", "--witness-key", key, "--key"]).arg(log);
    command.arg(bastion.audit_dir()).output().unwrap().into()
}

/// Records that the witness's own state covers.
fn seen(state: &Path) -> u64 {
    covered(state, "nod-")
}

/// Records that the notes in files of such a name cover.
fn covered(state: &Path, name: &str) -> u64 {
    let files = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let note = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
    note.filter_map(|path| fs::read_to_string(path).ok()?.split('\n').nth(1)?.parse().ok()).max().unwrap_or(0)
}

#[test]
fn a_witness_cosigns_a_log_that_grows_and_no_other() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &[]);
    let state = bastion.scratch().join("witness");
    let (log, port) = (bastion.verify_key(), free_port());
    let witness = Witness::start(&state, &log, port);
    let key = witness.key.clone();
    let section = format!("\n[[witness]]\nurl = \"http://127.0.0.1:{port}\"\nkey = \"{key}\"\n");
    let config = bastion.config_file();
    let text = fs::read_to_string(&config).unwrap() + &section;
    fs::write(&config, text).unwrap();
    bastion.kill();
    bastion.boot();

    wait_until("the log is witnessed", || seen(&state) > 0);
    wait_until("it is on record beside the log", || verify(&bastion, &key).status.success());
    // Restarted on either side, the log goes on from where it was seen.
    let first = seen(&state);
    drop(witness);
    bastion.kill();
    bastion.boot();
    let witness = Witness::start(&state, &log, port);
    assert_eq!(witness.key, key, "it keeps its key");
    bastion.log_in("alice").success();
    bastion.advance(20);
    wait_until("more is witnessed", || seen(&state) > first);
    wait_until("and kept", || verify(&bastion, &key).status.success());

    // The same log as before, without what came since: signed, and whole by itself.
    let kept = bastion.scratch().join("kept");
    let copy = |from: &Path, to: &Path| {
        let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    bastion.kill();
    copy(&bastion.audit_dir(), &kept);
    let before = verify(&bastion, &key).json()["records"].as_u64().unwrap();
    bastion.boot();
    bastion.advance(20);
    // Also here: the witness has seen it a moment before its cosignature is kept.
    wait_until("it goes on", || covered(&bastion.audit_dir(), "cosigned-") > before);
    bastion.kill();
    for entry in fs::read_dir(&kept).unwrap() {
        let name = entry.unwrap().file_name();
        if !name.to_str().unwrap().starts_with("cosigned-") {
            let to = bastion.audit_dir().join(&name);
            fs::remove_file(&to).unwrap();
            fs::copy(kept.join(&name), &to).unwrap();
        }
    }
    let cut = verify(&bastion, &key);
    assert_eq!(cut.code(), 10, "{cut:?}");
    assert_eq!(cut.json()["first_bad"]["kind"], "truncated", "{cut:?}");
    bastion.boot();
    wait_until("the alarm is raised", || !bastion.events("witness_refused").is_empty());
    let alarm = &bastion.events("witness_refused")[0];
    assert_eq!(alarm["detail"]["witness"], "witness.example", "{alarm}");

    // One who never cosigned.
    let other = Witness::start(&bastion.scratch().join("other"), &log, free_port());
    let unknown = verify(&bastion, &other.key);
    assert_eq!(unknown.json()["first_bad"]["kind"], "not_witnessed", "{unknown:?}");
}

#[test]
fn a_witness_that_falls_silent_is_told_of() {
    let postgres = Postgres::start();
    let mut bastion = Bastion::start_for(&postgres, Options::default(), &[]);
    let state = bastion.scratch().join("witness");
    let (log, port) = (bastion.verify_key(), free_port());
    let witness = Witness::start(&state, &log, port);
    let section = format!("\n[[witness]]\nurl = \"http://127.0.0.1:{port}\"\nkey = \"{}\"\n", witness.key);
    let config = bastion.config_file();
    fs::write(&config, fs::read_to_string(&config).unwrap() + &section).unwrap();
    bastion.kill();
    bastion.boot();
    wait_until("the log is witnessed", || seen(&state) > 0);
    drop(witness);
    bastion.advance(20);
    bastion.advance(61);
    wait_until("its silence is on record", || !bastion.events("witness_silent").is_empty());
    let _witness = Witness::start(&state, &log, port);
    bastion.advance(20);
    wait_until("so is its return", || !bastion.events("witness_back").is_empty());
}
