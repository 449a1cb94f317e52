//! Shipping to a stream that fails in every way that Amazon Kinesis can.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::audit::backlog::{Behind, Bounds, StreamRule};
use crate::audit::files::{Lines, Read};
use crate::audit::stream::parcel::{Heading, parse};
use crate::audit::stream::{Limits, Outcome, Parcel, Shipper, Stream, StreamError};

const LIMITS: Limits = Limits { record: 2 << 10, request: 8 << 10 };

/// A stream that does with each request what the next of its faults says, and is well once they are used up.
#[derive(Debug, Clone, Default)]
struct Faulty {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Vec<Fault>,
    taken: Vec<Parcel>,
    requests: usize,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// Nothing arrives.
    Lost,
    /// All of it arrives, and nobody hears of it.
    Unheard,
    /// Of the parcels whose bit is set nothing arrives.
    Some(u8),
    Throttled(u8),
}

#[async_trait]
impl Stream for Faulty {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn put(&self, parcels: &[Parcel]) -> Result<Vec<Outcome>, StreamError> {
        let mut inner = self.inner.lock().unwrap();
        inner.requests += 1;
        let bytes: usize = parcels.iter().map(|parcel| parcel.data.len() + parcel.key.len()).sum();
        assert!(bytes <= LIMITS.request && parcels.len() <= 500, "{bytes} bytes in {}", parcels.len());
        let mut outcomes = Vec::new();
        let fault = inner.faults.pop().unwrap_or(Fault::None);
        for (index, parcel) in parcels.iter().enumerate() {
            assert!(parcel.data.len() + parcel.key.len() <= LIMITS.record);
            let hit = |mask: u8| mask & (1 << (index % 8)) != 0;
            let outcome = match fault {
                Fault::Some(mask) if hit(mask) => Outcome::Failed("InternalFailure".to_owned()),
                Fault::Throttled(mask) if hit(mask) => Outcome::Throttled,
                Fault::Lost => continue,
                _ => Outcome::Confirmed,
            };
            if outcome == Outcome::Confirmed {
                inner.taken.push(parcel.clone());
            }
            outcomes.push(outcome);
        }
        match fault {
            Fault::Lost | Fault::Unheard => Err(StreamError("timed out".to_owned())),
            _ => Ok(outcomes),
        }
    }
}

impl Faulty {
    fn with(mut faults: Vec<Fault>) -> Self {
        faults.reverse();
        let inner = Inner { faults, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Whole lines by key, in the order of the stream, and how many checkpoints there are.
    fn lines(&self) -> (HashMap<String, Vec<Vec<u8>>>, usize) {
        let (mut lines, mut checkpoints) = (HashMap::<String, Vec<Vec<u8>>>::new(), 0);
        let mut pieces = HashMap::<String, Vec<&[u8]>>::new();
        let taken = self.inner.lock().unwrap().taken.clone();
        for Parcel { key, data } in &taken {
            let (node, heading, bytes) = parse(data).unwrap();
            assert_eq!(node, super::node());
            let lane = lines.entry(key.to_string()).or_default();
            match heading {
                Heading::Checkpoint => checkpoints += 1,
                Heading::Lines => {
                    lane.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec));
                }
                Heading::Part { index, of, .. } => {
                    let (whole, index) = (pieces.entry(key.to_string()).or_default(), index as usize);
                    whole.truncate(index - 1);
                    whole.push(bytes);
                    if index == of as usize && whole.len() == index {
                        lane.push(whole.concat());
                    }
                }
            }
        }
        lines.retain(|_, lane| !lane.is_empty());
        (lines, checkpoints)
    }
}

