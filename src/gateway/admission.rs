//! Who may be connected: fair shares for strangers, and a bound for those who are known.
//!
//! A connection begins as a stranger with a [`HandshakeSlot`]. Once the client has proved who it is,
//! [`HandshakeSlot::promote`] exchanges it for a [`Place`], which it keeps until it ends. So strangers
//! never take what known clients need, and a client that finds all places taken can be told so in
//! its own protocol.
//!
//! Strangers are told apart by network: an IPv4 address, or the /64 of an IPv6 address, for a host
//! commonly has all of that to itself. A newcomer always gets in; who goes in its stead is
//!
//! 1. its own network's oldest stranger, where the network holds its share of the slots already
//! 2. the oldest stranger of all, where all slots are taken
//!
//! A client that proves itself at once is therefore kept out only by a flood that turns over all
//! slots in the time that takes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A network's part of what there is.
const SHARE: usize = 4;
/// Slots that every network may hold, however few there are.
const FEW: usize = 4;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of known clients, in all.
    pub connections: usize,
    /// Of those, from one network; `None`: all of them.
    pub connections_per_network: Option<usize>,
    /// Connections that are still authenticating.
    pub handshakes: usize,
}

impl Limits {
    const fn handshakes_per_network(self) -> usize {
        let share = self.handshakes / SHARE;
        if share > FEW { share } else { FEW }
    }
}

/// Why a connection does not become one of a known client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPromoted {
    #[error("all {limit} connections are taken")]
    Full { limit: usize },
    /// A newcomer has its slot; its task is being dropped.
    #[error("closed in favour of a newcomer")]
    Evicted,
}

/// Whom strangers are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Network {
    fn of(client: SocketAddr) -> Self {
        match client.ip().to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                Self(std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into())
            }
        }
    }
}

#[derive(Debug)]
struct Stranger {
    network: Network,
    evicted: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    next: u64,
    /// By age: the oldest first.
    strangers: BTreeMap<u64, Stranger>,
    places: usize,
    places_by_network: HashMap<Network, usize>,
}

/// The books of one listener.
#[derive(Debug, Clone)]
pub struct Admission {
    limits: Limits,
    counts: Arc<Mutex<Counts>>,
}

impl Admission {
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a newcomer; true if another stranger was closed for it. The token is cancelled when
    /// the newcomer in its turn has to go, which happens only while the slot is held.
    pub fn enter(&self, client: SocketAddr) -> (HandshakeSlot, CancellationToken, bool) {
        let network = Network::of(client);
        let evicted = CancellationToken::new();
        let mut counts = self.counts();
        let gone = self.who_goes(&counts, network).and_then(|id| counts.strangers.remove(&id));
        if let Some(stranger) = &gone {
            stranger.evicted.cancel();
        }
        let id = counts.next;
        counts.next += 1;
        counts.strangers.insert(id, Stranger { network, evicted: evicted.clone() });
        let slot = HandshakeSlot { admission: self.clone(), id, network };
        (slot, evicted, gone.is_some())
    }

    fn who_goes(&self, counts: &Counts, network: Network) -> Option<u64> {
        let mut own = counts.strangers.iter().filter(|(_, stranger)| stranger.network == network);
        let own_oldest = own.next().map(|(id, _)| *id);
        if own_oldest.is_some() && own.count() + 1 >= self.limits.handshakes_per_network() {
            return own_oldest;
        }
        let full = counts.strangers.len() >= self.limits.handshakes.max(1);
        full.then(|| counts.strangers.keys().next().copied()).flatten()
    }
}

/// A place among those that are still authenticating; given up when dropped.
#[derive(Debug)]
pub struct HandshakeSlot {
    admission: Admission,
    id: u64,
    network: Network,
}

impl HandshakeSlot {
    /// Makes the connection one of a known client. Where that fails the slot is kept, so that the
    /// client can be told within the bound for strangers. To be called once.
    pub fn promote(&self) -> Result<Place, NotPromoted> {
        let limits = self.admission.limits;
        let mut counts = self.admission.counts();
        if !counts.strangers.contains_key(&self.id) {
            return Err(NotPromoted::Evicted);
        }
        if counts.places >= limits.connections {
            return Err(NotPromoted::Full { limit: limits.connections });
        }
        let held = counts.places_by_network.get(&self.network).copied().unwrap_or_default();
        if let Some(limit) = limits.connections_per_network.filter(|limit| held >= *limit) {
            return Err(NotPromoted::Full { limit });
        }
        counts.strangers.remove(&self.id);
        counts.places += 1;
        counts.places_by_network.insert(self.network, held + 1);
        Ok(Place { admission: self.admission.clone(), network: self.network })
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.admission.counts().strangers.remove(&self.id);
    }
}

