//! How often one may try: a bucket of attempts for each user name and for each client address,
//! refilled steadily (the generic cell rate algorithm); or for each address only.
//!
//! An attempt is taken before it is checked, so that a thousand at once gain nothing, and given
//! back when it succeeded, so that a connection pool is not locked out. Memory is bounded: at most
//! [`Limit::capacity`] names and as many addresses, 40 bytes each; when it is full, those that owe
//! least are forgotten, so that a flood of new names does not wipe out who is being attacked.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::crypto::sha256;
use crate::domain::time::Timestamp;

/// How many attempts in a row, and how fast they come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub burst: u32,
    /// One attempt comes back after this long.
    pub refill: Duration,
    /// How many names or addresses are remembered.
    pub capacity: usize,
}

impl Limit {
    pub const NAME: Self = Self { burst: 20, refill: Duration::from_secs(6), capacity: 10_000 };
    pub const ADDRESS: Self = Self { burst: 100, refill: Duration::from_secs(1), capacity: 10_000 };
}

/// Too many failed attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts: try again in {} s", whole_seconds(*retry_after))]
pub struct TooManyAttempts {
    pub retry_after: Duration,
}

/// Counts attempts for the whole process; cloning shares the counts.
#[derive(Debug, Clone)]
pub struct Attempts {
    clock: Clock,
    inner: Arc<Mutex<Tables>>,
}

#[derive(Debug)]
struct Tables {
    /// `None`: whatever name is tried does not count.
    names: Option<Table<[u8; 16]>>,
    addresses: Table<IpAddr>,
}

/// One admitted attempt. Dropped, it stays taken; [`Attempt::give_back`] gives it back.
#[derive(Debug)]
#[must_use = "say whether the attempt succeeded"]
pub struct Attempt {
    attempts: Attempts,
    name: [u8; 16],
    address: IpAddr,
}

impl Attempts {
    pub fn new(clock: Clock) -> Self {
        Self::with_limits(clock, Limit::NAME, Limit::ADDRESS)
    }

    pub fn with_limits(clock: Clock, name: Limit, address: Limit) -> Self {
        Self::of(clock, Some(name), address)
    }

    /// For secrets that cannot be guessed: a limit by name would stop nobody but the name's owner,
    /// whom any stranger could lock out with it.
    pub fn by_address(clock: Clock, address: Limit) -> Self {
        Self::of(clock, None, address)
    }

    fn of(clock: Clock, name: Option<Limit>, address: Limit) -> Self {
        let tables = Tables { names: name.map(Table::new), addresses: Table::new(address) };
        Self { clock, inner: Arc::new(Mutex::new(tables)) }
    }

    /// Takes an attempt at `name` from `address`, or says when the next one is possible.
    pub fn admit(&self, name: &str, address: IpAddr) -> Result<Attempt, TooManyAttempts> {
        let now = self.clock.now();
        let (name, address) = (name_key(name), network(address));
        let mut tables = self.tables();
        // Both are looked at before either is taken from: a refused attempt costs nothing, or a
        // name would stay locked for as long as somebody hammers at it.
        let of_name = tables.names.as_ref().map_or(Duration::ZERO, |names| names.wait(&name, now));
        let wait = of_name.max(tables.addresses.wait(&address, now));
        if !wait.is_zero() {
            return Err(TooManyAttempts { retry_after: wait });
        }
        if let Some(names) = &mut tables.names {
            names.take(name, now);
        }
        tables.addresses.take(address, now);
        Ok(Attempt { attempts: self.clone(), name, address })
    }

