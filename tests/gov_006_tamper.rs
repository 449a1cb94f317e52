//! GOV-006: any edit, removal, reordering or truncation of the audit log is found from the files
//! and the public key alone, and the first bad record is named.

#![expect(clippy::unwrap_used, reason = "in the test's own helpers too, a step that fails fails the test")]

#[path = "support/log.rs"]
mod log;
#[path = "support/sealed.rs"]
mod sealed;

use std::fs;

use sallyport::audit::verify::{Kind, Options, verify};
use sallyport::audit::{JournalError, SigningKey};
use tempfile::TempDir;

use log::{connection, node};
use sealed::{Sealed, replace};

#[tokio::test]
async fn an_untouched_log_is_whole_and_wholly_vouched_for() {
    let sealed = Sealed::write(3, 1 << 20).await;
    let report = sealed.verify();
    assert_eq!(report.first_bad, None);
    assert_eq!((report.records, report.covered, report.recordings), (15, 15, 3));
    assert_eq!((report.unfinished.len(), report.unannounced, report.torn), (0, 0, 0));
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_record_named() {
    let sealed = Sealed::write(2, 16 << 10).await;
    let whole = fs::read(sealed.file(1)).unwrap();
    let lines = sealed.lines();
    let mut position = 0;
    for (n, line) in lines.iter().enumerate() {
        for _ in 0..line.len() {
            for mask in [0x01, 0x80] {
                let mut bytes = whole.clone();
                bytes[position] ^= mask;
                fs::write(sealed.file(1), bytes).unwrap();
                let found = sealed.first_bad();
                assert_eq!(found.n, u64::try_from(n).unwrap(), "byte {position}: {found}");
            }
            position += 1;
        }
    }
    // Behind the data there is nothing but zeros.
    for position in [position, position + 1, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[position] = b'x';
        fs::write(sealed.file(1), bytes).unwrap();
        let report = sealed.verify();
        assert!(!report.is_whole() || report.torn > 0, "byte {position}: {report}");
    }
}

#[tokio::test]
async fn every_overwritten_record_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut zeroed = lines.clone();
        zeroed[n].fill(0);
        sealed.set_lines(&zeroed);
        let found = sealed.first_bad();
        assert_eq!(found.n, u64::try_from(n).unwrap(), "{found}");
        let last = n + 1 == lines.len();
        assert_eq!(found.kind, if last { Kind::Truncated } else { Kind::Zeroed }, "{found}");
    }
}

#[tokio::test]
async fn every_removed_record_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut left = lines.clone();
        left.remove(n);
        sealed.set_lines(&left);
        let found = sealed.first_bad();
        assert_eq!(found.n, u64::try_from(n).unwrap(), "{found}");
        let last = n + 1 == lines.len();
        assert_eq!(found.kind, if last { Kind::Truncated } else { Kind::Removed }, "{found}");
    }
}

#[tokio::test]
async fn neighbours_that_change_places_are_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() - 1 {
        let mut swapped = lines.clone();
        swapped.swap(n, n + 1);
        sealed.set_lines(&swapped);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(n).unwrap(), Kind::Reordered), "{found}");
    }
}

#[tokio::test]
async fn a_record_that_stands_twice_is_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for n in 0..lines.len() {
        let mut doubled = lines.clone();
        doubled.insert(n, lines[n].clone());
        sealed.set_lines(&doubled);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(n).unwrap() + 1, Kind::Inserted), "{found}");
    }
}

#[tokio::test]
async fn a_log_cut_off_anywhere_is_found_by_its_checkpoint_and_not_opened() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let lines = sealed.lines();
    for kept in 0..lines.len() {
        sealed.set_lines(&lines[..kept]);
        let found = sealed.first_bad();
        assert_eq!((found.n, found.kind), (u64::try_from(kept).unwrap(), Kind::Truncated), "{found}");
        let refused = sealed.open(1 << 20).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged(_)), "{refused}");
        assert!(refused.to_string().contains("sallyport audit verify"), "{refused}");
        // Also when the file itself ends there.
        fs::write(sealed.file(1), lines[..kept].concat()).unwrap();
        assert_eq!(sealed.first_bad().kind, Kind::Truncated);
    }
}

#[tokio::test]
async fn a_removed_file_is_found() {
    let sealed = Sealed::write(8, 4 << 10).await;
    let files = sealed.verify().files;
    assert!(files >= 4, "{files}");
    for number in 1..=files {
        let kept = fs::read(sealed.file(number)).unwrap();
        fs::remove_file(sealed.file(number)).unwrap();
        let found = sealed.first_bad();
        let expected = if number == files { Kind::Truncated } else { Kind::FileMissing };
        assert_eq!(found.kind, expected, "{found}");
        fs::write(sealed.file(number), kept).unwrap();
    }
    assert!(sealed.verify().is_whole());
}

