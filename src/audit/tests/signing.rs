//! A key that fails or hangs: the log goes on, and what is signed holds.

use std::sync::{Condvar, Mutex};

use super::signer::{Absent, NotSigned, Signer};
use super::*;
use crate::crypto::sign::{KeyPair, PUBLIC_KEY_LENGTH};

/// Signs, refuses or hangs, as it is told.
#[derive(Debug)]
struct Moody {
    pair: KeyPair,
    mood: Mutex<Mood>,
    changed: Condvar,
    asked: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Signs,
    Refuses,
    Hangs,
}

impl Moody {
    fn new(house: &House) -> Arc<Self> {
        let pair = KeyPair::from_pem(&house.pem).unwrap();
        let (mood, changed, asked) = (Mutex::new(Mood::Signs), Condvar::new(), AtomicU64::new(0));
        Arc::new(Self { pair, mood, changed, asked })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Signer for Moody {
    fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.pair.public_key()
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NotSigned> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = self.changed.wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Hangs).unwrap();
        match *mood {
            Mood::Refuses => Err(NotSigned::Failed("not today".to_owned())),
            _ => Ok(self.pair.sign(text)),
        }
    }
}

fn open(house: &House, signer: Arc<dyn Signer>) -> Result<(Journal, Recovery), JournalError> {
    let options =
        JournalOptions { file_size: 64 << 10, ..JournalOptions::new(SigningKey::new(node(), signer)) };
    Journal::open(house.dir(), Clock::manual(START), JournalOptions { reserve: 8 << 10, ..options })
}

async fn record_one(journal: &Journal, number: u8) {
    let recorder = journal.begin(opening(number)).await.unwrap();
    recorder.record(&[note("while nobody signs")]).await.unwrap();
    recorder.end(EndReason::ClientClosed, Totals::default()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_fails_leaves_the_log_going_and_unsigned() {
    let house = House::new();
    let key = Moody::new(&house);
    let (journal, _) = open(&house, key.clone()).unwrap();
    key.set(Mood::Refuses);
    record_one(&journal, 1).await;
    let why = NotSigned::Failed("not today".to_owned());
    assert_eq!(journal.checkpoint().await, Err(why.into()));
    journal.healthy().unwrap();
    record_one(&journal, 2).await;
    journal.close().await.unwrap();
    let report = house.verify();
    assert!(report.is_whole() && report.records == 6 && report.covered == 0, "{report}");
    // It is opened again without the key, and signed once there is one.
    let (journal, _) = open(&house, key.clone()).unwrap();
    assert_eq!(house.verify().covered, 0);
    key.set(Mood::Signs);
    journal.checkpoint().await.unwrap();
    assert_eq!(house.verify().covered, 6);
}

#[tokio::test]
async fn a_key_that_hangs_delays_no_record_and_is_asked_once() {
    let house = House::new();
    let key = Moody::new(&house);
    let (journal, _) = open(&house, key.clone()).unwrap();
    let before = key.asked();
    key.set(Mood::Hangs);
    let tasks = tokio_util::task::TaskTracker::new();
    let signing = tasks.spawn({
        let journal = journal.clone();
        async move { journal.checkpoint().await }
    });
    while key.asked() == before {
        tokio::task::yield_now().await;
    }
    record_one(&journal, 1).await;
    let second = tasks.spawn({
        let journal = journal.clone();
        async move { journal.checkpoint().await }
    });
    record_one(&journal, 2).await;
    assert!(!signing.is_finished() && !second.is_finished());
    assert_eq!(key.asked(), before + 1);
    key.set(Mood::Signs);
    signing.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(house.verify().covered, 6);
    journal.close().await.unwrap();
    assert!(house.verify().is_whole());
}

#[tokio::test]
async fn that_nothing_is_signed_is_told_until_it_is_again() {
    let house = House::new();
    let key = Moody::new(&house);
    let clock = Clock::manual(START);
    let options = JournalOptions::new(SigningKey::new(node(), key.clone()));
    let (journal, _) = Journal::open(house.dir(), clock.clone(), options).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (signed, seen) = tokio::sync::watch::channel(Signed { at: START, failing: None });
    let tasks = tokio_util::task::TaskTracker::new();
    let signing = tasks.spawn({
        let (journal, stop) = (journal.clone(), stop.clone());
        async move { journal.checkpoints(stop, signed).await }
    });
    let until = async |expected: Option<NotSigned>| {
        let told = async {
            while seen.borrow().failing != expected {
                clock.advance(Duration::from_secs(1));
                // The key and the writer have threads of their own: a deadline must not pass before they had a turn.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), told).await.unwrap();
    };
    let refused = NotSigned::Failed("not today".to_owned());
    for (mood, told) in
        [(Mood::Refuses, Some(refused)), (Mood::Signs, None), (Mood::Hangs, Some(NotSigned::Silent))]
    {
        key.set(mood);
        until(told).await;
    }
    record_one(&journal, 1).await;
    key.set(Mood::Signs);
    until(None).await;
    assert!(seen.borrow().at > START);
    stop.cancel();
    signing.await.unwrap().unwrap();
    assert_eq!(house.verify().covered, 3);
}

#[tokio::test]
async fn no_log_begins_without_a_checkpoint() {
    let house = House::new();
    let key = Arc::new(Absent(*house.key().verify_key().public_key()));
    let refused = open(&house, key.clone()).unwrap_err();
    assert!(
        matches!(&refused, JournalError::Unrecordable(why) if why.to_string().contains("only its public half"))
    );
    drop(house.open());
    let (journal, _) = open(&house, key).unwrap();
    record_one(&journal, 1).await;
    assert_eq!(journal.checkpoint().await, Err(NotSigned::Absent.into()));
}

#[tokio::test]
async fn what_is_signed_already_is_not_signed_again() {
    let house = House::new();
    let (journal, _) = house.open();
    record_one(&journal, 1).await;
    journal.close().await.unwrap();
    let before = fs::read(house.dir().join("checkpoints.log")).unwrap();
    let (journal, _) = house.open();
    journal.close().await.unwrap();
    assert_eq!(fs::read(house.dir().join("checkpoints.log")).unwrap(), before);
}
