//! What is written is read back: replay, tail, verification of a live log, splitting.

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
        tasks.spawn(async move { journal.checkpoints(stop).await });
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
    replay::replay_json(house.dir(), &connection(1), &mut out).unwrap();
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
    replay::replay_text(house.dir(), &connection(1), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in
        ["alice", "ledger-prod", "incident", "BREAK-GLASS", "[1] SELECT 1", "outcome unknown", "closed"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_tail_sees_what_is_added() {
    let mut house = House::new();
    house.file_size = 12 << 10;
    let (journal, _) = house.open();
    let mut tail = replay::Tail::from_end(house.dir()).unwrap();
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
                recorder.note_wait(note(&long)).await?;
                if n % 50 == 0 {
                    journal.checkpoint().await?;
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