/// A known client's place; given up when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    network: Network,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.places = counts.places.saturating_sub(1);
        if let Some(held) = counts.places_by_network.get_mut(&self.network) {
            *held -= 1;
            if *held == 0 {
                counts.places_by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 3, connections_per_network: Some(2), handshakes: 20 };

    fn client(address: &str) -> SocketAddr {
        (address.parse::<IpAddr>().unwrap(), 1).into()
    }

    #[test]
    fn a_network_at_its_share_loses_its_own_oldest_and_nobody_elses() {
        let admission = Admission::new(LIMITS);
        let (_other, other, _) = admission.enter(client("192.0.2.9"));
        let held: Vec<_> = (0..5).map(|_| admission.enter(client("192.0.2.1"))).collect();
        assert!(held.iter().all(|(_, evicted, shed)| !evicted.is_cancelled() && !shed));
        let (_newcomer, evicted, shed) = admission.enter(client("192.0.2.1"));
        assert!(shed && !evicted.is_cancelled() && !other.is_cancelled());
        let gone: Vec<bool> = held.iter().map(|(_, evicted, _)| evicted.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false, false, false]);
    }

    #[test]
    fn when_all_slots_are_taken_the_oldest_of_all_goes() {
        let admission = Admission::new(LIMITS);
        let held: Vec<_> = (0..20).map(|n| admission.enter(client(&format!("192.0.2.{}", n % 10)))).collect();
        assert!(held.iter().all(|(_, evicted, _)| !evicted.is_cancelled()));
        let (_newcomer, _, shed) = admission.enter(client("198.51.100.1"));
        assert!(shed);
        assert!(held[0].1.is_cancelled());
        assert!(held[1..].iter().all(|(_, evicted, _)| !evicted.is_cancelled()));
    }

    #[test]
    fn few_slots_still_leave_every_network_four_of_them() {
        let admission = Admission::new(Limits { handshakes: 5, ..LIMITS });
        let held: Vec<_> = (0..4).map(|_| admission.enter(client("192.0.2.1"))).collect();
        assert!(held.iter().all(|(_, evicted, _)| !evicted.is_cancelled()));
        let (_fifth, ..) = admission.enter(client("192.0.2.1"));
        assert!(held[0].1.is_cancelled());
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_64_bits_of_ipv6() {
        let same = |one: &str, other: &str| Network::of(client(one)) == Network::of(client(other));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:0:0:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    }

    #[test]
    fn who_is_known_is_not_evicted_and_gives_the_slot_back() {
        let admission = Admission::new(Limits { handshakes: 1, ..LIMITS });
        let (slot, evicted, _) = admission.enter(client("192.0.2.1"));
        let place = slot.promote().unwrap();
        let (_newcomer, _, shed) = admission.enter(client("192.0.2.1"));
        assert!(!shed && !evicted.is_cancelled());
        drop((slot, place));
        assert_eq!(admission.counts().places_by_network.len(), 0);
    }

    #[test]
    fn who_was_evicted_is_not_promoted() {
        let admission = Admission::new(Limits { handshakes: 1, ..LIMITS });
        let (slot, ..) = admission.enter(client("192.0.2.1"));
        let (_newcomer, ..) = admission.enter(client("192.0.2.2"));
        assert_eq!(slot.promote().unwrap_err(), NotPromoted::Evicted);
    }

    #[test]
    fn places_are_bounded_by_network_and_in_all_and_come_back() {
        let admission = Admission::new(LIMITS);
        let promoted = |address: &str| admission.enter(client(address)).0.promote();
        let mut held = vec![promoted("192.0.2.1").unwrap(), promoted("192.0.2.1").unwrap()];
        assert_eq!(promoted("192.0.2.1").unwrap_err(), NotPromoted::Full { limit: 2 });
        held.push(promoted("192.0.2.2").unwrap());
        assert_eq!(promoted("192.0.2.3").unwrap_err(), NotPromoted::Full { limit: 3 });
        held.clear();
        assert!(promoted("192.0.2.1").is_ok());
    }
}
