//! Where a log stands after each of its lines: what recovery goes on from, and what is kept of files that were
//! removed ([`super::base`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::chain::{Log, RecordingChain, record_hash};
use super::encode;
use super::line::{Envelope, parse_line};
use super::record::Context;
use super::writer::Recording;
use crate::crypto::Hash;
use crate::domain::id::{ConnectionId, NodeId};
use crate::domain::time::Timestamp;

#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) log: Log,
    /// Bytes of all lines so far.
    pub(super) bytes: u64,
    pub(super) control: RecordingChain,
    /// Those without an end.
    pub(super) recordings: HashMap<ConnectionId, Recording>,
    /// Recordings that no control record told of so far.
    pub(super) unannounced: BTreeSet<ConnectionId>,
    /// The highest outbox id.
    pub(super) outbox: Option<i64>,
    /// The latest instant.
    pub(super) latest: Option<Timestamp>,
}

impl Scan {
    /// Of a log without a record.
    pub(super) fn start(node: &NodeId) -> Self {
        Self {
            log: Log::start(node),
            bytes: 0,
            control: RecordingChain::start(node.as_str()),
            recordings: HashMap::new(),
            unannounced: BTreeSet::new(),
            outbox: None,
            latest: None,
        }
    }

    /// Takes one line; the error says what is wrong with it.
    pub(super) fn take(&mut self, line: &[u8], node: &NodeId) -> Result<(), String> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX).saturating_add(1);
        let line = parse_line(line).map_err(|error| error.to_string())?;
        let hash = record_hash(line.json);
        if line.n != self.log.size() || line.hash != self.log.after(&hash) {
            return Err("the record does not follow from those before it".to_owned());
        }
        let envelope = Envelope::parse(line.json).map_err(|error| format!("not a record: {error}"))?;
        if envelope.rec == node.as_str() {
            self.control(&envelope, &hash)?;
        } else {
            self.connection(&envelope, line.json, &hash)?;
        }
        self.latest = self.latest.max(Some(envelope.at));
        self.log.push_with(&hash, line.hash);
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }

    fn control(&mut self, envelope: &Envelope<'_>, hash: &Hash) -> Result<(), String> {
        if envelope.seq != self.control.next() {
            return Err("a control record is missing".to_owned());
        }
        self.control.push(hash);
        self.outbox = self.outbox.max(envelope.outbox);
        let opened = envelope
            .connection
            .as_deref()
            .filter(|_| envelope.action.as_deref() == Some("connection_opened"));
        if let Some(connection) = opened.and_then(|connection| connection.parse::<ConnectionId>().ok()) {
            self.unannounced.remove(&connection);
        }
        Ok(())
    }

    fn connection(&mut self, envelope: &Envelope<'_>, json: &[u8], hash: &Hash) -> Result<(), String> {
        let id: ConnectionId = envelope.rec.parse().map_err(|_| "not a recording's name".to_owned())?;
        if envelope.kind == "opened" {
            let context: Context =
                serde_json::from_slice(json).map_err(|error| format!("not an opening: {error}"))?;
            let chain = RecordingChain::start(&envelope.rec);
            let context: Arc<[u8]> = encode::context(&context).into();
            let recording = Recording { chain, context, under_way: BTreeSet::new() };
            self.recordings.insert(id.clone(), recording);
            self.unannounced.insert(id.clone());
        }
        let Some(recording) = self.recordings.get_mut(&id) else {
            return Err("a record of a recording that is not open".to_owned());
        };
        if envelope.seq != recording.chain.next() {
            return Err("a record of the recording is missing".to_owned());
        }
        recording.chain.push(hash);
        match (&*envelope.kind, envelope.n) {
            ("statement", Some(n)) => _ = recording.under_way.insert(n),
            ("statement_end", Some(n)) => _ = recording.under_way.remove(&n),
            ("ended", _) => _ = self.recordings.remove(&id),
            _ => {}
        }
        Ok(())
    }
}
