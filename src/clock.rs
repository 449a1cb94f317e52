//! What time it is. The only place that reads the machine's clocks.
//!
//! A session must not live longer because somebody sets the clock back, so time here never goes
//! backwards: it advances with the monotonic clock from the latest instant ever seen, follows the
//! wall clock forwards (a suspend, an NTP correction) and ignores steps back. A node starts from
//! the latest instant that its store remembers ([`Clock::ratchet`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::domain::time::Timestamp;

/// How often a sleeper looks whether the wall clock ran ahead of the monotonic one.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// A clock that all parts of a process share. Cloning gives another handle to the same clock.
#[derive(Clone)]
pub struct Clock {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: time stands still until it is advanced (unit tests).
    started: Option<Instant>,
    /// Microseconds to add to the monotonic time since `started`.
    offset: AtomicI64,
    /// Raised whenever time jumps, so that sleepers look again.
    jumps: watch::Sender<u64>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(Some(Instant::now()), wall_clock())
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self::new(None, start)
    }

    fn new(started: Option<Instant>, at: Timestamp) -> Self {
        let (jumps, _) = watch::channel(0);
        Self { inner: Arc::new(Inner { started, offset: AtomicI64::new(at.as_micros()), jumps }) }
    }

    pub fn now(&self) -> Timestamp {
        let Some(started) = self.inner.started else {
            return Timestamp::from_micros(self.inner.offset.load(Ordering::Acquire));
        };
        let elapsed = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let at_least = wall_clock().as_micros().saturating_sub(elapsed);
        let offset = self.inner.offset.fetch_max(at_least, Ordering::AcqRel).max(at_least);
        Timestamp::from_micros(offset.saturating_add(elapsed))
    }

    /// Makes sure that time is not earlier than `seen`. Returns how far it had to jump.
    pub fn ratchet(&self, seen: Timestamp) -> Duration {
        let behind = seen.since(self.now());
        self.jump(behind);
        behind
    }

    /// Moves time forward by `by`; tests use it instead of waiting.
    pub fn advance(&self, by: Duration) {
        self.jump(by);
    }

    fn jump(&self, by: Duration) {
        if by.is_zero() {
            return;
        }
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.inner.offset.fetch_add(micros, Ordering::AcqRel);
        self.inner.jumps.send_modify(|jumps| *jumps = jumps.wrapping_add(1));
    }

    /// Returns once `now() >= instant`. Cancel-safe.
    pub async fn sleep_until(&self, instant: Timestamp) {
        let mut jumps = self.inner.jumps.subscribe();
        loop {
            jumps.mark_unchanged();
            let left = instant.since(self.now());
            if left.is_zero() {
                return;
            }
            let nap = if self.inner.started.is_some() { left.min(LONGEST_NAP) } else { Duration::MAX };
            // The sender lives in `self`, so `changed` cannot fail while we hold it.
            tokio::select! {
                _ = jumps.changed() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Returns after `duration` by this clock. Cancel-safe.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().plus(duration)).await;
    }

    /// Returns after `patience` with somebody else, who could do nothing while this machine was suspended or its clock
    /// corrected: of a jump no more than a second counts. Cancel-safe.
    pub async fn wait(&self, patience: Duration) {
        let mut left = patience;
        while !left.is_zero() {
            let step = left.min(LONGEST_NAP);
            self.sleep(step).await;
            left -= step;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_behind_what_was_seen() {
        let clock = Clock::system();
        let seen = clock.now().plus(Duration::from_hours(1));
        let behind = clock.ratchet(seen);
        assert!(behind > Duration::from_secs(3599));
        assert!(clock.now() >= seen);
        assert_eq!(clock.ratchet(seen), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_time_is_advanced() {
        let clock = Clock::manual(Timestamp::from_micros(0));
        let sleeper = tokio_util::task::TaskTracker::new().spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_hours(1)).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(3599));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
    }
}
