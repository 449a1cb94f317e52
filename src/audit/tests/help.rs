//! Who waits does the writer's work where the disk is fast: never beside it, and with the same ends.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ThreadId};

use super::super::queue::{Head, Task};
use super::*;

/// Says which threads sync, and that they do it one at a time. What it syncs is kept in memory by the system.
#[derive(Debug)]
struct Seen {
    inner: Directory,
    to: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    threads: Mutex<HashSet<ThreadId>>,
    /// Who wrote checkpoints.
    kept_by: Mutex<HashSet<ThreadId>>,
    syncs: AtomicU64,
    busy: AtomicBool,
    twice: AtomicBool,
    /// How long a sync takes, in microseconds.
    takes: AtomicU64,
    panics_on: Mutex<Option<ThreadId>>,
}

impl Told {
    fn has(&self, thread: ThreadId) -> bool {
        self.threads.lock().unwrap().contains(&thread)
    }
}

impl Medium for Seen {
    fn allocate(&mut self, number: u32, size: u64) -> Result<(), NotAllocated> {
        self.inner.allocate(number, size)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.to.busy.swap(true, Ordering::SeqCst) {
            self.to.twice.store(true, Ordering::SeqCst);
        }
        let written = self.inner.write(offset, bytes);
        self.to.busy.store(false, Ordering::SeqCst);
        written
    }

    #[expect(clippy::disallowed_methods, reason = "a disk that takes its time holds its thread up")]
    fn sync(&mut self) -> io::Result<()> {
        let this = thread::current().id();
        assert_ne!(*self.to.panics_on.lock().unwrap(), Some(this), "a defect");
        self.to.threads.lock().unwrap().insert(this);
        self.to.syncs.fetch_add(1, Ordering::SeqCst);
        let takes = Duration::from_micros(self.to.takes.load(Ordering::SeqCst));
        if takes > Duration::ZERO {
            thread::sleep(takes);
        }
        Ok(())
    }

    fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        // The first is made before there is a writer's thread.
        if self.to.syncs.load(Ordering::SeqCst) > 1 {
            self.to.kept_by.lock().unwrap().insert(thread::current().id());
        }
        self.inner.checkpoint(note)
    }

    fn ends_here(&mut self) {
        self.inner.ends_here();
    }
}

fn open(house: &House) -> (Journal, Arc<Told>) {
    let told = Arc::new(Told::default());
    let to = told.clone();
    let options = JournalOptions { file_size: 4 << 20, ..JournalOptions::new(house.key()) };
    let opened = Journal::open_on(house.dir(), Clock::manual(START), options, |inner| Seen { inner, to });
    (opened.unwrap().0, told)
}

/// Records until this thread has synced; gives how many.
async fn until_helped(recorder: &Recorder, told: &Told) -> u64 {
    let mut n = 0;
    let helped = async {
        while !told.has(thread::current().id()) {
            n += 1;
            recorder.record(&[statement(n, "SELECT 1")]).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), helped).await.expect("helped in time");
    n
}

#[tokio::test]
async fn who_is_alone_on_a_fast_disk_does_it_there_and_then() {
    let house = House::new();
    let (journal, told) = open(&house);
    let recorder = journal.begin(opening(1)).await.unwrap();
    let n = until_helped(&recorder, &told).await;
    recorder.note_wait(&[note("beside it")]).await.unwrap();
    recorder.record(&[statement(n + 1, "SELECT 'the last'")]).await.unwrap();
    assert!(String::from_utf8(data(house.dir())).unwrap().contains("the last"));
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
    journal.close().await.unwrap();
    let report = house.verify();
    assert!(report.is_whole() && report.unfinished.is_empty(), "{report}");
}

#[tokio::test]
async fn what_is_ready_on_one_thread_shares_a_sync() {
    let house = House::new();
    let (journal, told) = open(&house);
    let mut recorders = Vec::new();
    for number in 1..=20 {
        recorders.push(journal.begin(opening(number)).await.unwrap());
    }
    until_helped(&recorders[0], &told).await;
    let before = told.syncs.load(Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for recorder in recorders {
        tasks.spawn(async move { recorder.record(&[note("at the same time")]).await });
    }
    tasks.join_all().await.into_iter().for_each(Result::unwrap);
    let syncs = told.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&syncs), "{syncs} syncs for 20 records");
}

