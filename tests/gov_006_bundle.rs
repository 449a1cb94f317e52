//! GOV-006: what the log holds of one session goes into one file that proves itself; any edit of it is found,
//! and records that must not be shown can be withheld without the rest losing its proof.

#![expect(clippy::unwrap_used, reason = "in the test's own helpers too, a step that fails fails the test")]

#[path = "support/log.rs"]
mod log;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sallyport::audit::bundle::{self, BundleError, Order, Redaction, Report};
use sallyport::audit::chain::record_hash;
use sallyport::audit::merkle::{Prover, Tree};
use sallyport::audit::record::{How, Statement, StatementEnd, StatementOutcome};
use sallyport::audit::{Body, ControlEntry, Journal, JournalOptions, SigningKey, Totals, VerifyKey};
use sallyport::clock::Clock;
use sallyport::crypto::hex;
use sallyport::domain::deny::EndReason;
use sallyport::domain::event::{Action, Event};
use sallyport::domain::id::{RequestId, SessionId};
use tempfile::TempDir;

use log::{START, connection, node, opening};

fn session(number: u8) -> SessionId {
    SessionId::from_random([number; 10])
}

fn request(number: u8) -> RequestId {
    RequestId::from_random([number; 10])
}

/// A log with three sessions: the first and third with a connection each, the second with two that
/// overlap them.
struct Kept {
    home: TempDir,
    key: VerifyKey,
    journal: Journal,
}

async fn control(journal: &Journal, event: Event) {
    journal.control(&[ControlEntry { outbox: None, at: START, event }]).await.unwrap();
}

async fn kept() -> Kept {
    let home = TempDir::new().unwrap();
    let pem = SigningKey::generate().to_string();
    let signing = SigningKey::from_pem(&pem, node()).unwrap();
    let key = signing.verify_key();
    fs::write(home.path().join("key.pub"), key.to_string()).unwrap();
    let log = home.path().join("audit");
    let (journal, _) = Journal::open(&log, Clock::manual(START), JournalOptions::new(signing)).unwrap();
    for of in [1, 2, 3] {
        let asked = Event { request: Some(request(of)), ..Event::done(Action::RequestCreated) };
        control(&journal, asked).await;
    }
    let mut recorders = Vec::new();
    for (number, of) in [(11, 1), (21, 2), (22, 2), (31, 3)] {
        let recorder = journal.begin(opening(connection(number), session(of), request(of))).await.unwrap();
        let opened = Event {
            session: Some(session(of)),
            request: Some(request(of)),
            connection: Some(connection(number)),
            ..Event::done(Action::ConnectionOpened)
        };
        control(&journal, opened).await;
        recorders.push((number, recorder));
    }
    for n in 1..=3 {
        for (number, recorder) in &recorders {
            let sql = format!("SELECT {n} FROM accounts WHERE owner = 'secret of {number}'");
            let statement = Statement::new(n, How::Simple, sql.as_bytes());
            let end = StatementEnd::new(n, StatementOutcome::Done);
            recorder.record(&[Body::Statement(statement), Body::StatementEnd(end)]).await.unwrap();
        }
    }
    for (_, recorder) in recorders {
        recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    }
    journal.checkpoint().await.unwrap();
    Kept { home, key, journal }
}

impl Kept {
    fn log(&self) -> PathBuf {
        self.home.path().join("audit")
    }

    fn bundle(&self, of: u8, redact: &[&str]) -> Result<String, BundleError> {
        let redactions: Vec<Redaction> = redact.iter().map(|text| text.parse().unwrap()).collect();
        let (directory, session) = (self.log(), session(of));
        let order =
            Order { directory: &directory, key: &self.key, session: &session, redactions: &redactions };
        let mut written = Vec::new();
        bundle::write(&order, &mut written)?;
        Ok(String::from_utf8(written).unwrap())
    }

    fn check(&self, text: impl AsRef<[u8]>) -> Report {
        bundle::check(text.as_ref(), &self.key).unwrap()
    }

    fn bad(&self, text: impl AsRef<[u8]>) -> bundle::Bad {
        self.check(text).first_bad.unwrap()
    }
}

