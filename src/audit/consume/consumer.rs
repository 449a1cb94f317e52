//! All nodes of a stream: takes records as they are read, keeps what follows, and says how far the stream is done.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::archive::{Sealed, Sealing};
use super::node::{Node, Patience};
use super::shards::Shards;
use super::{Alarm, AlarmKind};
use crate::audit::note::VerifyKey;
use crate::audit::stream::Got;
use crate::audit::stream::parcel::parse;
use crate::domain::id::NodeId;
use crate::domain::time::Timestamp;

const ALARMS: &str = "alarms.log";

/// How an archive is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    pub directory: PathBuf,
    pub stream: String,
    pub keys: Vec<VerifyKey>,
    pub patience: Patience,
    pub sealing: Sealing,
}

#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    nodes: BTreeMap<NodeId, Node>,
    shards: Shards,
    alarms: Vec<Alarm>,
    /// Held for as long as the archive is open.
    _lock: File,
}

impl Consumer {
    /// Opens the archive, or begins it. One process at a time writes to it.
    pub fn open(settings: Settings, now: Timestamp) -> io::Result<Self> {
        let directory = &settings.directory;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = lock(directory)?;
        let shards = Shards::open(directory, &settings.stream)?;
        let mut consumer = Self { nodes: BTreeMap::new(), shards, alarms: Vec::new(), _lock: lock, settings };
        let mut known: Vec<NodeId> = consumer.settings.keys.iter().map(|key| key.node().clone()).collect();
        for entry in fs::read_dir(&consumer.settings.directory)? {
            known.extend(entry?.file_name().to_str().and_then(|name| name.parse::<NodeId>().ok()));
        }
        for node in known {
            consumer.node(&node, now)?;
        }
        Ok(consumer)
    }

    fn node(&mut self, id: &NodeId, now: Timestamp) -> io::Result<&mut Node> {
        if !self.nodes.contains_key(id) {
            let key = self.settings.keys.iter().find(|key| key.node() == id).cloned();
            let node = Node::open(&self.settings.directory, id.clone(), key, now)?;
            self.nodes.insert(id.clone(), node);
        }
        self.nodes.get_mut(id).ok_or_else(|| io::Error::other("a node is missing"))
    }

    /// Where a shard is to be read on.
    pub fn after(&self, shard: &str) -> Option<&str> {
        self.shards.after(shard)
    }

    /// Takes a record of the stream.
    pub fn take(&mut self, shard: &str, got: &Got, now: Timestamp) -> io::Result<()> {
        let (id, heading, bytes) = match parse(&got.data) {
            Ok(parcel) => parcel,
            Err(error) => {
                let what = format!("record {} of {shard} is none of ours: {error}", got.sequence);
                self.alarms.push(Alarm { at: now, node: None, kind: AlarmKind::Malformed, what });
                return Ok(());
            }
        };
        let needed = self.node(&id, now)?.take(&got.key, heading, bytes, (got.arrived, now))?;
        self.shards.read(shard, &got.sequence, id, needed);
        Ok(())
    }

    /// Makes durable what was taken, closes files that are due, and gives what there is to say. When it `is_last`,
    /// nothing more is read.
    pub fn settle(&mut self, now: Timestamp, is_last: bool) -> io::Result<Vec<Alarm>> {
        let mut alarms = std::mem::take(&mut self.alarms);
        for node in self.nodes.values_mut() {
            node.archive().keep()?;
            node.archive().seal(&self.settings.sealing, now)?;
            node.watch(&self.settings.patience, now, is_last);
            alarms.extend(node.alarms());
        }
        self.shards.keep(|id| self.nodes.get(id).map_or(0, Node::size))?;
        self.tell(&alarms)?;
        Ok(alarms)
    }

    /// Whether all shards have to be read again from where they were kept.
    pub fn begins_again(&mut self) -> bool {
        let wanting = self.nodes.values_mut().filter_map(|node| node.wants_again().then_some(())).count();
        if wanting > 0 {
            self.shards.forget();
        }
        wanting > 0
    }

    /// Files of all nodes that are closed, from the first that `wanted` names for each on.
    pub fn sealed(&mut self, wanted: impl Fn(&NodeId) -> u32) -> Vec<(NodeId, Sealed)> {
        let sealed = |(id, node): (&NodeId, &mut Node)| {
            let files = node.archive().sealed_from(wanted(id));
            files.into_iter().map(|file| (id.clone(), file)).collect::<Vec<_>>()
        };
        self.nodes.iter_mut().flat_map(sealed).collect()
    }

