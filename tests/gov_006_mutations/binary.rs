//! What `sallyport audit verify` says of each kind of damage: exit code 10, and the first bad record.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::FILE_SIZE;
use super::log::connection;
use super::sealed::{Sealed, replace};

fn verify(sealed: &Sealed, more: &[&Path]) -> Output {
    let key = sealed.dir().with_extension("key");
    fs::write(&key, sealed.key.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.args(["audit", "verify", "--json", "--key"]).arg(&key).arg(sealed.dir()).args(more);
    let output = command.output().unwrap();
    fs::remove_file(key).unwrap();
    output
}

/// Exit code 10, and the first bad record's index and kind.
#[track_caller]
fn is_found(sealed: &Sealed, more: &[&Path], n: u64, kind: &str) -> Value {
    let output = verify(sealed, more);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(10), "{said}{errors}");
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&found["first_bad"]["n"], &found["first_bad"]["kind"]), (&n.into(), &kind.into()), "{found}");
    found["first_bad"].clone()
}

#[tokio::test]
async fn each_kind_of_damage_has_exit_code_10_and_names_the_first_bad_record() {
    let sealed = Sealed::interleaved(FILE_SIZE).await;
    let (image, files) = (sealed.image(), sealed.files());
    let output = verify(&sealed, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let (second, last) = (files[0].len(), files.len() - 1);
    let n = second as u64;

    let mut edited = files.clone();
    edited[1][0][200] ^= 1;
    sealed.set_files(&edited);
    let found = is_found(&sealed, &[], n, "altered");
    assert_eq!(found["file"], "journal-00000002.log");
    let mut removed = files.clone();
    removed[1].remove(0);
    sealed.set_files(&removed);
    is_found(&sealed, &[], n, "removed");
    let mut doubled = files.clone();
    doubled[1].insert(0, files[0][0].clone());
    sealed.set_files(&doubled);
    is_found(&sealed, &[], n, "inserted");
    let mut swapped = files.clone();
    swapped[1].swap(0, 1);
    sealed.set_files(&swapped);
    is_found(&sealed, &[], n, "reordered");
    let mut zeroed = files.clone();
    zeroed[1][0].fill(0);
    sealed.set_files(&zeroed);
    is_found(&sealed, &[], n, "zeroed");
    let mut cut = files.clone();
    cut[last].pop();
    sealed.set_files(&cut);
    is_found(&sealed, &[], 14, "truncated");
    sealed.restore(&image);
    fs::remove_file(sealed.file(2)).unwrap();
    is_found(&sealed, &[], n, "file_missing");
    sealed.restore(&image);
    fs::remove_file(sealed.dir().join("checkpoint")).unwrap();
    is_found(&sealed, &[], 0, "checkpoint_missing");
    sealed.restore(&image);
    assert_eq!(verify(&sealed, &[]).status.code(), Some(0));
}

#[tokio::test]
async fn a_log_that_was_written_anew_has_exit_code_10() {
    let sealed = Sealed::interleaved(64 << 10).await;
    let (image, jsons) = (sealed.image(), sealed.jsons());
    let elsewhere = TempDir::new().unwrap();
    let pin = elsewhere.path().join("pin");
    fs::copy(sealed.dir().join("checkpoint"), &pin).unwrap();
    let n = jsons.iter().position(|json| json.starts_with(b"{\"v\":1,\"rec\":\"nod-")).unwrap();
    let mut rewritten = jsons.clone();
    rewritten[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
    sealed.relink(&rewritten);
    // The checkpoint of before it vouches for what is before it.
    is_found(&sealed, &[], 3, "rewritten");
    sealed.sign_with_stolen_key();
    assert_eq!(verify(&sealed, &[]).status.code(), Some(0), "with the key alone it cannot be told");
    is_found(&sealed, &["--pin".as_ref(), &pin], 0, "rewritten");
    sealed.restore(&image);
    let rec = connection(2).to_string();
    let of = |json: &Vec<u8>| String::from_utf8_lossy(json).contains(&format!("\"rec\":\"{rec}\""));
    let left: Vec<_> = jsons.into_iter().filter(|json| !of(json)).collect();
    sealed.relink(&left);
    sealed.sign_with_stolen_key();
    let announced = left.iter().position(|json| String::from_utf8_lossy(json).contains(&rec)).unwrap();
    let found = is_found(&sealed, &[], announced as u64, "missing_recording");
    assert_eq!(found["rec"], rec);
}
