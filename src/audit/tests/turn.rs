//! One recording from many sides: its records keep their order, and nothing follows its end.

use super::super::queue::{Job, Task};
use super::*;

/// All that a log's lines say under `field`, of one recording.
fn numbers(dir: &Path, recording: &str, field: &str) -> Vec<u64> {
    let bytes = data(dir);
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records = lines.map(|line| parse_line(line).unwrap().json);
    let records = records.map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap());
    records
        .filter(|record| record["rec"] == recording)
        .map(|record| record[field].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_on_many_threads_record_one_after_the_other() {
    let house = House { file_size: 4 << 20, ..House::new() };
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for who in 0..8 {
        let (recorder, journal) = (recorder.clone(), journal.clone());
        all.spawn(async move {
            for n in 0..50 {
                recorder.note_wait(&[note("noted")]).await.unwrap();
                recorder.record(&[statement(1000 * who + n, "SELECT 1"), note("with it")]).await.unwrap();
                let event = Event::done(Action::SessionEnded);
                journal.control(&[ControlEntry { at: START, outbox: None, event }]).await.unwrap();
            }
        });
    }
    all.join_all().await;
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
    for recording in [connection(1).as_str(), node().as_str()] {
        let seqs = numbers(house.dir(), recording, "seq");
        assert!(seqs.len() >= 400);
        assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
        assert!(numbers(house.dir(), recording, "mono").is_sorted());
    }
}

#[tokio::test]
async fn a_record_out_of_its_turn_breaks_the_log() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let chain = chain::RecordingChain::start(connection(1).as_str());
    let body = encode::bodies(&[note("again the first")]).remove(0);
    let (stamp, recording) = (journal.handle.stamp(), connection(1));
    let first = encode::record(Vec::new(), (recording.as_str(), &chain), stamp, &node(), &[], &body);
    let task = Task::Record { recording, context: recorder.context(), first: Some(first), rest: Vec::new() };
    let (done, waiting) = journal.handle.done();
    journal.handle.push_or_help(Job { task, stamp, done: Some(done), room: None }).unwrap();
    let why = journal.handle.wait(waiting).await.unwrap_err();
    assert!(why.to_string().contains("out of its turn"), "{why}");
    assert_eq!(recorder.record(&[note("and now")]).await.unwrap_err(), why);
    drop((recorder, journal));
    assert!(house.open().1.repaired.is_some());
    assert!(house.verify().is_whole());
}

#[tokio::test]
async fn what_is_given_up_before_there_is_room_was_never_begun() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let all = journal.handle.room(usize::MAX >> 1).await.unwrap();
    for _ in 0..3 {
        let mut waiting = Box::pin(journal.begin(opening(1)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    drop(all);
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(end_of(house.dir(), 1), EndReason::ClientClosed);
}

/// Refused, as there is one of that name, and given up before it was told so.
#[tokio::test]
async fn what_is_refused_and_given_up_ends_nobody_elses_recording() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let mut refused = Box::pin(journal.begin(opening(1)));
    let _on_its_way = futures_util::poll!(&mut refused);
    drop(refused);
    journal.begin(opening(1)).await.unwrap_err();
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(end_of(house.dir(), 1), EndReason::ClientClosed);
}

#[tokio::test]
async fn a_closed_log_says_so_to_every_clone() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let other = recorder.clone();
    journal.close().await.unwrap();
    let ended = recorder.end(EndReason::ClientClosed, Totals::default()).await;
    assert_eq!(ended.unwrap_err(), Unrecordable::Closed);
    assert_eq!(other.record(&[note("later")]).await.unwrap_err(), Unrecordable::Closed);
}