#[tokio::test]
async fn a_bundle_has_all_of_one_session_and_nothing_of_another() {
    let kept = kept().await;
    let text = kept.bundle(2, &[]).unwrap();
    let report = kept.check(&text);
    assert_eq!(report.first_bad, None, "{text}");
    // Two recordings of eight records; the request, and two connections that were opened.
    assert_eq!((report.records, report.recordings, report.redacted), (19, 2, 0));
    assert_eq!((report.session.clone(), report.unfinished.len()), (Some(session(2)), 0));
    assert!(text.contains("secret of 21") && text.contains("secret of 22"), "{text}");
    assert!(!text.contains("secret of 11") && !text.contains("secret of 31"), "{text}");
    assert!(text.contains("request_created"), "{text}");
    // Later records change nothing of it.
    control(&kept.journal, Event::done(Action::RequestCreated)).await;
    kept.journal.checkpoint().await.unwrap();
    assert_eq!(kept.check(&text), report);
    let unknown = kept.bundle(9, &[]).unwrap_err();
    assert!(matches!(unknown, BundleError::NoSession(_)), "{unknown}");
}

#[tokio::test]
async fn what_is_withheld_is_accounted_for() {
    let kept = kept().await;
    let rec = connection(21);
    let text = kept.bundle(2, &[&format!("{rec}:1-2"), &format!("{rec}:5")]).unwrap();
    let report = kept.check(&text);
    assert_eq!((report.first_bad, report.redacted, report.records), (None, 3, 19), "{text}");
    assert_eq!(text.matches("secret of 21").count(), 1, "of three statements: {text}");
    assert_eq!(text.matches("secret of 22").count(), 3);
    // Said to be elsewhere in its recording, or of another.
    for (from, to) in [
        (format!("redacted {rec} 1"), format!("redacted {rec} 2")),
        (format!("redacted {rec} 1"), format!("redacted {} 1", connection(22))),
        (format!("redacted {rec} 1"), format!("redacted {} 1", node())),
    ] {
        let moved = text.replacen(&from, &to, 1);
        assert_ne!(moved, text);
        assert!(!kept.check(&moved).is_whole(), "{to}");
    }
    for (redact, needed) in
        [(format!("{rec}:0"), true), (format!("{rec}:7"), true), (format!("{rec}:8"), false)]
    {
        match kept.bundle(2, &[&redact]).unwrap_err() {
            BundleError::Needed { .. } => assert!(needed, "{redact}"),
            BundleError::NothingToRedact { seq, .. } => assert!(!needed && seq == 8, "{redact}"),
            other => panic!("{redact}: {other}"),
        }
    }
    let others = kept.bundle(2, &[&format!("{}:1", connection(11))]).unwrap_err();
    assert!(matches!(others, BundleError::NothingToRedact { .. }), "{others}");
}

