//! Verifies a bundle from itself and the log's public key.
//!
//! 1. Each record is the one whose hash stands before it.
//! 2. Each recording is whole: `seq` without holes from `opened`, which names the bundle's session, to
//!    `ended`, and its own chain. A record that was replaced by its hash counts as what it is said to be.
//! 3. The checkpoint's signature holds, and its root is the one of these records and the proof.
//!
//! 4. Its control records stand in the order of their numbers, are about the session or its request, and at least one record
//!    names the session. Every connection that they saw opened has a recording, and every one that they saw ended an end.
//!
//! That nothing else in the log is about the session, a bundle cannot prove: the whole log can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead, Read as _};

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::{CHECKPOINT, Header, PROOF, REDACTED, TITLE};
use crate::audit::chain::{RecordingChain, record_hash};
use crate::audit::line::{Envelope, LONGEST_LINE};
use crate::audit::merkle::root_of;
use crate::audit::note::VerifyKey;
use crate::crypto::{HASH_LENGTH, Hash, hex};
use crate::domain::id::{RequestId, SessionId};

/// A line of a bundle is no longer, in bytes, with its line feed.
const LONGEST: u64 = LONGEST_LINE as u64 + 1;
/// No note is longer.
const LONGEST_NOTE: u64 = 64 << 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Records in the bundle, those that are withheld among them.
    pub records: u64,
    pub redacted: u64,
    pub recordings: u64,
    /// Recordings without an end: their connections were live.
    pub unfinished: Vec<String>,
    /// Records that the checkpoint covers, in the whole log.
    pub covered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<Bad>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// The first thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// Line of the bundle, from 1.
    pub line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    pub what: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_bad {
            None => writeln!(f, "the bundle is whole")?,
            Some(Bad { line, n: Some(n), what }) => {
                writeln!(f, "THE BUNDLE IS NOT WHOLE\nfirst bad: record {n}, line {line}: {what}")?;
            }
            Some(Bad { line, n: None, what }) => {
                writeln!(f, "THE BUNDLE IS NOT WHOLE\nfirst bad: line {line}: {what}")?;
            }
        }
        if let Some(session) = &self.session {
            writeln!(f, "session:    {session}")?;
        }
        writeln!(f, "checked:    {} records, {} of them withheld", self.records, self.redacted)?;
        writeln!(f, "vouched:    by a checkpoint over {} records", self.covered)?;
        writeln!(f, "recordings: {}, {} without an end", self.recordings, self.unfinished.len())?;
        for recording in &self.unfinished {
            writeln!(f, "  no end:   {recording}")?;
        }
        Ok(())
    }
}

/// Verifies what `from` gives; an error is one of reading.
pub fn check(from: impl BufRead, key: &VerifyKey) -> io::Result<Report> {
    let mut checker = Checker::new(from, key);
    let outcome = checker.all();
    let Checker { mut report, open, line, .. } = checker;
    report.unfinished = open.into_keys().collect();
    match outcome {
        Ok(()) => {}
        Err(Stop::Wrong { n, what }) => report.first_bad = Some(Bad { line, n, what }),
        Err(Stop::Read(error)) => return Err(error),
    }
    Ok(report)
}

/// Why it is not gone on with.
enum Stop {
    Read(io::Error),
    /// What is wrong, and with which record of the log.
    Wrong {
        n: Option<u64>,
        what: String,
    },
}

fn wrong(what: impl Into<String>) -> Stop {
    Stop::Wrong { n: None, what: what.into() }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

type Checked<T = ()> = Result<T, Stop>;

struct Checker<'a, R> {
    from: R,
    key: &'a VerifyKey,
    line: u64,
    text: Vec<u8>,
    leaves: Vec<(u64, Hash)>,
    open: BTreeMap<String, RecordingChain>,
    ended: BTreeSet<String>,
    /// Where the control record before stands in the log, and which of the control recording it is.
    control: Option<(u64, u64)>,
    /// Connections that control records tell of.
    awaited: BTreeSet<String>,
    /// Connections that control records saw ended.
    closed: BTreeSet<String>,
    /// Whether a record names the session, and the request that it comes from.
    is_named: bool,
    request: Option<RequestId>,
    /// Requests of control records that do not name the session.
    requests: BTreeSet<RequestId>,
    report: Report,
}

/// One line of the middle part.
struct Record<'a> {
    n: u64,
    hash: Hash,
    rest: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let n = std::str::from_utf8(parts.next()?).ok()?;
    let number: u64 = n.parse().ok().filter(|number: &u64| number.to_string() == n)?;
    Some(Record { n: number, hash: hash(parts.next()?)?, rest: parts.next()? })
}

