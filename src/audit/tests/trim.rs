//! A journal whose oldest files were removed: it goes on, verifies, and says what is not here.

use super::*;
use crate::audit::base::{self, Trim};
use crate::audit::files::newest;
use crate::audit::record::ControlEntry;
use crate::audit::verify::Kind;

/// A log of several files, with a recording that is open all along and others that come and go.
async fn several_files(house: &House) -> (Journal, Recorder) {
    let (journal, _) = house.open_in(house.dir()).unwrap();
    let long = journal.begin(opening(200)).await.unwrap();
    for number in 1..20 {
        let short = journal.begin(opening(number)).await.unwrap();
        announce(&journal, number).await;
        for statement_number in 1..6 {
            short.record(&[statement(statement_number, &"x".repeat(700))]).await.unwrap();
        }
        short.end(EndReason::Idle, Totals::default()).await.unwrap();
        long.record(&[note("still there")]).await.unwrap();
    }
    // Late: the files that are removed do not say so.
    announce(&journal, 200).await;
    journal.checkpoint().await.unwrap();
    (journal, long)
}

async fn announce(journal: &Journal, number: u8) {
    let mut event = Event::done(Action::ConnectionOpened);
    event.connection = Some(connection(number));
    journal.control(&[ControlEntry { event, at: START, outbox: None }]).await.unwrap();
}

async fn say_trimmed(journal: &Journal, trim: &Trim) {
    let event = Event::done(Action::JournalTrimmed).with("records", trim.records);
    journal.control(&[ControlEntry { event, at: START, outbox: None }]).await.unwrap();
}

fn plan(house: &House, shipped: u32, keep: u64) -> Option<Trim> {
    base::plan(house.dir(), (&house.key().verify_key(), &[]), shipped, keep).unwrap()
}

#[tokio::test]
async fn what_the_stream_has_can_go_and_the_rest_is_whole() {
    let house = House::new();
    let (journal, long) = several_files(&house).await;
    let files = newest(house.dir()).unwrap().unwrap();
    assert!(files >= 4, "{files}");
    assert!(plan(&house, 1, 0).is_none(), "nothing is shipped");
    assert!(plan(&house, files, u64::MAX).is_none(), "there is room");
    let trim = plan(&house, files - 1, 0).unwrap();
    assert_eq!(trim.file, files - 1);
    say_trimmed(&journal, &trim).await;
    trim.carry_out(house.dir()).unwrap();
    assert!(!house.dir().join(file_name(1)).exists() && !house.dir().join(file_name(files - 2)).exists());

    long.record(&[note("afterwards")]).await.unwrap();
    drop(long);
    journal.close().await.unwrap();
    let report = house.verify();
    assert_eq!((report.first_bad.clone(), report.begins_at), (None, trim.records), "{report:?}");
    assert_eq!(report.covered, report.records);
    let (journal, recovery) = house.open_in(house.dir()).unwrap();
    assert_eq!((recovery.records, recovery.repaired), (report.records, None));
    // Again, from where it begins now.
    let more = journal.begin(opening(201)).await.unwrap();
    for _ in 0..40 {
        more.record(&[note(&"y".repeat(900))]).await.unwrap();
    }
    journal.checkpoint().await.unwrap();
    let files = newest(house.dir()).unwrap().unwrap();
    let trim = plan(&house, files, 0).unwrap();
    say_trimmed(&journal, &trim).await;
    trim.carry_out(house.dir()).unwrap();
    // Killed with a recording open that began before: it is ended all the same.
    drop(journal);
    drop(more);
    assert!(house.verify().is_whole());
    let replayed = replay::replay(&replay::Source::new(house.dir(), &connection(201)), |_| Ok(()));
    assert!(matches!(replayed, Err(replay::ReplayError::Removed(_))), "{replayed:?}");
    let session = SessionId::from_random([3; 10]);
    let key = house.key().verify_key();
    let order = bundle::Order { directory: house.dir(), key: &key, session: &session, redactions: &[] };
    let refused = bundle::write(&order, &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("from the archive"), "{refused}");
}

#[tokio::test]
async fn files_that_somebody_else_removed_are_missed() {
    let house = House::new();
    let (journal, _long) = several_files(&house).await;
    let trim = plan(&house, 3, 0).unwrap();
    trim.carry_out(house.dir()).unwrap();
    drop(journal);
    let report = house.verify();
    let bad = report.first_bad.unwrap();
    assert_eq!((bad.kind, bad.file.as_str()), (Kind::FileMissing, "base"), "{bad:?}");
}

#[tokio::test]
async fn what_others_kept_of_records_that_are_not_here_confirms_nothing() {
    use crate::crypto::cosign::{WitnessKey, text_and_signatures};
    let house = House::new();
    let (journal, _long) = several_files(&house).await;
    let early = fs::read_to_string(house.dir().join("checkpoints.log")).unwrap();
    let early = early.split_inclusive("\n\n").take(2).collect::<String>().trim_end().to_owned() + "\n";
    let trim = plan(&house, 3, 0).unwrap();
    say_trimmed(&journal, &trim).await;
    trim.carry_out(house.dir()).unwrap();
    journal.close().await.unwrap();
    let said = house.verify().to_string();
    assert!(said.contains(&format!("begins at:  record {}", trim.records)), "{said}");
    let elsewhere = TempDir::new().unwrap();
    let pins = [elsewhere.path().join("pin")];
    fs::write(&pins[0], &early).unwrap();
    let key = house.key().verify_key();
    let with = |pins, witnesses| {
        verify(&Options { directory: house.dir(), key: &key, pins, witnesses }, &mut |_| {})
    };
    let refused = with(&pins, &[]).unwrap_err();
    assert!(refused.to_string().contains("verify the archive"), "{refused}");
    // The gateway removes nothing that a witness has not seen: somebody else did.
    let witness = WitnessKey::from_pem(&SigningKey::generate(), "witness.example".parse().unwrap()).unwrap();
    let (text, _) = text_and_signatures(&early).unwrap();
    let name = witness::cosigned_file(&witness.verify_key());
    fs::write(house.dir().join(name), early.clone() + &witness.cosign(&text, 1)).unwrap();
    let bad = with(&[], &[witness.verify_key()]).unwrap().first_bad.unwrap();
    assert_eq!(bad.kind, Kind::NotWitnessed, "{bad}");
}

