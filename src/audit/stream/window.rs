//! What has been read from the journal and is not confirmed, one lane for each recording.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::parcel::{Heading, LONGEST_HEADING, write_heading};
use super::position::Position;
use super::{Limits, MOST_PARCELS, Parcel};
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

/// How long a lane waits after its first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

#[derive(Debug)]
pub(super) struct Window {
    node: NodeId,
    limits: Limits,
    lanes: HashMap<Arc<str>, Lane>,
    /// Everything in the lanes, in the order of the log.
    order: BTreeMap<u64, Entry>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: Arc<str>,
    start: Start,
}

/// Where something begins in the log, and when it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) position: Position,
    pub(super) at: Timestamp,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    failures: u32,
    /// Not to be tried before.
    not_before: Option<Timestamp>,
}

#[derive(Debug)]
struct Item {
    serial: u64,
    heading: Heading,
    bytes: Vec<u8>,
}

/// A parcel with what it takes out of its lane.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) parcels: Vec<Parcel>,
    counts: Vec<usize>,
}

impl Window {
    pub(super) fn new(node: NodeId, limits: Limits) -> Self {
        Self { node, limits, lanes: HashMap::new(), order: BTreeMap::new(), next: 0, bytes: 0 }
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the first thing that is not confirmed begins.
    pub(super) fn start(&self) -> Option<Start> {
        self.order.first_key_value().map(|(_, entry)| entry.start)
    }

    /// Adds line `n` of the log, with its line feed, of the recording `key`.
    pub(super) fn push_line(&mut self, key: &Arc<str>, n: u64, line: &[u8], start: Start) {
        let room = self.room(key);
        if line.len() <= room {
            self.push(key, Heading::Lines, line, start);
            return;
        }
        let of = u32::try_from(line.len().div_ceil(room)).unwrap_or(u32::MAX);
        for (index, piece) in (1..).zip(line.chunks(room)) {
            self.push(key, Heading::Part { n, index, of }, piece, start);
        }
    }

    pub(super) fn push_checkpoint(&mut self, note: &str, start: Start) {
        let key = Arc::from(self.node.as_str());
        self.push(&key, Heading::Checkpoint, note.as_bytes(), start);
    }

    /// What a parcel of `key` may hold beside its heading.
    fn room(&self, key: &str) -> usize {
        self.limits.record.saturating_sub(LONGEST_HEADING + key.len()).max(1)
    }

    fn push(&mut self, key: &Arc<str>, heading: Heading, bytes: &[u8], start: Start) {
        let serial = self.next;
        self.next = self.next.wrapping_add(1);
        self.bytes = self.bytes.saturating_add(bytes.len());
        let item = Item { serial, heading, bytes: bytes.to_vec() };
        self.lanes.entry(key.clone()).or_default().items.push_back(item);
        self.order.insert(serial, Entry { key: key.clone(), start });
    }

    /// The next parcels: one of each lane that may be tried at `now`, the oldest first.
    pub(super) fn batch(&self, now: Timestamp) -> Batch {
        let mut batch = Batch { parcels: Vec::new(), counts: Vec::new() };
        let (mut seen, mut bytes) = (HashSet::new(), 0);
        for Entry { key, .. } in self.order.values() {
            if batch.parcels.len() == MOST_PARCELS {
                break;
            }
            if !seen.insert(key) {
                if seen.len() == self.lanes.len() {
                    break;
                }
                continue;
            }
            let lane = self.lanes.get(key).filter(|lane| lane.not_before.is_none_or(|at| at <= now));
            let Some((data, count)) = lane.and_then(|lane| self.parcel(key, lane)) else { continue };
            bytes += data.len() + key.len();
            if bytes > self.limits.request && !batch.parcels.is_empty() {
                break;
            }
            batch.parcels.push(Parcel { key: key.clone(), data });
            batch.counts.push(count);
        }
        batch
    }

    /// As much as fits of what is next in a lane.
    fn parcel(&self, key: &str, lane: &Lane) -> Option<(Vec<u8>, usize)> {
        let first = lane.items.front()?;
        let mut data = Vec::with_capacity(LONGEST_HEADING + first.bytes.len());
        write_heading(&mut data, &self.node, first.heading);
        data.extend_from_slice(&first.bytes);
        let mut count = 1;
        let room = self.limits.record.saturating_sub(key.len());
        for item in lane.items.iter().skip(1) {
            let fits = data.len() + item.bytes.len() <= room;
            if first.heading != Heading::Lines || item.heading != Heading::Lines || !fits {
                break;
            }
            data.extend_from_slice(&item.bytes);
            count += 1;
        }
        Some((data, count))
    }

    /// Parcel `index` of `batch` is in the stream.
    pub(super) fn confirmed(&mut self, batch: &Batch, index: usize) {
        let (Some(parcel), Some(count)) = (batch.parcels.get(index), batch.counts.get(index)) else { return };
        let Some(lane) = self.lanes.get_mut(&parcel.key) else { return };
        for item in lane.items.drain(..(*count).min(lane.items.len())) {
            self.order.remove(&item.serial);
            self.bytes = self.bytes.saturating_sub(item.bytes.len());
        }
        (lane.failures, lane.not_before) = (0, None);
        if lane.items.is_empty() {
            self.lanes.remove(&parcel.key);
        }
    }

    /// Parcel `index` of `batch` is not in the stream: its lane waits.
    pub(super) fn failed(&mut self, batch: &Batch, index: usize, now: Timestamp) {
        let lane = batch.parcels.get(index).and_then(|parcel| self.lanes.get_mut(&parcel.key));
        if let Some(lane) = lane {
            lane.failures = lane.failures.saturating_add(1);
            lane.not_before = Some(now.plus(pause(lane.failures)));
        }
    }

    /// When the first of the waiting lanes may be tried again.
    pub(super) fn next_try(&self) -> Option<Timestamp> {
        self.lanes.values().filter_map(|lane| lane.not_before).min()
    }
}
