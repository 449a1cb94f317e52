//! A gateway whose log goes to a stream, and what `sallyport audit consume` makes of the stream.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::amazon::{ENVIRONMENT, Emulator, REGION};
use super::bastion::journal_files;
use super::{Bastion, Finished, Options};

const BINARY: &str = env!("CARGO_BIN_EXE_sallyport");
/// What the stream is called.
pub const STREAM: &str = "audit";

/// Settings for a stream behind `url`, with more lines for `[stream]`.
pub fn streaming(url: &str, more: &[&str]) -> Options {
    let lines = [
        format!("kinesis = \"{STREAM}\""),
        format!("region = \"{REGION}\""),
        format!("endpoint = \"{url}\""),
    ];
    let lines = lines.into_iter().chain(more.iter().map(|line| (*line).to_owned()));
    Options { settings: lines.map(|line| ("stream", line)).collect(), ..Options::default() }
}

/// Reads all that the stream has into the archive.
pub fn consume(amazon: &Emulator, stream: &str, archive: &Path, key: &Path, more: &[&str]) -> Finished {
    let mut command = Command::new(BINARY);
    command.args([
        "audit",
        "consume",
        "--once",
        "--stream",
        stream,
        "--endpoint",
        &amazon.url(),
        "--archive",
    ]);
    command.arg(archive).arg("--key").arg(key).args(more).envs(ENVIRONMENT);
    command.output().unwrap().into()
}

/// The kinds of alarms that a consumer told.
pub fn alarms(consumed: &Finished) -> BTreeSet<String> {
    let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned();
    consumed.stdout.lines().map(kind).collect()
}

/// The node's part of an archive.
pub fn node_in(archive: &Path) -> PathBuf {
    let entries = fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().path());
    let mut nodes = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("nod-"));
    let node = nodes.next().unwrap();
    assert_eq!(nodes.next(), None);
    node
}

/// All records of a log, as `audit tail` shows them.
pub fn lines(directory: &Path) -> Vec<String> {
    let output = Command::new(BINARY).args(["audit", "tail", "--audit-dir"]).arg(directory).output().unwrap();
    let text = Finished::from(output).success().stdout;
    text.lines().map(str::to_owned).collect()
}

/// All bytes of a log's lines, as they stand in its files, compressed or not.
pub fn bytes_of_lines(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for file in journal_files(directory) {
        let mut bytes = fs::read(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "zst") {
            bytes = zstd::decode_all(bytes.as_slice()).unwrap();
        }
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        all.extend_from_slice(&bytes[..end]);
    }
    all
}

pub fn verify(log: &Path, key: &Path) -> Value {
    let mut command = Command::new(BINARY);
    command.args(["audit", "verify", "--json", "--key"]).arg(key).arg(log);
    Finished::from(command.output().unwrap()).success().json()
}

/// The archive has what the journal has, to the byte, and proves it.
pub fn assert_archived(bastion: &Bastion, archive: &Path) {
    let (node, key) = (node_in(archive), bastion.verify_key());
    let (archived, kept) = (bytes_of_lines(&node), bytes_of_lines(&bastion.audit_dir()));
    let differ = archived.iter().zip(&kept).position(|(archived, kept)| archived != kept);
    assert_eq!(
        (differ, archived.len()),
        (None, kept.len()),
        "where they differ first, and how long they are"
    );
    let (archived, kept) = (verify(&node, &key), verify(&bastion.audit_dir(), &key));
    assert_eq!(archived["records"], kept["records"]);
    assert_eq!(archived["covered"], kept["covered"], "the last checkpoint is in the archive");
}
