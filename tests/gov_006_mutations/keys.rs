//! Somebody has the log's key, and writes all anew that can be: found by what others kept of it.

use std::fs;
use std::path::PathBuf;

use sallyport::audit::verify::Kind;
use sallyport::audit::witness::cosigned_file;
use sallyport::crypto::cosign::{WitnessKey, WitnessVerifyKey};
use tempfile::TempDir;

use sallyport::audit::SigningKey;

use super::sealed::{Sealed, Step, replace};

/// What others have of a log: a checkpoint of its middle and its last, and a cosignature of its last.
struct Kept {
    _elsewhere: TempDir,
    pins: [PathBuf; 2],
    witness: WitnessVerifyKey,
    middle: u64,
}

async fn witnessed() -> (Sealed, Kept) {
    let mut steps: Vec<_> = (0..5).flat_map(|_| [1, 2].map(Step::Turn)).collect();
    steps.insert(5, Step::Checkpoint);
    let sealed = Sealed::tell(&steps, 64 << 10).await;
    let elsewhere = TempDir::new().unwrap();
    let pins = ["middle", "last"].map(|name| elsewhere.path().join(name));
    let all = fs::read_to_string(sealed.dir().join("checkpoints.log")).unwrap();
    let parts: Vec<&str> = all.split_inclusive("\n\n").collect();
    let middle = parts.chunks(2).map(<[&str]>::concat).find(|note| note.lines().nth(1) == Some("5")).unwrap();
    fs::write(&pins[0], middle.trim_end().to_owned() + "\n").unwrap();
    fs::copy(sealed.dir().join("checkpoint"), &pins[1]).unwrap();
    let pem = SigningKey::generate();
    let key = WitnessKey::from_pem(&pem, "witness.example".parse().unwrap()).unwrap();
    let note = fs::read_to_string(&pins[1]).unwrap();
    let (text, _) = sallyport::crypto::cosign::text_and_signatures(&note).unwrap();
    let witness = key.verify_key();
    fs::write(sealed.dir().join(cosigned_file(&witness)), note + &key.cosign(&text, 1_795_468_800)).unwrap();
    let report = sealed.verify_in(sealed.dir(), &pins, std::slice::from_ref(&witness));
    assert!(report.is_whole() && report.covered == 10, "{report}");
    (sealed, Kept { _elsewhere: elsewhere, pins, witness, middle: 5 })
}

/// The log has been signed anew: without what others kept it is whole; with it, it is not, and the first record that may
/// have been rewritten is not later than `n`.
#[track_caller]
fn only_others_tell(sealed: &Sealed, kept: &Kept, n: usize, what: &str) {
    assert!(sealed.verify().is_whole(), "{what}: with the key alone it cannot be told: {}", sealed.verify());
    let by_witness = sealed.verify_in(sealed.dir(), &[], std::slice::from_ref(&kept.witness));
    let by_last = sealed.verify_with(&kept.pins[1..]);
    for found in [by_witness, by_last].map(|report| report.first_bad.unwrap()) {
        assert!(matches!(found.kind, Kind::Rewritten | Kind::Truncated), "{what}: {found}");
        assert!(found.n <= n as u64, "{what}: {found}");
    }
    // Of two checkpoints, the one says how far the log is as it was.
    let found = sealed.verify_with(&kept.pins).first_bad.unwrap();
    let from = if (n as u64) < kept.middle { 0 } else { kept.middle };
    let is_cut = found.kind == Kind::Truncated;
    assert!(is_cut || (found.kind, found.n) == (Kind::Rewritten, from), "{what}: {found}");
}

#[tokio::test]
async fn any_record_rewritten_with_the_stolen_key_is_found_by_a_pin_or_a_witness() {
    let (sealed, kept) = witnessed().await;
    let jsons = sealed.jsons();
    for n in 0..jsons.len() {
        let mut rewritten = jsons.clone();
        rewritten[n] = replace(&jsons[n], "\"at\":\"2026", "\"at\":\"2025");
        Sealed::rechain(&mut rewritten);
        sealed.relink(&rewritten);
        sealed.sign_with_stolen_key();
        only_others_tell(&sealed, &kept, n, &format!("record {n} rewritten"));
    }
}

#[tokio::test]
async fn a_log_shortened_with_the_stolen_key_is_found_by_a_pin_or_a_witness() {
    let (sealed, kept) = witnessed().await;
    let jsons = sealed.jsons();
    for left in 0..jsons.len() {
        sealed.relink(&jsons[..left]);
        sealed.sign_with_stolen_key();
        // A connection whose control record is kept and whose opening is not would tell; there is none such here.
        only_others_tell(&sealed, &kept, left, &format!("{left} records left"));
        // Nor does it help to write other records in their place.
        let mut others = jsons[..left].to_vec();
        others.extend(jsons[left..].iter().map(|json| replace(json, "\"at\":\"2026", "\"at\":\"2025")));
        Sealed::rechain(&mut others);
        sealed.relink(&others);
        sealed.sign_with_stolen_key();
        only_others_tell(&sealed, &kept, left, &format!("{left} records left, others written"));
    }
}
