//! Group commit, ends of recordings, control records.

use super::*;

#[tokio::test]
async fn many_waiters_share_a_sync() {
    let house = House::new();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    let before = faults.syncs.load(Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 1..=200 {
        let recorder = recorder.clone();
        tasks.spawn(async move { recorder.record(&[statement(n, "SELECT 1")]).await });
    }
    for done in tasks.join_all().await {
        done.unwrap();
    }
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!((1..200).contains(&syncs), "{syncs} syncs for 200 records");
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let report = house.verify();
    assert!(report.is_whole(), "{report}");
    // opened, 200 statements, their unknown outcomes, ended
    assert_eq!(report.records, 402);
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_at_once_and_synced_with_what_comes_next_or_soon() {
    let house = House::new();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    let syncs = || faults.syncs.load(Ordering::SeqCst);
    let before = syncs();
    for n in 0..20 {
        let text = format!("note {n}");
        recorder.note_wait(&[note(&text)]).await.unwrap();
        eventually(|| String::from_utf8(data(house.dir())).unwrap().contains(&text)).await;
    }
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    let with_it = syncs() - before;
    assert!((1..20).contains(&with_it), "{with_it} syncs for 20 notes and a record");
    recorder.note_wait(&[note("last")]).await.unwrap();
    eventually(|| syncs() == before + with_it + 1).await;
}

/// Fails when `holds` does not come true within 10 s.
async fn eventually(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time");
}

#[tokio::test]
async fn what_was_recorded_is_in_the_file_before_the_caller_goes_on() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..20 {
        let sql = format!("SELECT {n}");
        recorder.record(&[statement(n, &sql)]).await.unwrap();
        assert!(String::from_utf8(data(house.dir())).unwrap().contains(&sql));
    }
}

#[tokio::test]
async fn a_recording_ends_explicitly_whatever_becomes_of_its_recorder() {
    let house = House::new();
    let (journal, _) = house.open();
    let dropped = journal.begin(opening(1)).await.unwrap();
    drop((dropped.clone(), dropped));
    let forgotten = journal.begin(opening(2)).await.unwrap();
    let cloned = journal.begin(opening(3)).await.unwrap();
    let other = cloned.clone();
    cloned.end(EndReason::Expired, Totals::default()).await.unwrap();
    assert_eq!(other.record(&[note("late")]).await, Err(Unrecordable::Ended));
    assert_eq!(other.end(EndReason::Idle, Totals::default()).await, Err(Unrecordable::Ended));
    assert_eq!(journal.begin(opening(2)).await.map(drop), Err(Unrecordable::Ended));
    journal.close().await.unwrap();
    assert_eq!(forgotten.record(&[note("late")]).await, Err(Unrecordable::Closed));
    assert_eq!(end_of(house.dir(), 1), EndReason::Internal);
    assert_eq!(end_of(house.dir(), 2), EndReason::Shutdown);
    assert_eq!(end_of(house.dir(), 3), EndReason::Expired);
}

#[tokio::test]
async fn the_outbox_goes_on_behind_what_is_recorded() {
    let house = House::new();
    let (journal, recovery) = house.open();
    assert_eq!((recovery.outbox, recovery.latest), (None, None));
    let entry = |outbox| ControlEntry { outbox, at: START, event: Event::done(Action::RequestCreated) };
    journal.control(&[entry(Some(7)), entry(Some(8)), entry(None)]).await.unwrap();
    journal.close().await.unwrap();
    let (_, recovery) = house.open();
    assert_eq!((recovery.outbox, recovery.latest), (Some(8), Some(START)));
    assert_eq!(recovery.records, 3);
}
