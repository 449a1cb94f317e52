//! Crashes, damage, failing and full disks.

use super::*;
use std::collections::HashSet;

#[tokio::test]
async fn a_crash_at_every_byte_of_the_last_write_leaves_a_whole_log() {
    let house = House::new();
    let (journal, _) = house.open();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let acknowledged = data(house.dir()).len();
    recorder.record(&[statement(1, "SELECT 1"), note("n")]).await.unwrap();
    let whole = data(house.dir()).len();
    let crashed = house.crashed();
    let image = fs::read(crashed.path().join(file_name(1))).unwrap();
    for cut in acknowledged..=whole {
        let dir = TempDir::new().unwrap();
        for name in ["checkpoint", "checkpoints.log"] {
            fs::copy(crashed.path().join(name), dir.path().join(name)).unwrap();
        }
        let mut torn = image.clone();
        torn[cut..].fill(0);
        fs::write(dir.path().join(file_name(1)), &torn).unwrap();
        let before = house.verify_in(dir.path());
        assert!(before.is_whole(), "cut at {cut}: {before}");
        let line = image[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let found = recover::scan(dir.path(), &house.key().verify_key()).unwrap();
        assert_eq!(found.torn(), cut - line, "cut at {cut}");
        // Repairing syncs a lot: done around the lines' ends, and here and there between.
        if cut - line > 1 && image[cut..].iter().position(|byte| *byte == b'\n') > Some(1) && cut % 61 > 0 {
            continue;
        }
        assert_eq!(before.unfinished, [connection(1).to_string()]);
        let (journal, recovery) = house.open_in(dir.path()).unwrap();
        let repaired = recovery.repaired.expect("a recording was open");
        assert_eq!(repaired.recordings, [connection(1)]);
        assert_eq!(repaired.discarded, before.torn);
        journal.close().await.unwrap();
        let report = house.verify_in(dir.path());
        assert!(report.is_whole() && report.unfinished.is_empty(), "cut at {cut}: {report}");
        assert_eq!(end_of(dir.path(), 1), EndReason::Crashed);
        if contents(dir.path(), 1).len() > 2 {
            let unknown = |content: &Content| match content {
                Content::Body(body) => matches!(
                    body.as_ref(),
                    Body::StatementEnd(StatementEnd { n: 1, outcome: StatementOutcome::Unknown, .. })
                ),
                _ => false,
            };
            assert!(contents(dir.path(), 1).iter().any(unknown), "cut at {cut}");
        }
        let (_, again) = house.open_in(dir.path()).unwrap();
        assert_eq!(again.repaired, None, "a second start finds nothing to repair");
    }
}

#[tokio::test]
async fn damage_that_no_crash_explains_is_refused() {
    let house = House::new();
    let (journal, _) = house.open();
    let _recorder = journal.begin(opening(1)).await.unwrap();
    journal.checkpoint().await.unwrap();
    let crashed = house.crashed();
    let path = crashed.path().join(file_name(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = house.open_in(crashed.path()).unwrap_err();
    let JournalError::Damaged(damage) = &refused else { panic!("{refused}") };
    assert_eq!((damage.n, damage.file.as_str()), (0, "journal-00000001.log"));
    assert!(refused.to_string().contains("sallyport audit verify"));
}

#[tokio::test]
async fn two_processes_never_share_a_journal() {
    let house = House::new();
    let (journal, _) = house.open();
    assert!(matches!(house.open_in(house.dir()), Err(JournalError::InUse { .. })));
    journal.close().await.unwrap();
    assert!(house.open_in(house.dir()).is_ok());
}

#[tokio::test]
async fn after_any_failed_step_nothing_is_recorded_and_everybody_knows() {
    let mut failed_at = HashSet::new();
    for steps in 0..12 {
        let house = House::new();
        let faults = Faults::none();
        let journal = house.open_on(&faults);
        faults.steps_left.store(steps, Ordering::SeqCst);
        let mut acknowledged = 0;
        let why = loop {
            let result = match journal.begin(opening(acknowledged)).await {
                Ok(recorder) => recorder.end(EndReason::Idle, Totals::default()).await,
                Err(why) => Err(why),
            };
            match result {
                Ok(()) => acknowledged += 1,
                Err(why) => break why,
            }
        };
        failed_at.insert(acknowledged);
        assert!(matches!(&why, Unrecordable::Failed { .. }), "{why}");
        assert_eq!(journal.failed().await, why);
        let event = ControlEntry { outbox: None, at: START, event: Event::done(Action::Login) };
        assert_eq!(journal.control(&[event]).await, Err(why.clone()));
        assert_eq!(journal.begin(opening(99)).await.map(drop), Err(why.clone()));
        assert_eq!(journal.checkpoint().await, Err(why.into()));
        drop(journal);
        // What was acknowledged is there after a restart.
        let (_journal, _) = house.open();
        assert!(house.verify().is_whole());
        let listed = replay::list(house.dir()).unwrap();
        assert!(listed.len() >= usize::from(acknowledged));
        assert!(listed.iter().all(|recording| recording.ended_at.is_some()));
    }
    assert!(failed_at.len() > 1, "failures at different times were tried: {failed_at:?}");
}

#[tokio::test]
async fn a_failed_note_is_reported_by_the_next_call() {
    let house = House::new();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    faults.steps_left.store(0, Ordering::SeqCst);
    recorder.note(note("lost")).unwrap();
    let why = journal.failed().await;
    assert_eq!(recorder.record(&[note("next")]).await, Err(why.clone()));
    assert_eq!(recorder.note(note("next")), Err(why.clone()));
    assert_eq!(recorder.end(EndReason::Idle, Totals::default()).await, Err(why));
}

#[tokio::test]
async fn with_the_disk_full_open_recordings_still_get_their_end() {
    let mut house = House::new();
    house.file_size = 16 << 10;
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorders = [journal.begin(opening(1)).await.unwrap(), journal.begin(opening(2)).await.unwrap()];
    faults.files_left.store(0, Ordering::SeqCst);
    let mut n = 0;
    while recorders[0].record(&[statement(n, "SELECT 1")]).await.is_ok() {
        recorders[0]
            .record(&[Body::StatementEnd(StatementEnd::new(n, StatementOutcome::Done))])
            .await
            .unwrap_or_default();
        n += 1;
    }
    let why = journal.failed().await;
    assert!(why.to_string().contains("allocate"), "{why}");
    drop(recorders);
    drop(journal);
    let report = house.verify();
    assert!(report.is_whole() && report.unfinished.is_empty(), "{report}");
    assert_eq!(report.covered, report.records, "a last checkpoint vouches for all");
    for number in [1, 2] {
        assert!(matches!(end_of(house.dir(), number), EndReason::Unrecordable { .. }));
    }
    // With room again, the log goes on.
    let (journal, recovery) = house.open();
    assert_eq!(recovery.repaired, None);
    let recorder = journal.begin(opening(3)).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn a_journal_of_arbitrary_bytes_is_read_to_an_end_without_a_panic(
        bytes in proptest::collection::vec(
            proptest::sample::select(vec![0_u8, b'\n', b' ', b'0', b'1', b'a', b'{', b'}', 0xff]), 0..2000),
    ) {
        let house = House::new();
        let note = house.key().sign(0, &chain::Log::start(&node()).root()).unwrap();
        fs::write(house.dir().join("checkpoint"), &note).unwrap();
        fs::write(house.dir().join("checkpoints.log"), format!("{note}\n")).unwrap();
        fs::write(house.dir().join(file_name(1)), &bytes).unwrap();
        let report = house.verify();
        proptest::prop_assert_eq!(report.records, 0);
        let _ = replay::list(house.dir());
        // Nothing vouches for these bytes: they count as a write that a crash tore, and are kept aside.
        let (journal, recovery) = house.open();
        let data = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let discarded = recovery.repaired.map_or(0, |repaired| repaired.discarded);
        proptest::prop_assert_eq!(discarded, u64::try_from(data).unwrap());
        drop(journal);
        proptest::prop_assert!(house.verify().is_whole());
    }
}