    /// Everybody whose log is in the archive.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().cloned().collect()
    }

    /// How many records of how many nodes the archive holds.
    pub fn holds(&self) -> (u64, usize) {
        (self.nodes.values().map(Node::size).sum(), self.nodes.len())
    }

    /// Adds to the archive's list of alarms.
    pub fn tell(&self, alarms: &[Alarm]) -> io::Result<()> {
        if alarms.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for alarm in alarms {
            serde_json::to_writer(&mut lines, alarm)?;
            lines.push(b'\n');
        }
        let path = self.settings.directory.join(ALARMS);
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.write_all(&lines)?;
        file.sync_all()
    }
}

fn lock(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(directory.join("lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::other("another process writes to this archive")),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{Log, record_hash};
    use crate::audit::line::write_line;
    use crate::audit::note::SigningKey;
    use crate::audit::stream::parcel::{Heading, heading};
    use std::time::Duration;

    /// Neither others' logs nor its own later lines may be lost for a record that comes late, or never.
    #[test]
    fn a_node_whose_records_are_missing_keeps_no_other_from_the_archive() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let hour = Duration::from_hours(1);
        let settings = Settings {
            directory: home.path().to_owned(),
            stream: "audit".to_owned(),
            keys: Vec::new(),
            patience: Patience { gap: hour, silence: hour },
            sealing: Sealing { bytes: u64::MAX, age: hour },
        };
        let mut consumer = Consumer::open(settings, now).unwrap();
        let [broken, other] = [1, 2].map(|number| NodeId::from_random([number; 10]));
        let parcels = |node: &NodeId| -> Vec<Vec<u8>> {
            let mut log = Log::start(node);
            let parcel = |_| {
                let (mut parcel, json) = (heading(node, Heading::Lines).into_bytes(), b"{}");
                let hash = record_hash(json);
                write_line(&mut parcel, log.size(), &log.after(&hash), json);
                log.push(&hash);
                parcel
            };
            (0..20).map(parcel).collect()
        };
        let (mut late, others) = (parcels(&broken), parcels(&other));
        late.rotate_left(1);
        consumer.node(&broken, now).unwrap().set_most_held(500);
        let stream: Vec<_> = late.into_iter().chain(others).collect();
        let read = |consumer: &mut Consumer| {
            for (at, data) in stream.iter().enumerate() {
                let sequence = format!("{at:03}");
                if consumer.after("shard").is_some_and(|after| *sequence <= *after) {
                    continue;
                }
                let got = Got { key: "k".to_owned(), sequence, data: data.clone(), arrived: now };
                consumer.take("shard", &got, now).unwrap();
            }
            consumer.settle(now, false).unwrap()
        };
        let full = read(&mut consumer).iter().filter(|alarm| alarm.kind == AlarmKind::Full).count();
        assert_eq!((full, consumer.nodes[&other].size()), (1, 20));
        let mut rounds = 0;
        while consumer.begins_again() {
            read(&mut consumer);
            rounds += 1;
        }
        assert_eq!((consumer.nodes[&broken].size(), consumer.after("shard")), (20, Some("039")));
        assert!(rounds > 0 && !consumer.begins_again());
    }

    /// A log of two records with its checkpoint, as parcels.
    fn signed_log(key: &SigningKey, json: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut log = Log::start(key.node());
        let mut lines = Vec::new();
        for record in [b"{}".as_slice(), json] {
            let hash = record_hash(record);
            write_line(&mut lines, log.size(), &log.after(&hash), record);
            log.push(&hash);
        }
        (lines, key.sign(2, &log.root()).unwrap().into_bytes())
    }

    #[test]
    fn two_logs_that_one_key_signed_are_told_even_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let id = NodeId::from_random([1; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), id.clone()).unwrap();
        let open = || Node::open(home.path(), id.clone(), Some(key.verify_key()), now).unwrap();
        let [(lines, signed), (_, other)] = [b"{\"a\":1}", b"{\"a\":2}"].map(|json| signed_log(&key, json));
        let rewritten =
            |node: &mut Node| node.alarms().iter().filter(|alarm| alarm.kind == AlarmKind::Rewritten).count();
        let mut node = open();
        let take =
            |node: &mut Node, heading, bytes: &[u8]| _ = node.take("k", heading, bytes, (now, now)).unwrap();
        for again in [&signed, &signed] {
            take(&mut node, Heading::Checkpoint, again);
        }
        assert_eq!(rewritten(&mut node), 0, "the same one may come twice");
        take(&mut node, Heading::Checkpoint, &other);
        assert_eq!(rewritten(&mut node), 1, "while both wait for the records");
        take(&mut node, Heading::Lines, &lines);
        node.archive().keep().unwrap();
        drop(node);
        let mut node = open();
        assert_eq!(node.size(), 2);
        take(&mut node, Heading::Checkpoint, &signed);
        assert_eq!(rewritten(&mut node), 0);
        take(&mut node, Heading::Checkpoint, &other);
        assert_eq!(rewritten(&mut node), 1, "when one is kept");
    }

    #[test]
    fn a_daily_look_says_who_has_been_silent_for_a_day() {
        let home = tempfile::tempdir().unwrap();
        let then = Timestamp::from_micros(1_795_468_800_000_000);
        let patience = Patience { gap: Duration::from_hours(1), silence: Duration::from_hours(1) };
        let id = NodeId::from_random([1; 10]);
        let mut node = Node::open(home.path(), id.clone(), None, then).unwrap();
        let key = SigningKey::from_pem(&SigningKey::generate(), id.clone()).unwrap();
        let (lines, _) = signed_log(&key, b"{}");
        node.take("k", Heading::Lines, &lines, (then, then)).unwrap();
        node.archive().keep().unwrap();
        let silent = |at, is_last| {
            let mut node = Node::open(home.path(), id.clone(), None, at).unwrap();
            node.watch(&patience, at, is_last);
            node.alarms().iter().any(|alarm| alarm.kind == AlarmKind::Silent)
        };
        let later = then.plus(Duration::from_hours(24));
        assert!(!silent(then.plus(Duration::from_mins(1)), true));
        assert!(silent(later, true));
        assert!(!silent(later, false), "who goes on reading may hear of it yet");
    }

    #[test]
    fn pieces_whose_others_never_come_take_no_more_than_their_share_and_are_told() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let id = NodeId::from_random([1; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), id.clone()).unwrap();
        let mut node = Node::open(home.path(), id, None, now).unwrap();
        node.set_most_held(10_000);
        let _told = node.alarms();
        let piece = |node: &mut Node, key: &str, n, index, bytes: &[u8]| {
            node.take(key, Heading::Part { n, index, of: 2 }, bytes, (now, now)).unwrap()
        };
        let full =
            |node: &mut Node| node.alarms().iter().filter(|alarm| alarm.kind == AlarmKind::Full).count();
        let (lines, _) = signed_log(&key, b"{}");
        let end = lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let (first, second) = lines.split_at(end);
        for other in 0..10 {
            assert_eq!(piece(&mut node, &other.to_string(), 0, 1, &[b'x'; 1_000]), 1);
        }
        assert_eq!(full(&mut node), 0);
        // No room, so it is not forgotten: the shard's position stays before it. To read it again would find no room.
        for _ in 0..3 {
            assert_eq!(piece(&mut node, "last", 1, 1, &[b'x'; 1_000]), 2);
        }
        assert_eq!((full(&mut node), node.wants_again()), (1, false));
        // Once the record is there, its other pieces go.
        node.take("k", Heading::Lines, first, (now, now)).unwrap();
        assert!(node.wants_again() && !node.wants_again());
        let (begin, end) = second.split_at(10);
        piece(&mut node, "last", 1, 1, &[b'x'; 9_000]);
        piece(&mut node, "last", 1, 1, begin);
        piece(&mut node, "last", 1, 2, end);
        assert_eq!((full(&mut node), node.size()), (0, 2));
    }

    /// Who copies the bucket must not be told that the log was cut off.
    #[test]
    fn beside_a_closed_file_is_a_checkpoint_that_goes_no_further() {
        let home = tempfile::tempdir().unwrap();
        let now = Timestamp::from_micros(1_795_468_800_000_000);
        let id = NodeId::from_random([1; 10]);
        let key = SigningKey::from_pem(&SigningKey::generate(), id.clone()).unwrap();
        let mut node = Node::open(home.path(), id.clone(), Some(key.verify_key()), now).unwrap();
        let (lines, signed) = signed_log(&key, b"{}");
        node.take("k", Heading::Lines, &lines, (now, now)).unwrap();
        node.take("k", Heading::Checkpoint, &signed, (now, now)).unwrap();
        node.archive().keep().unwrap();
        node.archive().seal(&Sealing { bytes: 1, age: Duration::from_hours(1) }, now).unwrap();
        let mut longer = node.archive().log().clone();
        let hash = record_hash(b"{}");
        let mut line = Vec::new();
        write_line(&mut line, longer.size(), &longer.after(&hash), b"{}");
        longer.push(&hash);
        let newest = key.sign(3, &longer.root()).unwrap();
        node.take("k", Heading::Lines, &line, (now, now)).unwrap();
        node.take("k", Heading::Checkpoint, newest.as_bytes(), (now, now)).unwrap();
        node.archive().keep().unwrap();
        let [sealed] = <[Sealed; 1]>::try_from(node.archive().sealed_from(1)).unwrap();
        assert_eq!(fs::read(sealed.checkpoint).unwrap(), signed);
    }
}