fn hash(digits: &[u8]) -> Option<Hash> {
    if digits.len() != 2 * HASH_LENGTH {
        return None;
    }
    Hash::try_from(HEXLOWER.decode(digits).ok()?).ok()
}

impl<'a, R: BufRead> Checker<'a, R> {
    fn new(from: R, key: &'a VerifyKey) -> Self {
        let (line, text, leaves, open) = (0, Vec::new(), Vec::new(), BTreeMap::new());
        let (ended, awaited, closed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (is_named, request, requests, report) = (false, None, BTreeSet::new(), Report::default());
        Self {
            from,
            key,
            line,
            text,
            leaves,
            open,
            ended,
            control: None,
            awaited,
            closed,
            is_named,
            request,
            requests,
            report,
        }
    }

    /// Reads a line into `text`, without its end.
    fn next(&mut self) -> Checked {
        self.text.clear();
        self.line = self.line.saturating_add(1);
        self.from.by_ref().take(LONGEST).read_until(b'\n', &mut self.text)?;
        match self.text.pop() {
            Some(b'\n') => Ok(()),
            Some(_) => Err(wrong("the line has no end, or is longer than any record")),
            None => Err(wrong("the bundle ends here, before its checkpoint")),
        }
    }

    fn all(&mut self) -> Checked {
        self.next()?;
        if self.text != TITLE.as_bytes() {
            return Err(wrong(format!("a bundle begins with `{TITLE}`")));
        }
        self.next()?;
        let header: Header = serde_json::from_slice(&self.text)
            .map_err(|error| wrong(format!("not a bundle's header: {error}")))?;
        let ours = self.key.node();
        if header.node != *ours {
            return Err(wrong(format!("the bundle is of the log of {}, the key of {ours}", header.node)));
        }
        self.report.session = Some(header.session.clone());
        self.report.covered = header.size;
        let mut proof = Vec::new();
        loop {
            self.next()?;
            if self.text == CHECKPOINT.as_bytes() {
                break;
            }
            self.middle(&header, &mut proof)?;
        }
        self.checkpoint(&header, &proof)?;
        self.complete(&header)
    }

    /// Nothing follows: what the records tell of must be here.
    fn complete(&self, header: &Header) -> Checked {
        if !self.is_named {
            return Err(wrong(format!("no record here says that it is of the session {}", header.session)));
        }
        if let Some(other) = self.requests.iter().find(|request| Some(*request) != self.request.as_ref()) {
            return Err(wrong(format!("a record is of another request than the session's, {other}")));
        }
        if let Some(connection) = self.awaited.first() {
            return Err(wrong(format!("connection {connection} was opened, and its recording is not here")));
        }
        match self.closed.iter().find(|connection| self.open.contains_key(*connection)) {
            None => Ok(()),
            Some(cut) => {
                Err(wrong(format!("connection {cut} has ended, and its recording's end is not here")))
            }
        }
    }

    fn middle(&mut self, header: &Header, proof: &mut Vec<Hash>) -> Checked {
        let line = std::mem::take(&mut self.text);
        if let Some(digits) = line.strip_prefix(format!("{PROOF} ").as_bytes()) {
            proof.push(hash(digits).ok_or_else(|| wrong("the proof's hash was altered"))?);
            return Ok(());
        }
        if !proof.is_empty() {
            return Err(wrong("a record stands behind the proof"));
        }
        let record = parse(&line).ok_or_else(|| wrong("neither a record nor a proof"))?;
        let checked = if self.leaves.last().is_some_and(|(last, _)| *last >= record.n) {
            Err("the record is out of order".to_owned())
        } else if record.rest.first() == Some(&b'{') {
            self.record(header, &record)
        } else {
            self.withheld(&record)
        };
        checked.map_err(|what| Stop::Wrong { n: Some(record.n), what })?;
        self.report.records += 1;
        self.leaves.push((record.n, record.hash));
        Ok(())
    }

    fn record(&mut self, header: &Header, record: &Record<'_>) -> Result<(), String> {
        if record_hash(record.rest) != record.hash {
            return Err("the record was altered: it is not the one of the hash before it".to_owned());
        }
        let envelope = Envelope::parse(record.rest).map_err(|error| format!("not a record: {error}"))?;
        let node = header.node.as_str();
        if envelope.v != 1 || envelope.node != node {
            return Err("the record is of another node or version".to_owned());
        }
        if envelope.rec == node {
            self.follows(record.n, envelope.seq)?;
            return self.control(header, envelope, record.rest);
        }
        if envelope.kind == "opened" {
            self.opened(header, &envelope, record.rest)?;
        }
        if envelope.kind == "ended" {
            let chain = self.recording(&envelope.rec, envelope.seq)?;
            if envelope.chain.as_deref() != Some(hex(chain.head()).as_str()) {
                return Err("the recording's end does not match its records".to_owned());
            }
            self.open.remove(&*envelope.rec);
            self.ended.insert(envelope.rec.to_string());
            return Ok(());
        }
        self.recording(&envelope.rec, envelope.seq)?.push(&record.hash);
        Ok(())
    }

    /// Whether a control record can be the `seq`th of the control recording there: between two of them in the log lie at
    /// least as many others as between their numbers.
    fn follows(&mut self, n: u64, seq: u64) -> Result<(), String> {
        let before = self.control.replace((n, seq));
        let fits = match before {
            None => seq <= n,
            Some((at, last)) => last < seq && seq - last <= n - at,
        };
        if fits { Ok(()) } else { Err(format!("the control recording's record {seq} cannot stand here")) }
    }

    fn control(&mut self, header: &Header, envelope: Envelope<'_>, json: &[u8]) -> Result<(), String> {
        #[derive(serde::Deserialize)]
        struct Whose {
            session: Option<SessionId>,
            request: Option<RequestId>,
        }
        let whose: Whose =
            serde_json::from_slice(json).map_err(|error| format!("not a control record: {error}"))?;
        if whose.session.as_ref() == Some(&header.session) {
            self.is_named = true;
            self.request = self.request.take().or(whose.request);
        } else {
            self.requests.insert(whose.request.ok_or("the record is of another session")?);
        }
        let Some(connection) = envelope.connection else { return Ok(()) };
        let is_ended = envelope.action.as_deref() == Some("connection_ended");
        if is_ended || envelope.action.as_deref() == Some("connection_opened") {
            if is_ended {
                self.closed.insert(connection.to_string());
            }
            if !self.open.contains_key(&*connection) && !self.ended.contains(&*connection) {
                self.awaited.insert(connection.to_string());
            }
        }
        Ok(())
    }

    fn opened(&mut self, header: &Header, envelope: &Envelope<'_>, json: &[u8]) -> Result<(), String> {
        #[derive(serde::Deserialize)]
        struct Whose {
            session: SessionId,
            request: RequestId,
        }
        let whose: Whose =
            serde_json::from_slice(json).map_err(|error| format!("not an opening: {error}"))?;
        if whose.session != header.session || envelope.connection.as_ref() != Some(&envelope.rec) {
            return Err("the recording is of another session or connection".to_owned());
        }
        if self.ended.contains(&*envelope.rec) || self.open.contains_key(&*envelope.rec) {
            return Err("the recording is opened a second time".to_owned());
        }
        self.is_named = true;
        self.request = self.request.take().or(Some(whose.request));
        self.awaited.remove(&*envelope.rec);
        self.report.recordings += 1;
        self.open.insert(envelope.rec.to_string(), RecordingChain::start(&envelope.rec));
        Ok(())
    }

    /// The recording whose next record is `seq`.
    fn recording(&mut self, rec: &str, seq: u64) -> Result<&mut RecordingChain, String> {
        let chain = self.open.get_mut(rec).ok_or("the recording is not open here")?;
        if chain.next() == seq {
            Ok(chain)
        } else {
            Err(format!("the recording's record {} is missing", chain.next()))
        }
    }

    fn withheld(&mut self, record: &Record<'_>) -> Result<(), String> {
        let text = std::str::from_utf8(record.rest).unwrap_or_default();
        let parts = text.strip_prefix(REDACTED).and_then(|rest| rest.strip_prefix(' '));
        let (rec, seq) =
            parts.and_then(|rest| rest.split_once(' ')).ok_or("neither a record nor withheld")?;
        let seq: u64 = seq.parse().map_err(|_| "a withheld record has a place in its recording")?;
        self.report.redacted += 1;
        if rec == self.key.node().as_str() {
            self.follows(record.n, seq)
        } else {
            self.recording(rec, seq)?.push(&record.hash);
            Ok(())
        }
    }

    fn checkpoint(&mut self, header: &Header, proof: &[Hash]) -> Checked {
        self.line = self.line.saturating_add(1);
        let mut note = Vec::new();
        self.from.by_ref().take(LONGEST_NOTE).read_to_end(&mut note)?;
        let opened = self.key.open(&String::from_utf8(note).unwrap_or_default());
        let checkpoint = opened.map_err(|error| wrong(error.to_string()))?;
        if checkpoint.size != header.size {
            return Err(wrong("the checkpoint is over another number of records than the bundle says"));
        }
        if root_of(checkpoint.size, &self.leaves, proof) == Some(checkpoint.root) {
            Ok(())
        } else {
            Err(wrong(
                "the records and the proof do not make what the checkpoint signs: a record was removed, \
                 inserted, moved or replaced together with its hash, or the proof was",
            ))
        }
    }
}