#[tokio::test]
async fn a_rewritten_log_is_found_by_its_checkpoint() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let jsons = sealed.jsons();
    for n in 0..jsons.len() {
        let mut rewritten = jsons.clone();
        rewritten[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
        sealed.relink(&rewritten);
        let found = sealed.first_bad();
        // A recording's own chain tells sooner than the checkpoint where it can.
        assert!(matches!(found.kind, Kind::Rewritten | Kind::BrokenRecording), "{found}");
        let refused = sealed.open(1 << 20).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged(_)), "{refused}");
    }
}

#[tokio::test]
async fn a_log_rewritten_with_the_stolen_key_is_found_by_a_pinned_checkpoint() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let elsewhere = TempDir::new().unwrap();
    let pin = elsewhere.path().join("pinned");
    fs::copy(sealed.dir().join("checkpoint"), &pin).unwrap();
    // A control record: no recording's chain covers it.
    let mut jsons = sealed.jsons();
    let n = jsons.iter().position(|json| json.starts_with(b"{\"v\":1,\"rec\":\"nod-")).unwrap();
    jsons[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
    sealed.relink(&jsons);
    sealed.sign_with_stolen_key();
    assert!(sealed.verify().is_whole(), "with the key alone it cannot be told");
    let found = sealed.verify_with(std::slice::from_ref(&pin)).first_bad.unwrap();
    assert_eq!(found.kind, Kind::Rewritten, "{found}");
    // A rollback to an earlier, honestly signed state as well.
    jsons.pop();
    sealed.relink(&jsons);
    sealed.sign_with_stolen_key();
    let found = sealed.verify_with(&[pin]).first_bad.unwrap();
    assert!(matches!(found.kind, Kind::Truncated | Kind::Rewritten), "{found}");
}

#[tokio::test]
async fn recordings_that_change_names_are_found() {
    let sealed = Sealed::write(2, 1 << 20).await;
    let (one, two) = (connection(1).to_string(), connection(2).to_string());
    let swap = |json: &Vec<u8>| {
        let text = std::str::from_utf8(json).unwrap();
        text.replace(&one, "@").replace(&two, &one).replace('@', &two).into_bytes()
    };
    let original = sealed.lines();
    let renamed: Vec<_> = sealed.jsons().iter().map(swap).collect();
    let in_place: Vec<_> = original.iter().map(swap).collect();
    sealed.set_lines(&in_place);
    let found = sealed.first_bad();
    assert_eq!((found.n, found.kind), (0, Kind::Altered), "{found}");
    // Even linked and signed anew, the recordings' own chains start from their names.
    sealed.relink(&renamed);
    sealed.sign_with_stolen_key();
    assert_eq!(sealed.first_bad().kind, Kind::BrokenRecording);
}

#[tokio::test]
async fn a_forged_checkpoint_is_found() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let path = sealed.dir().join("checkpoint");
    let note = fs::read_to_string(&path).unwrap();
    for index in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[index] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = sealed.first_bad();
        assert!(matches!(found.kind, Kind::CheckpointForged | Kind::KeyMismatch), "byte {index}: {found}");
        assert!(sealed.open(1 << 20).is_err());
    }
    let foreign = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap();
    fs::write(&path, foreign.sign(5, &[0; 32]).unwrap()).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::KeyMismatch);
    fs::remove_file(&path).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::CheckpointMissing);
}

#[tokio::test]
async fn every_changed_byte_among_the_checkpoints_is_found() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let path = sealed.dir().join("checkpoints.log");
    let notes = fs::read(&path).unwrap();
    // The last byte is the separator: without it, the last note counts as being written.
    for index in 0..notes.len() - 1 {
        let mut bytes = notes.clone();
        bytes[index] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!sealed.verify().is_whole(), "byte {index}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(sealed.first_bad().kind, Kind::CheckpointMissing);
}

#[tokio::test]
async fn a_log_is_not_whole_for_another_logs_key() {
    let sealed = Sealed::write(1, 1 << 20).await;
    let other = SigningKey::from_pem(&SigningKey::generate(), node()).unwrap().verify_key();
    let options = Options { directory: sealed.dir(), key: &other, pins: &[], witnesses: &[] };
    let found = verify(&options, &mut |_| {}).unwrap().first_bad.unwrap();
    assert_eq!(found.kind, Kind::KeyMismatch);
}
