//! Work that is found by looking once a second, and goes on while the next look is taken: what is slow at one place
//! keeps nothing waiting at another, and at its own place everything comes to its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use crate::clock::Clock;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How much is done at a time at one place.
pub(super) const AT_A_TIME: usize = 32;

/// Looks for what something is `due` (a session, a server), and where, and does the `work` for each, one at a time for each
/// and [`AT_A_TIME`] at a place, first come, first served; runs until dropped.
pub(super) async fn as_they_come<K: Ord + Clone, P: Ord + Clone, D, W>(
    clock: &Clock,
    due: impl Fn() -> D,
    work: impl Fn(K) -> W,
) where
    D: Future<Output = Result<Vec<(K, P)>, Refusal>>,
    W: Future<Output = ()>,
{
    let (mut under_way, mut at_work) = (FuturesUnordered::new(), BTreeSet::new());
    let mut places: BTreeMap<P, Arc<Semaphore>> = BTreeMap::new();
    loop {
        let found = beside(due(), &mut under_way, |whose| _ = at_work.remove(&whose)).await;
        let found = found.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot clean up");
            Vec::new()
        });
        places.retain(|_, turns| Arc::strong_count(turns) > 1);
        for (whose, place) in found {
            if !at_work.insert(whose.clone()) {
                continue;
            }
            let turns = places.entry(place).or_insert_with(|| Arc::new(Semaphore::new(AT_A_TIME)));
            let (turns, work) = (Arc::clone(turns), work(whose.clone()));
            under_way.push(async move {
                // It is never closed.
                let _turn = turns.acquire().await;
                work.await;
                whose
            });
        }
        beside(clock.sleep(EVERY), &mut under_way, |whose| _ = at_work.remove(&whose)).await;
    }
}

/// Does `work` while what is `under_way` goes on, and hands on what comes of it. One that stood still meanwhile would keep
/// from all others what it holds or is next for: the outbox, a place in the store's queue.
async fn beside<T, S>(
    work: impl Future<Output = T>,
    under_way: &mut FuturesUnordered<impl Future<Output = S>>,
    mut done: impl FnMut(S),
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            Some(one) = under_way.next() => done(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::SessionId;
    use crate::domain::time::Timestamp;

    #[tokio::test]
    async fn what_is_under_way_keeps_nothing_from_the_work_beside_it() {
        let outbox = tokio::sync::Mutex::new(());
        let mut under_way = FuturesUnordered::new();
        under_way.push(async { drop(outbox.lock().await) });
        let held = outbox.lock().await;
        assert!(futures_util::poll!(under_way.next()).is_pending());
        // Given to the one that waits for it, and that nobody has looked after since.
        drop(held);
        let mut done = 0;
        let work = beside(outbox.lock(), &mut under_way, |()| done += 1);
        drop(tokio::time::timeout(Duration::from_secs(10), work).await.expect("it comes to its turn"));
        assert_eq!(done, 1);
    }

    /// As a session whose deny is in force until it expires: due at every look.
    #[tokio::test]
    async fn everything_due_at_a_place_comes_to_its_turn_though_others_are_due_again_and_again() {
        let clock = Clock::manual(Timestamp::from_micros(0));
        let session = |number: u8| SessionId::from_random([number; 10]);
        let worked = std::sync::Mutex::new(BTreeMap::new());
        let due = || async { Ok((0..100).map(|number| (session(number), "one place")).collect()) };
        let work = |session: SessionId| {
            let worked = &worked;
            async move {
                tokio::task::yield_now().await;
                *worked.lock().unwrap().entry(session).or_insert(0) += 1;
            }
        };
        let rounds = as_they_come(&clock, due, work);
        let all_twice = async {
            while worked.lock().unwrap().len() < 100
                || worked.lock().unwrap().values().any(|times| *times < 2)
            {
                clock.advance(EVERY);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = rounds => unreachable!("they go on"),
            outcome = tokio::time::timeout(Duration::from_secs(10), all_twice) => outcome.expect("all have their turn"),
        }
    }

    /// What does not end keeps its place busy, and no other; it is not begun twice.
    #[tokio::test]
    async fn what_never_ends_keeps_nothing_waiting_elsewhere() {
        let clock = Clock::manual(Timestamp::from_micros(0));
        let (stuck, quick) = (SessionId::from_random([1; 10]), SessionId::from_random([2; 10]));
        let (begun, done) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let due = || async { Ok(vec![(stuck.clone(), "slow"), (quick.clone(), "fast")]) };
        let work = |session: SessionId| {
            let (begun, done, is_stuck) = (&begun, &done, session == stuck);
            async move {
                if is_stuck {
                    begun.set(begun.get() + 1);
                    std::future::pending::<()>().await;
                }
                done.set(done.get() + 1);
            }
        };
        let rounds = as_they_come(&clock, due, work);
        let often = async {
            while done.get() < 5 {
                clock.advance(EVERY);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = rounds => unreachable!("they go on"),
            outcome = tokio::time::timeout(Duration::from_secs(10), often) => outcome.expect("the other goes on"),
        }
        assert_eq!(begun.get(), 1);
    }
}