#[tokio::test]
async fn a_withheld_control_record_stands_where_its_number_can_be() {
    let kept = kept().await;
    let whole = kept.bundle(2, &[]).unwrap();
    let records = whole.lines().filter_map(|line| serde_json::from_str(line.splitn(3, ' ').nth(2)?).ok());
    let seqs: Vec<u64> = records
        .filter(|record: &serde_json::Value| record["rec"] == node().as_str())
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    let [before, seq, after] = seqs[..] else { panic!("{seqs:?}") };
    let text = kept.bundle(2, &[&format!("{}:{seq}", node())]).unwrap();
    let report = kept.check(&text);
    assert_eq!((report.first_bad, report.redacted), (None, 1), "{text}");
    let said = |seq: u64| format!("redacted {} {seq}\n", node());
    assert!(text.contains(&said(seq)), "{text}");
    for wrong in [before, after, after + 1_000, u64::MAX] {
        assert!(
            kept.bad(text.replace(&said(seq), &said(wrong))).what.contains("cannot stand here"),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn every_changed_byte_of_a_bundle_is_found() {
    let kept = kept().await;
    let text = kept.bundle(1, &[&format!("{}:3", connection(11))]).unwrap();
    let whole = kept.check(&text);
    assert_eq!(whole.first_bad, None);
    for index in 0..text.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= mask;
            let report = kept.check(&bytes);
            assert!(!report.is_whole(), "byte {index}, {mask:#x}: {report}");
        }
        assert!(!kept.check(&text.as_bytes()[..index]).is_whole(), "cut at {index}");
    }
}

#[tokio::test]
async fn every_removed_moved_or_doubled_line_of_a_bundle_is_found_and_the_record_named() {
    let kept = kept().await;
    let text = kept.bundle(2, &[]).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for index in 0..lines.len() {
        let mut left = lines.clone();
        left.remove(index);
        assert!(!kept.check(left.concat()).is_whole(), "without line {index}");
        // A note that is signed twice is signed.
        if index + 1 < lines.len() {
            let mut doubled = lines.clone();
            doubled.insert(index, lines[index]);
            assert!(!kept.check(doubled.concat()).is_whole(), "line {index} twice");
        }
        if index > 0 && lines[index] != lines[index - 1] {
            let mut swapped = lines.clone();
            swapped.swap(index - 1, index);
            assert!(!kept.check(swapped.concat()).is_whole(), "lines {index} and the one before");
        }
    }
    let altered = text.replacen("SELECT 2", "SELECT 7", 1);
    let bad = kept.bad(&altered);
    let line = lines.iter().position(|line| line.contains("SELECT 2")).unwrap();
    let n = lines[line].split(' ').next().unwrap().parse().unwrap();
    assert_eq!((bad.line, bad.n), (u64::try_from(line).unwrap() + 1, Some(n)));
    assert!(bad.what.contains("was altered"), "{}", bad.what);
}

#[tokio::test]
async fn a_bundle_of_another_log_or_another_sessions_record_is_refused() {
    let (kept, other) = (kept().await, kept().await);
    assert!(kept.bad(other.bundle(2, &[]).unwrap()).what.contains("another key"));
    // A session's records said to be another's.
    let text = kept.bundle(2, &[]).unwrap();
    let header = text.replacen(session(2).as_str(), session(3).as_str(), 1);
    assert!(kept.bad(&header).what.contains("of another session"));
    // A recording that was left out together with its place in the proof is missed.
    let bare: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains(&format!("\"rec\":\"{}\"", connection(22))))
        .collect();
    assert!(!kept.check(&bare).is_whole());
}

/// A bundle of the records that `choose` takes of the log, with a proof that holds: what somebody can make who has the
/// log and leaves out what is not to be seen.
fn forged(kept: &Kept, of: &SessionId, mut choose: impl FnMut(&str) -> bool) -> String {
    let text = fs::read(kept.log().join("journal-00000001.log")).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines = text.trim_end_matches('\0').lines();
    let jsons: Vec<&str> = lines.map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
    let note = fs::read_to_string(kept.log().join("checkpoint")).unwrap();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    let chosen: Vec<u64> = (0..).zip(&jsons).filter(|(_, json)| choose(json)).map(|(n, _)| n).collect();
    let mut prover = Prover::new(&Tree::default(), size, &chosen);
    let mut text =
        format!("sallyport bundle v1\n{{\"node\":\"{}\",\"session\":\"{of}\",\"size\":{size}}}\n", node());
    for (n, json) in (0..size).zip(&jsons) {
        let hash = record_hash(json.as_bytes());
        prover.push(&hash);
        if chosen.contains(&n) {
            writeln!(text, "{n} {} {json}", hex(&hash)).unwrap();
        }
    }
    for hash in prover.finish().unwrap() {
        writeln!(text, "proof {}", hex(&hash)).unwrap();
    }
    text + "checkpoint\n" + &note
}