/// The journal's lines by recording.
fn journal_lines(dir: &Path) -> HashMap<String, Vec<Vec<u8>>> {
    let mut lines = HashMap::<String, Vec<Vec<u8>>>::new();
    let mut reader = Lines::open(dir);
    while let Read::Line(_) = reader.next().unwrap() {
        let json = parse_line(reader.line()).unwrap().json;
        let record: serde_json::Value = serde_json::from_slice(json).unwrap();
        let line = [reader.line(), b"\n"].concat();
        lines.entry(record["rec"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    lines
}

/// Runs to the end while time goes on as fast as it can.
async fn in_no_time<T>(clock: &Clock, what: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            clock.advance(Duration::from_millis(50));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = what => done,
        () = time => unreachable!(),
    }
}

fn shipper(house: &House, journal: &Journal, clock: &Clock, stream: &Faulty) -> Shipper<Faulty> {
    let health = tokio::sync::watch::Sender::default();
    Shipper::open(house.dir(), (node(), clock.clone()), journal, (stream.clone(), LIMITS), health).unwrap()
}

/// Every line of the journal is in the stream, in order, with nothing between but what came before.
fn assert_shipped(dir: &Path, stream: &Faulty) {
    let (mut streamed, _) = stream.lines();
    for (recording, expected) in journal_lines(dir) {
        let found = streamed.remove(&recording).unwrap_or_default();
        let mut next = 0;
        for line in &found {
            if expected.get(next) == Some(line) {
                next += 1;
            } else {
                assert!(expected[..next].contains(line), "{recording} at {next}: out of order");
            }
        }
        assert_eq!(next, expected.len(), "{recording}: lines are missing");
    }
    assert!(streamed.is_empty(), "what is not in the journal: {streamed:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        Just(Fault::None),
        Just(Fault::Lost),
        Just(Fault::Unheard),
        any::<u8>().prop_map(Fault::Some),
        any::<u8>().prop_map(Fault::Throttled),
    ];
    proptest::collection::vec(fault, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_fails_every_line_arrives_in_its_recordings_order(
        first in faults(),
        second in faults(),
        texts in proptest::collection::vec((1_u8..5, 0_usize..6000), 1..40),
        cut in 0_usize..40,
    ) {
        runtime().block_on(async {
            let house = House { file_size: 96 << 10, ..House::new() };
            let clock = Clock::manual(START);
            let (journal, _) = Journal::open(house.dir(), clock.clone(), house.options()).unwrap();
            let mut recorders = HashMap::new();
            for number in 1..5 {
                recorders.insert(number, journal.begin(opening(number)).await.unwrap());
            }
            let stream = Faulty::with(first);
            for (index, (number, length)) in texts.iter().enumerate() {
                if index == cut {
                    // Stopped somewhere and started again: from what was kept.
                    let stopped = shipper(&house, &journal, &clock, &stream);
                    let some = async { for _ in 0..20 { tokio::task::yield_now().await } };
                    in_no_time(&clock, async { tokio::select! { _ = stopped.run() => {}, () = some => {} } }).await;
                    stream.inner.lock().unwrap().faults.extend(second.iter().copied());
                }
                recorders[number].record(&[statement(1, &"x".repeat(*length))]).await.unwrap();
            }
            let last = shipper(&house, &journal, &clock, &stream);
            in_no_time(&clock, last.finish()).await.unwrap();
            prop_assert_eq!(journal.backlog().behind(), Behind::default());
            assert_shipped(house.dir(), &stream);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn after_a_restart_only_what_was_not_confirmed_is_sent() {
    let house = House::new();
    let clock = Clock::manual(START);
    let (journal, _) = Journal::open(house.dir(), clock.clone(), house.options()).unwrap();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let stream = Faulty::default();
    in_no_time(&clock, shipper(&house, &journal, &clock, &stream).finish()).await.unwrap();
    let before = stream.inner.lock().unwrap().taken.len();
    recorder.record(&[note("after")]).await.unwrap();
    in_no_time(&clock, shipper(&house, &journal, &clock, &stream).finish()).await.unwrap();
    let taken = stream.inner.lock().unwrap().taken.clone();
    let news: Vec<_> = taken[before..].iter().filter(|parcel| parcel.key.starts_with("con-")).collect();
    assert_eq!(news.len(), 1);
    assert!(String::from_utf8_lossy(&news[0].data).contains("after"));
    // A position that is not of this log is not believed.
    let position = fs::read_to_string(house.dir().join("shipped")).unwrap();
    fs::write(house.dir().join("shipped"), position.replace("\"offset\":", "\"offset\":1")).unwrap();
    recorder.record(&[note("later")]).await.unwrap();
    let again = Faulty::default();
    in_no_time(&clock, shipper(&house, &journal, &clock, &again).finish()).await.unwrap();
    assert_shipped(house.dir(), &again);
}

#[tokio::test]
async fn a_recording_ends_where_the_stream_is_too_far_behind_and_not_elsewhere() {
    let house = House::new();
    let clock = Clock::manual(START);
    let limit = Bounds { bytes: 100 << 10, age: Duration::from_mins(10) };
    let mut options = house.options();
    options.stream.insert(Environment::Prod, StreamRule { limit, confirmed: false });
    let (journal, _) = Journal::open(house.dir(), clock.clone(), options).unwrap();
    let recorder = journal.begin(opening(1)).await.unwrap();
    let mut dev = opening(2);
    dev.context.environment = Environment::Dev;
    let dev = journal.begin(dev).await.unwrap();
    clock.advance(Duration::from_secs(599));
    recorder.record(&[note("in time")]).await.unwrap();
    clock.advance(Duration::from_secs(2));
    let refused = recorder.record(&[note("too late")]).await.unwrap_err();
    assert!(matches!(refused, Unrecordable::Behind { .. }), "{refused}");
    assert!(matches!(recorder.note(note("too late")), Err(Unrecordable::Behind { .. })));
    assert!(matches!(journal.begin(opening(3)).await.map(drop), Err(Unrecordable::Behind { .. })));
    dev.record(&[note("no matter")]).await.unwrap();
    journal.healthy().unwrap();
    // Its end is on record all the same, and all is well once the stream is.
    recorder
        .clone()
        .end(EndReason::Unrecordable { detail: refused.to_string() }, Totals::default())
        .await
        .unwrap();
    let stream = Faulty::with(vec![Fault::Lost; 5]);
    in_no_time(&clock, shipper(&house, &journal, &clock, &stream).finish()).await.unwrap();
    journal.begin(opening(4)).await.unwrap();
    assert_shipped_but_last(house.dir(), &stream);
}

/// As [`assert_shipped`], of a log that goes on.
fn assert_shipped_but_last(dir: &Path, stream: &Faulty) {
    let (streamed, checkpoints) = stream.lines();
    assert!(checkpoints > 0);
    let ended = &journal_lines(dir)[connection(1).as_str()];
    assert_eq!(&streamed[connection(1).as_str()], ended);
}

#[tokio::test]
async fn where_it_must_be_confirmed_nothing_is_recorded_before_it_is() {
    let house = House::new();
    let clock = Clock::manual(START);
    let limit = Bounds { bytes: 1 << 20, age: Duration::from_secs(30) };
    let mut options = house.options();
    options.stream.insert(Environment::Prod, StreamRule { limit, confirmed: true });
    let (journal, _) = Journal::open(house.dir(), clock.clone(), options).unwrap();
    let stream = Faulty::default();
    let tasks = tokio_util::task::TaskTracker::new();
    let running = tasks.spawn(shipper(&house, &journal, &clock, &stream).run());
    let recorder = journal.begin(opening(1)).await.unwrap();
    recorder.record(&[note("confirmed")]).await.unwrap();
    assert!(
        stream
            .inner
            .lock()
            .unwrap()
            .taken
            .iter()
            .any(|parcel| { String::from_utf8_lossy(&parcel.data).contains("confirmed") })
    );
    running.abort();
    let _ = running.await;
    let waiting = tasks.spawn(async move { recorder.record(&[note("never")]).await });
    while !journal_lines(house.dir())[connection(1).as_str()]
        .iter()
        .any(|line| String::from_utf8_lossy(line).contains("never"))
    {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    let refused = in_no_time(&clock, waiting).await.unwrap().unwrap_err();
    assert!(matches!(refused, Unrecordable::Behind { .. }), "{refused}");
}

/// Its beginning is in the log: so is its end, as nobody gets to record into it.
#[tokio::test]
async fn a_beginning_that_is_not_confirmed_ends_its_recording() {
    let house = House::new();
    let clock = Clock::manual(START);
    let limit = Bounds { bytes: 1 << 20, age: Duration::from_secs(30) };
    let mut options = house.options();
    options.stream.insert(Environment::Prod, StreamRule { limit, confirmed: true });
    let (journal, _) = Journal::open(house.dir(), clock.clone(), options).unwrap();
    let refused = in_no_time(&clock, journal.begin(opening(1))).await.unwrap_err();
    assert!(matches!(refused, Unrecordable::Behind { .. }), "{refused}");
    journal.close().await.unwrap();
    let end = end_of(house.dir(), 1);
    assert!(matches!(&end, EndReason::Unrecordable { detail } if *detail == refused.to_string()), "{end:?}");
    assert!(house.verify().is_whole());
}
