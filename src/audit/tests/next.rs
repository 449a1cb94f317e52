//! The file that is made beforehand, as part of a journal: used, or gone, whatever happens.

use super::super::next_file::NEXT_FILE;
use super::*;

const FILE: u64 = 8 << 20;

fn house() -> House {
    House { file_size: FILE, ..House::new() }
}

/// Records until the log has `files` files.
async fn fill(house: &House, journal: &Journal, connection: u8, files: u32) {
    let recorder = journal.begin(opening(connection)).await.unwrap();
    let (sql, mut n) = ("SELECT 1 ".repeat(10_000), 0);
    while !house.dir().join(file_name(files)).exists() {
        n += 1;
        recorder.record(&[statement(n, &sql)]).await.unwrap();
    }
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
}

fn is_made(house: &House) -> bool {
    house.dir().join(NEXT_FILE).exists()
}

/// Fills the current file as far as the next one is in the making, which another thread sees to.
async fn until_made(house: &House, recorder: &Recorder) {
    let sql = "SELECT 2 ".repeat(10_000);
    for n in 1..=FILE * 5 / 8 / 90_000 {
        recorder.record(&[statement(n, &sql)]).await.unwrap();
    }
    let begun = std::time::Instant::now();
    while !is_made(house) {
        assert!(begun.elapsed() < Duration::from_mins(1), "it is not made");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_log_of_several_files_is_whole_and_leaves_none_behind() {
    let house = house();
    let (journal, _) = house.open();
    fill(&house, &journal, 1, 3).await;
    // Half of the third: the fourth is in the making.
    let recorder = journal.begin(opening(2)).await.unwrap();
    until_made(&house, &recorder).await;
    // Though somebody still holds the journal.
    journal.close().await.unwrap();
    assert!(!is_made(&house));
    drop(recorder);
    assert!(house.verify().is_whole());
    let (journal, recovery) = house.open();
    assert_eq!(recovery.repaired, None);
    fill(&house, &journal, 3, 4).await;
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
}

/// The process died while it made the next file, or when that had its number and no record.
#[tokio::test]
async fn what_a_crash_leaves_of_it_is_taken_up_or_removed() {
    let house = house();
    let (journal, _) = house.open();
    fill(&house, &journal, 1, 2).await;
    for half in [false, true] {
        let crashed = house.crashed();
        // It makes no difference to the start where it cannot be removed.
        if half {
            fs::create_dir(crashed.path().join(NEXT_FILE)).unwrap();
        } else {
            fs::write(crashed.path().join(NEXT_FILE), vec![0; 1 << 20]).unwrap();
        }
        if half {
            let next = fs::File::create(crashed.path().join(file_name(3))).unwrap();
            next.set_len(FILE).unwrap();
        }
        let (again, recovery) = house.open_in(crashed.path()).unwrap();
        assert!(recovery.records > 0);
        assert_eq!(crashed.path().join(NEXT_FILE).exists(), half);
        let recorder = again.begin(opening(2)).await.unwrap();
        recorder.record(&[statement(1, "SELECT 'after'")]).await.unwrap();
        recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
        again.close().await.unwrap();
        assert!(house.verify_in(crashed.path()).is_whole());
        assert_eq!(end_of(crashed.path(), 2), EndReason::ClientClosed);
    }
}

/// Nothing is made any more where nothing can be recorded.
#[tokio::test]
async fn none_is_left_when_the_log_breaks() {
    let house = house();
    let faults = Faults::none();
    let journal = house.open_on(&faults);
    let recorder = journal.begin(opening(1)).await.unwrap();
    until_made(&house, &recorder).await;
    faults.steps_left.store(0, Ordering::SeqCst);
    recorder.record(&[statement(1_000, "SELECT 'lost'")]).await.unwrap_err();
    let begun = std::time::Instant::now();
    while is_made(&house) {
        assert!(begun.elapsed() < Duration::from_mins(1), "it stays");
        tokio::task::yield_now().await;
    }
}