#[tokio::test]
async fn what_is_given_up_by_who_would_do_it_is_done_all_the_same() {
    let house = House::new();
    let (journal, told) = open(&house);
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 0..10 {
        until_helped(&recorder, &told).await;
        let text = format!("given up {n}.");
        let bodies = [note(&text)];
        // Polled once.
        assert!(
            futures_util::FutureExt::now_or_never(recorder.record(&bodies)).is_none_or(|done| done.is_ok())
        );
        let written = async {
            while !String::from_utf8(data(house.dir())).unwrap().contains(&text) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.expect("it is written");
    }
}

/// Nobody else may have to wait for somebody who has undertaken the work and is not looked after.
#[tokio::test]
async fn who_is_not_looked_after_holds_nobody_up() {
    let house = House::new();
    let (journal, told) = open(&house);
    let (recorder, other) =
        (journal.begin(opening(1)).await.unwrap(), journal.begin(opening(2)).await.unwrap());
    for _ in 0..50 {
        until_helped(&recorder, &told).await;
        let bodies = [note("left alone")];
        let mut left_alone = Box::pin(recorder.record(&bodies));
        if futures_util::poll!(&mut left_alone).is_ready() {
            // The writer's thread was quicker.
            continue;
        }
        let within = Duration::from_secs(10);
        tokio::time::timeout(within, other.record(&[note("other")])).await.expect("not held up").unwrap();
        left_alone.await.unwrap();
    }
}

/// Nor somebody on another thread, while that one is at something that takes a while.
#[test]
fn a_thread_that_is_busy_holds_no_other_up() {
    let house = House::new();
    let (journal, told) = open(&house);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let (recorder, other) = here.block_on(async {
        (journal.begin(opening(1)).await.unwrap(), journal.begin(opening(2)).await.unwrap())
    });
    let mut undertaken = 0;
    for _ in 0..50 {
        here.block_on(async {
            until_helped(&recorder, &told).await;
            let bodies = [note("undertaken")];
            let mut left_alone = Box::pin(recorder.record(&bodies));
            if futures_util::poll!(&mut left_alone).is_ready() {
                // The writer's thread was quicker.
                return;
            }
            undertaken += 1;
            // Nothing else happens on this thread until the other has had its turn.
            let theirs = async {
                let within = Duration::from_secs(10);
                tokio::time::timeout(within, other.record(&[note("other")])).await.expect("not held up")
            };
            thread::scope(|scope| scope.spawn(|| there.block_on(theirs)).join().unwrap()).unwrap();
            left_alone.await.unwrap();
        });
    }
    assert!(undertaken > 0);
}

/// Nor where somebody on a third thread has undertaken the work as well, and whoever came first found another at work.
#[test]
fn who_came_too_early_waits_for_no_third_thread() {
    let house = House::new();
    let (journal, told) = open(&house);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (works, early, late) = (runtime(), runtime(), runtime());
    let (first, second, third) = works.block_on(async {
        (
            journal.begin(opening(1)).await.unwrap(),
            journal.begin(opening(2)).await.unwrap(),
            journal.begin(opening(3)).await.unwrap(),
        )
    });
    let mut overtaken = 0;
    for n in 0..20 {
        works.block_on(until_helped(&first, &told));
        // One undertakes it and does not come to it until all is over.
        let bodies = [note("late")];
        let mut undertaken = Box::pin(third.record(&bodies));
        let is_done = late.block_on(async { futures_util::poll!(&mut undertaken).is_ready() });
        // Another is at work when a third comes.
        told.takes.store(100_000, Ordering::SeqCst);
        let syncs = told.syncs.load(Ordering::SeqCst);
        thread::scope(|scope| {
            let working =
                scope.spawn(|| works.block_on(first.record(&[statement(1_000 + n, "SELECT 'works'")])));
            while told.syncs.load(Ordering::SeqCst) == syncs {
                thread::yield_now();
            }
            told.takes.store(0, Ordering::SeqCst);
            let bodies = [note("early")];
            let recorded =
                async { tokio::time::timeout(Duration::from_secs(10), second.record(&bodies)).await };
            early.block_on(recorded).expect("not held up").unwrap();
            working.join().unwrap().unwrap();
        });
        overtaken += usize::from(!is_done);
        late.block_on(undertaken).unwrap();
    }
    assert!(overtaken > 0);
}

/// A checkpoint takes longer than a record: it is for the writer's thread.
#[tokio::test]
async fn nobody_keeps_a_checkpoint_in_the_middle_of_something_else() {
    let house = House::new();
    let (journal, told) = open(&house);
    let recorder = journal.begin(opening(1)).await.unwrap();
    for _ in 0..20 {
        until_helped(&recorder, &told).await;
        let Head { log, .. } = journal.head().await.unwrap();
        let (size, note) = (log.size(), house.key().sign(log.size(), &log.root()).unwrap());
        let bodies = [statement(1_000_000, "SELECT 'undertaken'")];
        let mut undertaken = Box::pin(recorder.record(&bodies));
        let _polled = futures_util::poll!(&mut undertaken);
        journal.handle.push(journal.handle.job(Task::Checkpoint { size, note }, None, None)).unwrap();
        undertaken.await.unwrap();
    }
    journal.close().await.unwrap();
    assert!(!told.kept_by.lock().unwrap().contains(&thread::current().id()));
}

/// Nor writes what is long: the next file may have to be made for it.
#[tokio::test]
async fn what_is_long_is_for_the_writers_thread() {
    let house = House::new();
    let (journal, told) = open(&house);
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 0..20 {
        until_helped(&recorder, &told).await;
        told.threads.lock().unwrap().clear();
        recorder.record(&[statement(1_000_000 + n, &"x".repeat(300_000))]).await.unwrap();
        assert!(!told.has(thread::current().id()));
    }
}

#[tokio::test]
async fn the_last_handle_may_go_on_the_thread_that_would_do_the_work() {
    for _ in 0..20 {
        let house = House::new();
        let (journal, told) = open(&house);
        let recorder = journal.begin(opening(1)).await.unwrap();
        until_helped(&recorder, &told).await;
        let bodies = [note("given up")];
        let _gone = futures_util::FutureExt::now_or_never(recorder.record(&bodies));
        drop((recorder, journal));
        assert!(house.verify().is_whole());
    }
}

#[tokio::test]
async fn on_a_slow_disk_the_writers_thread_does_it() {
    let house = House::new();
    let (journal, told) = open(&house);
    told.takes.store(1_000, Ordering::SeqCst);
    let recorder = journal.begin(opening(1)).await.unwrap();
    for n in 1..50 {
        recorder.record(&[statement(n, "SELECT 1")]).await.unwrap();
    }
    assert!(!told.has(thread::current().id()));
    // Nor the first record after a restart, when nobody knows the disk.
    journal.close().await.unwrap();
    drop((recorder, journal));
    let (journal, told) = open(&house);
    told.threads.lock().unwrap().clear();
    told.takes.store(1_000, Ordering::SeqCst);
    let recorder = journal.begin(opening(2)).await.unwrap();
    recorder.record(&[statement(1, "SELECT 1")]).await.unwrap();
    assert!(!told.has(thread::current().id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_never_write_beside_each_other() {
    let house = House::new();
    let (journal, told) = open(&house);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 1..=8 {
        let recorder = journal.begin(opening(number)).await.unwrap();
        tasks.spawn(async move {
            for n in 1..=300 {
                recorder.record(&[statement(n, "SELECT 1")]).await.unwrap();
                recorder
                    .note_wait(&[Body::StatementEnd(StatementEnd::new(n, StatementOutcome::Done))])
                    .await
                    .unwrap();
                if n % 50 == u64::from(number) {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }
            recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
        });
    }
    tasks.join_all().await;
    journal.close().await.unwrap();
    assert!(!told.twice.load(Ordering::SeqCst));
    let report = house.verify();
    assert!(report.is_whole() && report.unfinished.is_empty(), "{report}");
    assert_eq!(report.records, 8 * 602);
}

#[tokio::test]
async fn one_that_panics_while_it_helps_breaks_the_log_for_everybody() {
    let house = House::new();
    let (journal, told) = open(&house);
    let recorder = journal.begin(opening(1)).await.unwrap();
    until_helped(&recorder, &told).await;
    *told.panics_on.lock().unwrap() = Some(thread::current().id());
    let mut n = 1_000_000;
    let refused = loop {
        n += 1;
        if let Err(why) = recorder.record(&[statement(n, "SELECT 1")]).await {
            break why;
        }
    };
    let why = journal.failed().await;
    assert!(why.to_string().contains("panicked"), "{why}");
    assert_eq!(refused, why);
    assert_eq!(recorder.record(&[note("next")]).await, Err(why));
    // Nobody waits for who will not come back.
    drop((recorder, journal));
    let (_journal, _) = house.open();
    assert!(house.verify().is_whole());
}