#[tokio::test]
async fn what_is_left_out_together_with_its_place_in_the_proof_is_missed() {
    let kept = kept().await;
    for number in [21, 22] {
        let event = Event {
            session: Some(session(2)),
            request: Some(request(2)),
            connection: Some(connection(number)),
            ..Event::done(Action::ConnectionEnded)
        };
        control(&kept.journal, event).await;
    }
    kept.journal.checkpoint().await.unwrap();
    let (id, rec) = (session(2), format!("\"rec\":\"{}\"", connection(22)));
    let is_ours = |json: &str| json.contains(request(2).as_str());
    assert_eq!(forged(&kept, &id, is_ours), kept.bundle(2, &[]).unwrap());
    let found = |of: &SessionId, what: &str, choose: &dyn Fn(&str) -> bool| {
        let report = kept.check(forged(&kept, of, choose));
        let bad = report.first_bad.unwrap_or_else(|| panic!("{what}: not found"));
        assert!(bad.what.contains(what), "{bad:?}");
    };
    found(&id, "its recording is not here", &|json| is_ours(json) && !json.contains(&rec));
    // Nor does it help to leave out what announced it.
    let opened = |json: &str| json.contains("connection_opened") && json.contains(connection(22).as_str());
    found(&id, "its recording is not here", &|json| is_ours(json) && !json.contains(&rec) && !opened(json));
    // The end of a recording, which then seems to be live.
    let early =
        |json: &str| !json.contains(&rec) || json.contains("\"seq\":0,") || json.contains("\"seq\":1,");
    found(&id, "recording's end is not here", &|json| is_ours(json) && early(json));
    // Nothing, or what is another's.
    found(&id, "no record here says", &|_| false);
    found(&session(9), "no record here says", &|json| json.contains("request_created"));
    found(&id, "another request", &|json| is_ours(json) || json.contains("request_created"));
    found(&id, "another request", &|json| {
        is_ours(json) || (json.contains(request(3).as_str()) && json.contains("connection_opened"))
    });
}

#[tokio::test]
async fn no_bundle_is_made_of_a_log_that_was_altered() {
    let kept = kept().await;
    let path = kept.log().join("journal-00000001.log");
    let whole = fs::read(&path).unwrap();
    // Of this session, and of another.
    for owner in ["secret of 21", "secret of 11"] {
        let mut bytes = whole.clone();
        let at = bytes.windows(owner.len()).position(|window| window == owner.as_bytes()).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = kept.bundle(2, &[]).unwrap_err();
        assert!(matches!(refused, BundleError::NotVouched), "{owner}: {refused}");
    }
}

fn sallyport(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sallyport")).args(arguments).output().unwrap()
}

#[tokio::test]
async fn the_command_line_makes_and_verifies_bundles() {
    let kept = kept().await;
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (log, key) = (path(&kept.log()), path(&kept.home.path().join("key.pub")));
    let file = path(&kept.home.path().join("bundle"));
    let (id, rec) = (session(2).to_string(), format!("{}:1", connection(22)));
    let make = ["audit", "bundle", &id, "--audit-dir", &log, "--key", &key, "-o", &file, "--redact", &rec];
    assert!(sallyport(&make).status.success());
    let verified = sallyport(&["audit", "verify", &file, "--key", &key]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success() && said.contains("19 records, 1 of them withheld"), "{said}");
    let again = sallyport(&make);
    assert!(!again.status.success(), "an existing file stays");
    assert!(String::from_utf8_lossy(&again.stderr).contains("cannot create"));

    let page = path(&kept.home.path().join("page"));
    let reported = ["audit", "verify", &log, "--key", &key, "--report", &page];
    assert!(sallyport(&reported).status.success());
    let text = fs::read_to_string(&page).unwrap();
    for part in ["the audit log is whole", &kept.key.to_string(), "Neither a pin nor a witness"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!sallyport(&reported).status.success(), "a report is not written over");

    let text = fs::read_to_string(&file).unwrap();
    let page = path(&kept.home.path().join("page-of-bundle"));
    assert!(sallyport(&["audit", "verify", &file, "--key", &key, "--report", &page]).status.success());
    let said = fs::read_to_string(&page).unwrap();
    let hash = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
    let hash = String::from_utf8_lossy(&hash[..64]).into_owned();
    for part in ["the bundle is whole", &id, "1 of them withheld", &hash, "only the whole log can prove"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::write(&file, text.replacen("SELECT 3", "SELECT 4", 1)).unwrap();
    let verified = sallyport(&["audit", "verify", &file, "--key", &key, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(10), "{report}");
    assert!(report["first_bad"]["what"].as_str().unwrap().contains("was altered"), "{report}");
    let pinned = sallyport(&["audit", "verify", &file, "--key", &key, "--pin", &key]);
    assert_eq!(pinned.status.code(), Some(2), "--pin is for the log");

    fs::remove_file(&file).unwrap();
    let unknown = session(9).to_string();
    let none = sallyport(&["audit", "bundle", &unknown, "--audit-dir", &log, "--key", &key, "-o", &file]);
    assert!(!none.status.success() && !Path::new(&file).exists(), "no half of a bundle stays");
}