#[tokio::test]
async fn a_log_whose_files_are_removed_while_it_is_read_is_not_accused() {
    let house = House::new();
    let (journal, long) = several_files(&house).await;
    // So many that progress is told of before the end.
    let many: Vec<_> = (0..512).map(|_| note("and on")).collect();
    for _ in 0..10 {
        long.record(&many).await.unwrap();
    }
    journal.checkpoint().await.unwrap();
    let files = newest(house.dir()).unwrap().unwrap();
    let mut trim = plan(&house, files, 0);
    say_trimmed(&journal, trim.as_ref().unwrap()).await;
    journal.checkpoint().await.unwrap();
    let key = house.key().verify_key();
    let options = Options { directory: house.dir(), key: &key, pins: &[], witnesses: &[] };
    // Files removed between two records that are read: the reader is amid them.
    let report = verify(&options, &mut |_| {
        if let Some(trim) = trim.take() {
            trim.carry_out(house.dir()).unwrap();
        }
    });
    assert!(trim.is_none());
    let report = report.unwrap();
    assert_eq!(report.first_bad, None, "{report}");
    assert!(report.begins_at > 0, "it was read anew: {report}");
}

#[tokio::test]
async fn a_base_that_was_altered_is_found() {
    let house = House::new();
    let (journal, _long) = several_files(&house).await;
    let trim = plan(&house, 3, 0).unwrap();
    say_trimmed(&journal, &trim).await;
    trim.carry_out(house.dir()).unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    let path = house.dir().join("base");
    let base: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let other = |value: &serde_json::Value| match value {
        serde_json::Value::Number(number) => (number.as_u64().unwrap() + 1).into(),
        serde_json::Value::String(digits) => {
            let first = if digits.starts_with('7') { "8" } else { "7" };
            format!("{first}{}", &digits[1..]).into()
        }
        other => panic!("{other}"),
    };
    let peaks = base["log"]["tree"]["peaks"].as_array().unwrap().len();
    let mut pointers: Vec<String> = (0..peaks).map(|peak| format!("/log/tree/peaks/{peak}")).collect();
    let more = ["/log/head", "/log/tree/size", "/control/next", "/control/head", "/recordings/0/chain/next"];
    pointers.extend(more.map(str::to_owned));
    pointers.extend(
        ["/recordings/0/rec", "/recordings/0/chain/head", "/unannounced/0", "/file", "/v"].map(str::to_owned),
    );
    for pointer in pointers {
        let mut altered = base.clone();
        let value = altered.pointer_mut(&pointer).unwrap();
        *value = other(value);
        fs::write(&path, altered.to_string()).unwrap();
        let report = house.verify();
        // The control recording has no end that would tell its head: its records are in the tree.
        assert_eq!(report.is_whole(), pointer == "/control/head", "{pointer}: {report:?}");
    }
}

#[tokio::test]
async fn a_witness_that_is_up_to_date_goes_on_and_one_that_is_not_keeps_the_files() {
    let house = House::new();
    let (journal, _long) = several_files(&house).await;
    let early = fs::read_to_string(house.dir().join("checkpoint")).unwrap();
    let early = early.replacen(&early.lines().nth(1).unwrap().to_owned(), "3", 1);
    let pem = SigningKey::generate();
    let witness =
        crate::crypto::cosign::WitnessKey::from_pem(&pem, "witness.example".parse().unwrap()).unwrap();
    let asked = [witness.verify_key()];
    fs::write(house.dir().join(witness::cosigned_file(&asked[0])), early).unwrap();
    let key = house.key().verify_key();
    let kept = base::plan(house.dir(), (&key, &asked), 3, 0).unwrap();
    assert!(kept.is_none(), "the witness has seen three records only");
    assert!(plan(&house, 3, 0).is_some(), "one that is not asked any more keeps nothing");
    drop(journal);
}

#[tokio::test]
async fn what_is_left_is_exported() {
    use crate::audit::export::{self, Filter, Format, Order};
    let house = House::new();
    let (journal, long) = several_files(&house).await;
    let trim = plan(&house, 3, 0).unwrap();
    say_trimmed(&journal, &trim).await;
    trim.carry_out(house.dir()).unwrap();
    long.end(EndReason::Idle, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let records = house.verify().records;
    let filter = Filter::default();
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Sql) {
        let order = Order { directory: house.dir(), format, filter: &filter, size: None };
        let mut written = Vec::new();
        let counts = export::write(&order, &mut |_| true, &mut written).unwrap();
        assert_eq!(counts.log, records, "{format}");
        if matches!(format, Format::Jsonl | Format::Ocsf) {
            assert_eq!(counts.written, records - trim.records, "{format}");
            assert_eq!(export::count(&order, &mut |_| true).unwrap(), counts);
        }
        let half = Order { size: Some(trim.records + 5), ..order };
        assert_eq!(export::count(&half, &mut |_| true).unwrap().log, trim.records + 5, "{format}");
    }
}
