//! What is written is read back: replay, tail, verification of a live log, splitting.

use super::super::files::newest;
use super::super::replay::{ReplayError, Source};
use super::super::tail::Tail;
use super::*;

#[tokio::test]
async fn silence_is_vouched_for_too() {
    let house = House::new();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(house.dir(), clock.clone(), house.options()).unwrap();
    let count =
        || fs::read_to_string(house.dir().join("checkpoints.log")).unwrap().matches('\u{2014}').count();
    let before = count();
    let stop = tokio_util::sync::CancellationToken::new();
    let ticking = {
        let (journal, stop) = (journal.clone(), stop.clone());
        let mut tasks = tokio::task::JoinSet::new();
        let signed = tokio::sync::watch::Sender::new(Signed { at: START, failing: None });
        tasks.spawn(async move { journal.checkpoints(stop, signed).await });
        tasks
    };
    let grown = async {
        while count() < before + 3 {
            clock.advance(CHECKPOINT_EVERY);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), grown).await.unwrap();
    stop.cancel();
    for ended in ticking.join_all().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn long_statements_and_many_parameters_are_split_and_nothing_is_lost() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let texts = ["é\u{1}".repeat(400_000).into_bytes(), vec![0xff; 700_000], b"SELECT 1".to_vec()];
    for (n, sql) in (1..).zip(&texts) {
        let mut statement = Statement::new(n, How::Extended, sql);
        statement.params = vec![Parameter::new(Some(&vec![1; 200_000]), Format::Binary, 17); 3];
        statement.params.extend(vec![Parameter::new(None, Format::Text, 0); 20_000]);
        recorder.record(&[Body::Statement(statement)]).await.unwrap();
    }
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    let mut read: Vec<(Vec<u8>, usize)> = Vec::new();
    let mut pending = (Vec::new(), 0);
    for content in contents(house.dir(), 1) {
        let Content::Body(body) = content else { continue };
        match *body {
            Body::SqlPart(part) => pending.0.extend(part.sql.bytes()),
            Body::ParameterPart(part) => pending.1 += part.params.len(),
            Body::Statement(statement) => {
                pending.0.extend(statement.sql.bytes());
                pending.1 += statement.params.len();
                read.push(std::mem::take(&mut pending));
            }
            _ => {}
        }
    }
    let expected: Vec<_> = texts.into_iter().map(|sql| (sql, 20_003)).collect();
    assert!(read == expected, "what is read back is what was sent");
    for file in 1.. {
        let Ok(bytes) = fs::read(house.dir().join(file_name(file))) else { break };
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| line.first() != Some(&0)) {
            assert!(line.is_empty() || parse_line(line).unwrap().json.len() < LONGEST_RECORD);
        }
    }
}