    /// How many names and addresses are remembered.
    pub fn remembered(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.names.as_ref().map_or(0, |names| names.owed.len()), tables.addresses.owed.len())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// It succeeded, or could not be checked because something of ours is broken.
    pub fn give_back(self) {
        let mut tables = self.attempts.tables();
        if let Some(names) = &mut tables.names {
            names.give_back(&self.name);
        }
        tables.addresses.give_back(&self.address);
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// Names are what a stranger sends, of any length: a hash of them is kept.
fn name_key(name: &str) -> [u8; 16] {
    let hash = sha256(&[name.as_bytes()]);
    let mut key = [0; 16];
    for (slot, byte) in key.iter_mut().zip(hash) {
        *slot = byte;
    }
    key
}

/// Who has one IPv6 address usually has its whole /64. An IPv4 address is one however it is written.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug)]
struct Table<K> {
    limit: Limit,
    /// When the bucket will be full again. A key without an entry has a full bucket.
    owed: HashMap<K, Timestamp>,
}

impl<K: Eq + Hash + Copy> Table<K> {
    fn new(limit: Limit) -> Self {
        Self { limit, owed: HashMap::new() }
    }

    /// How long until an attempt may be taken; zero: now.
    fn wait(&self, key: &K, now: Timestamp) -> Duration {
        let owed = self.owed.get(key).map_or(Duration::ZERO, |full_at| full_at.since(now));
        let most = self.limit.refill.saturating_mul(self.limit.burst.saturating_sub(1));
        owed.saturating_sub(most)
    }

    fn take(&mut self, key: K, now: Timestamp) {
        if !self.owed.contains_key(&key) && self.owed.len() >= self.limit.capacity {
            self.forget(now);
        }
        let full_at = self.owed.entry(key).or_insert(now);
        *full_at = (*full_at).max(now).plus(self.limit.refill);
    }

    fn give_back(&mut self, key: &K) {
        if let Some(full_at) = self.owed.get_mut(key) {
            let refill = i64::try_from(self.limit.refill.as_micros()).unwrap_or(i64::MAX);
            *full_at = Timestamp::from_micros(full_at.as_micros().saturating_sub(refill));
        }
    }

    /// Makes room for a tenth: first those who owe nothing, then those who owe least.
    fn forget(&mut self, now: Timestamp) {
        self.owed.retain(|_, full_at| *full_at > now);
        let keep = self.limit.capacity.saturating_sub(self.limit.capacity / 10).saturating_sub(1);
        let surplus = self.owed.len().saturating_sub(keep);
        if surplus == 0 {
            return;
        }
        let mut debts: Vec<_> = self.owed.iter().map(|(key, full_at)| (*full_at, *key)).collect();
        debts.sort_unstable_by_key(|(full_at, _)| *full_at);
        for (_, key) in debts.into_iter().take(surplus) {
            self.owed.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { burst: 3, refill: Duration::from_secs(10), capacity: 100 };
    const WIDE: Limit = Limit { burst: 100_000, refill: Duration::from_millis(1), capacity: 100 };

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_795_392_000_000_000))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn fail(attempts: &Attempts, name: &str, address: IpAddr) -> Result<(), TooManyAttempts> {
        attempts.admit(name, address).map(drop)
    }

    #[test]
    fn a_name_is_refused_after_its_burst_and_again_admitted_as_it_refills() {
        let clock = clock();
        let attempts = Attempts::with_limits(clock.clone(), LIMIT, WIDE);
        for last in 0..3 {
            assert_eq!(fail(&attempts, "alice", address(last)), Ok(()));
        }
        let refused = TooManyAttempts { retry_after: Duration::from_secs(10) };
        assert_eq!(fail(&attempts, "alice", address(9)), Err(refused), "from wherever");
        assert_eq!(fail(&attempts, "bob", address(9)), Ok(()), "others are not hurt");
        clock.advance(Duration::from_micros(9_999_999));
        let refused = TooManyAttempts { retry_after: Duration::from_micros(1) };
        assert_eq!(fail(&attempts, "alice", address(9)), Err(refused));
        clock.advance(Duration::from_micros(1));
        assert_eq!(fail(&attempts, "alice", address(9)), Ok(()));
        assert!(fail(&attempts, "alice", address(9)).is_err());
        clock.advance(Duration::from_hours(1));
        for _ in 0..3 {
            assert_eq!(fail(&attempts, "alice", address(9)), Ok(()));
        }
        assert!(fail(&attempts, "alice", address(9)).is_err(), "a long wait gives one burst, not more");
    }

    #[test]
    fn an_address_is_refused_whatever_names_it_tries() {
        let attempts = Attempts::with_limits(clock(), WIDE, LIMIT);
        for name in ["a", "b", "c"] {
            assert_eq!(fail(&attempts, name, address(1)), Ok(()));
        }
        assert!(fail(&attempts, "d", address(1)).is_err());
        assert!(fail(&attempts, "d", "::ffff:192.0.2.1".parse().unwrap()).is_err(), "it is the same address");
        assert_eq!(fail(&attempts, "d", address(2)), Ok(()));
    }

    #[test]
    fn by_address_no_stranger_locks_a_name_out() {
        let clock = clock();
        let attempts = Attempts::by_address(clock.clone(), LIMIT);
        for last in 0..=255 {
            for _ in 0..LIMIT.burst {
                assert_eq!(fail(&attempts, "alice", address(last)), Ok(()));
            }
            assert!(fail(&attempts, "alice", address(last)).is_err());
            assert!(fail(&attempts, "bob", address(last)).is_err(), "whatever the name");
        }
        assert_eq!(fail(&attempts, "alice", IpAddr::from([198, 51, 100, 1])), Ok(()));
        assert_eq!(attempts.remembered().0, 0);
        clock.advance(LIMIT.refill);
        attempts.admit("alice", address(255)).unwrap().give_back();
        assert_eq!(fail(&attempts, "alice", address(255)), Ok(()));
        assert!(fail(&attempts, "alice", address(255)).is_err());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let attempts = Attempts::with_limits(clock(), WIDE, LIMIT);
        for host in 1..=3 {
            let address = format!("2001:db8:0:1::{host}").parse().unwrap();
            assert_eq!(fail(&attempts, "a", address), Ok(()));
        }
        assert!(fail(&attempts, "a", "2001:db8:0:1:ffff::".parse().unwrap()).is_err());
        assert_eq!(fail(&attempts, "a", "2001:db8:0:2::1".parse().unwrap()), Ok(()));
    }

    #[test]
    fn refused_attempts_do_not_keep_a_name_locked() {
        let clock = clock();
        let attempts = Attempts::with_limits(clock.clone(), LIMIT, WIDE);
        for _ in 0..1_000 {
            let _ = fail(&attempts, "alice", address(1));
        }
        clock.advance(Duration::from_secs(10));
        assert_eq!(fail(&attempts, "alice", address(1)), Ok(()));
    }

    #[test]
    fn attempts_that_succeed_are_given_back_but_not_those_at_the_same_moment() {
        let attempts = Attempts::with_limits(clock(), LIMIT, LIMIT);
        for _ in 0..1_000 {
            attempts.admit("alice", address(1)).unwrap().give_back();
        }
        let held: Vec<_> = (0..3).map(|_| attempts.admit("alice", address(1)).unwrap()).collect();
        assert!(fail(&attempts, "alice", address(1)).is_err());
        held.into_iter().for_each(Attempt::give_back);
        assert_eq!(fail(&attempts, "alice", address(1)), Ok(()));
    }

    #[test]
    fn success_never_gives_more_than_the_burst() {
        let clock = clock();
        let attempts = Attempts::with_limits(clock.clone(), LIMIT, WIDE);
        let late: Vec<_> = (0..3).map(|_| attempts.admit("alice", address(1)).unwrap()).collect();
        clock.advance(Duration::from_mins(1));
        late.into_iter().for_each(Attempt::give_back);
        for _ in 0..3 {
            assert_eq!(fail(&attempts, "alice", address(1)), Ok(()));
        }
        assert!(fail(&attempts, "alice", address(1)).is_err());
    }

    #[test]
    fn a_flood_of_names_is_forgotten_before_who_is_under_attack() {
        let attempts = Attempts::with_limits(clock(), LIMIT, WIDE);
        for _ in 0..3 {
            assert_eq!(fail(&attempts, "alice", address(1)), Ok(()));
        }
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            assert_eq!(fail(&attempts, &format!("flood-{number}"), address), Ok(()));
            let (names, addresses) = attempts.remembered();
            assert!(names <= LIMIT.capacity && addresses <= WIDE.capacity);
        }
        assert!(fail(&attempts, "alice", address(1)).is_err());
    }

    #[test]
    fn names_that_owe_nothing_are_forgotten() {
        let clock = clock();
        let attempts = Attempts::with_limits(clock.clone(), LIMIT, WIDE);
        for number in 0..LIMIT.capacity {
            assert_eq!(fail(&attempts, &number.to_string(), address(1)), Ok(()));
        }
        clock.advance(Duration::from_secs(10));
        assert_eq!(fail(&attempts, "one more", address(1)), Ok(()));
        assert_eq!(attempts.remembered(), (1, 1));
    }
}