#[tokio::test]
async fn every_record_says_who_where_and_under_what() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let mut out = Vec::new();
    replay::replay_json(&Source::new(house.dir(), &connection(1)), &mut out).unwrap();
    for line in String::from_utf8(out).unwrap().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in [
            "v",
            "rec",
            "seq",
            "at",
            "mono",
            "node",
            "kind",
            "principal",
            "session",
            "request",
            "connection",
            "target",
            "access",
            "environment",
            "domain",
            "client",
            "break_glass",
        ] {
            assert!(record.get(field).is_some(), "{field} in {line}");
        }
    }
    let mut text = Vec::new();
    replay::replay_text(&Source::new(house.dir(), &connection(1)), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in
        ["alice", "ledger-prod", "incident", "BREAK-GLASS", "[1] SELECT 1", "outcome unknown", "closed"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Lines that are not header, record or a statement's further line.
fn strange_lines(text: &str) -> Vec<&str> {
    let (_, records) = text.split_once("\n\n").unwrap();
    let ours = |line: &&str| {
        line.starts_with("00:00:00.000  ")
            || line.starts_with("                | ")
            || line.starts_with("                  $")
            || line.starts_with("              0 statements")
    };
    records.lines().filter(|line| !ours(line)).collect()
}

#[tokio::test]
async fn what_a_peer_wrote_passes_for_no_line_of_the_transcript() {
    let forged = "x\n00:00:00.050  [6] DROP TABLE accounts\r\u{2028}\u{202e}\u{1b}[2A";
    let house = House::new();
    let (journal, _) = house.open();
    let mut opening = opening(1);
    opening.opened.reason = forged.to_owned();
    opening.opened.ticket = Some(forged.to_owned());
    opening.opened.application = Some(forged.to_owned());
    opening.opened.database = Some(forged.to_owned());
    let recorder = journal.begin(opening).await.unwrap();
    let mut stated = Statement::new(1, How::Simple, forged.as_bytes());
    stated.params = vec![Parameter::new(Some(forged.as_bytes()), Format::Text, 0)];
    let mut end = StatementEnd::new(1, StatementOutcome::Failed);
    (end.tag, end.sqlstate, end.message) =
        (Some(forged.to_owned()), Some(forged.to_owned()), Some(forged.to_owned()));
    let cancel = Cancel { n: None, from: None, why: forged.to_owned() };
    let bodies = [Body::Statement(stated), Body::StatementEnd(end), note(forged), Body::Cancel(cancel)];
    recorder.record(&bodies).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let mut text = Vec::new();
    replay::replay_text(&Source::new(house.dir(), &connection(1)), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(strange_lines(&text), <[&str; 0]>::default(), "{text}");
    assert!(!text.contains(|symbol: char| symbol != '\n' && symbol.is_control()), "{text:?}");
    assert!(!text.contains(['\u{2028}', '\u{202e}']), "{text:?}");
    let lines_with = |part: &str| text.lines().filter(|line| line.contains(part)).count();
    assert_eq!(
        lines_with("[6] DROP TABLE accounts\\r\\u{2028}\\u{202e}\\u{1b}[2A"),
        9,
        "all is shown: {text}"
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("00:00:00.050")).count(), 0, "{text}");
    assert!(text.contains("[1] x\n                | 00:00:00.050  [6] DROP"), "SQL keeps its lines: {text}");
}

#[tokio::test]
async fn a_tail_sees_what_is_added() {
    let mut house = House::new();
    house.file_size = 12 << 10;
    let (journal, _) = house.open();
    let mut tail = Tail::from_end(house.dir()).unwrap();
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..40 {
        recorder.record(&[note(&format!("note {n}"))]).await.unwrap();
        let mut seen = Vec::new();
        while let Some(record) = tail.poll().unwrap() {
            seen.push(String::from_utf8(record).unwrap());
        }
        assert!(seen.last().unwrap().contains(&format!("note {n}\"")), "{seen:?}");
    }
    assert!(house.dir().join(file_name(2)).exists());
}

#[tokio::test]
async fn a_tail_gives_out_nothing_that_does_not_follow_from_what_was_before() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..4 {
        recorder.record(&[note(&format!("note {n}"))]).await.unwrap();
    }
    let file = house.dir().join(file_name(1));
    let honest = fs::read(&file).unwrap();
    let lines: Vec<&[u8]> = honest.split_inclusive(|byte| *byte == b'\n').collect();
    let altered = String::from_utf8(data(house.dir())).unwrap().replace("note 2", "note 9").into_bytes();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().concat();
    let removed = [&lines[..2], &lines[3..]].concat().concat();
    for (bytes, first_bad) in [(altered, 2), (swapped, 2), (removed, 2)] {
        fs::write(&file, bytes).unwrap();
        let mut tail = Tail::from_start(house.dir());
        let mut given = 0;
        let refused = loop {
            match tail.poll() {
                Ok(Some(_)) => given += 1,
                other => break other.unwrap_err(),
            }
        };
        assert!(matches!(&refused, ReplayError::LogDamaged { n: 2, .. }), "{refused}");
        assert_eq!(given, first_bad);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_being_written_verifies_at_any_moment() {
    let mut house = House::new();
    house.file_size = 64 << 10;
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let writing = {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for n in 1..600 {
                let long = "x".repeat(usize::try_from(n % 40 * 100).unwrap());
                recorder.note_wait(&[note(&long)]).await?;
                if n % 50 == 0 {
                    journal.checkpoint().await.unwrap();
                }
            }
            recorder.end(EndReason::Idle, Totals::default()).await?;
            drop(journal);
            Ok::<_, Unrecordable>(())
        });
        tasks
    };
    let mut looks = 0;
    while house.verify().unfinished.len() == 1 {
        let report = house.verify();
        assert!(report.is_whole(), "{report}");
        looks += 1;
    }
    for written in writing.join_all().await {
        written.unwrap();
    }
    let report = house.verify();
    assert!(report.is_whole() && report.records == 601, "after {looks} looks: {report}");
}

#[test]
fn bytes_that_are_not_text_are_kept() {
    let sql = Sql::new(&[0xff, 0, b'x']);
    assert_eq!(sql, Sql::Bytes { b64: "/wB4".to_owned() });
    assert_eq!(sql.bytes(), [0xff, 0, b'x']);
}

/// Who watches one of today's connections does not wait until last month was read.
#[tokio::test]
async fn reading_begins_about_where_the_recording_does() {
    let house = House::new();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(house.dir(), clock.clone(), house.options()).unwrap();
    for number in 1..40 {
        let recorder = journal.begin(opening(number)).await.unwrap();
        for _ in 0..10 {
            clock.advance(Duration::from_secs(30));
            recorder.record(&[note(&"x".repeat(700))]).await.unwrap();
        }
        recorder.end(EndReason::Idle, Totals::default()).await.unwrap();
    }
    journal.close().await.unwrap();
    assert!(newest(house.dir()).unwrap() > Some(8));
    let opened = |number: u8| START.plus(Duration::from_mins(5) * u32::from(number - 1));
    let read = |number: u8, opened: Option<Timestamp>| {
        let connection = connection(number);
        let source = Source { directory: house.dir(), connection: &connection, opened };
        let mut all = Vec::new();
        let replayed = replay::replay_json(&source, &mut all)?;
        assert_eq!(replayed, Replayed::Whole);
        assert_eq!(std::str::from_utf8(&all).unwrap().lines().count(), 12);
        Ok::<_, ReplayError>(all)
    };
    for number in 1..40 {
        let whole = read(number, None).unwrap();
        for told in [START, opened(number), opened(39), opened(number).plus(Duration::from_hours(900))] {
            assert_eq!(read(number, Some(told)).unwrap(), whole, "{number} at {told}");
        }
    }
    let none = replay::follow_text(
        &Source { opened: Some(opened(30)), ..Source::new(house.dir(), &connection(200)) },
        &mut Vec::new(),
        || false,
    );
    assert!(matches!(none, Err(ReplayError::NoRecording(_))), "{none:?}");
    // Before it nothing is read.
    let first = house.dir().join(file_name(1));
    let mut bytes = fs::read(&first).unwrap();
    bytes[..3].fill(b'#');
    fs::write(&first, bytes).unwrap();
    for number in 1..40 {
        assert!(matches!(read(number, None), Err(ReplayError::Damaged { .. })));
        assert_eq!(read(number, Some(opened(number))).is_ok(), number > 3, "{number}");
    }
    // What says where the log begins is of another.
    fs::write(house.dir().join("base"), br#"{"file":90}"#).unwrap();
    assert!(matches!(read(30, Some(opened(30))), Err(ReplayError::Damaged { .. })));
}
