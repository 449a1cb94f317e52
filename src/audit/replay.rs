//! Reads recordings back: one of them whole, a list of all, or the log's end as it grows.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::base::first_file;
use super::body;
use super::chain::{self, RecordingChain, record_hash};
use super::files::{Lines, Read};
use super::line::{Envelope, parse_line};
use super::record::{Body, Context, Ended, Opened};
pub use super::transcript::Transcript;
use crate::crypto::{Hash, hex};
use crate::domain::deny::EndReason;
use crate::domain::id::ConnectionId;
use crate::domain::time::Timestamp;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no recording `{0}`: `sallyport recordings` lists them")]
    NoRecording(ConnectionId),
    #[error(
        "the beginning of the recording `{0}` is not here any more: replay it from the archive, with `--audit-dir`"
    )]
    Removed(ConnectionId),
    #[error("the recording is damaged at record {seq}: {what}: run `sallyport audit verify`")]
    Damaged { seq: u64, what: String },
    #[error("the log is damaged at record {n}: {what}: run `sallyport audit verify`")]
    LogDamaged { n: u64, what: String },
    #[error("{}", no_terminal(connection, *channel))]
    NoTerminal { connection: ConnectionId, channel: Option<u32> },
    #[error("cannot write the replay")]
    Write(#[source] io::Error),
}

fn no_terminal(connection: &ConnectionId, channel: Option<u32>) -> String {
    match channel {
        Some(channel) => {
            format!(
                "the recording `{connection}` has no channel {channel} that carried anything: read it as text"
            )
        }
        None => format!("the recording `{connection}` has no terminal to play: read it as text"),
    }
}

/// A record of a recording, as replay gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub at: Timestamp,
    /// The record exactly as stored.
    pub json: Vec<u8>,
    pub content: Content,
}

impl Entry {
    /// Reads a record as it is stored.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let envelope = Envelope::parse(json)?;
        let content = match &*envelope.kind {
            "opened" => {
                Content::Opened(Box::new((serde_json::from_slice(json)?, serde_json::from_slice(json)?)))
            }
            "ended" => Content::Ended(serde_json::from_slice(json)?),
            kind => Content::Body(Box::new(body::read(kind, json)?)),
        };
        Ok(Self { seq: envelope.seq, at: envelope.at, json: json.to_vec(), content })
    }
}

/// What a record of a connection says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Opened(Box<(Context, Opened)>),
    Body(Box<Body>),
    Ended(Ended),
}

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// To its last record, and its chain holds.
    Whole,
    /// The recording has no end yet. What was read is in order, but only verification proves it.
    StillOpen,
}

/// Gives the records of one recording to `each`, in order, checking its chain on the way.
pub fn replay(
    directory: &Path,
    connection: &ConnectionId,
    mut each: impl FnMut(&Entry) -> io::Result<()>,
) -> Result<Replayed, ReplayError> {
    walk(Lines::open(directory), directory, connection, |step| match step {
        Step::Entry(entry) => each(entry).map(|()| true),
        Step::Nothing => Ok(false),
    })
}

/// What there is next of a recording.
enum Step<'a> {
    Entry(&'a Entry),
    /// Nothing at the moment.
    Nothing,
}

/// As [`replay`]; `each` says whether to go on.
fn walk(
    mut lines: Lines,
    directory: &Path,
    connection: &ConnectionId,
    mut each: impl FnMut(Step<'_>) -> io::Result<bool>,
) -> Result<Replayed, ReplayError> {
    let start = format!(r#"{{"v":1,"rec":"{connection}","#);
    let mut chain = RecordingChain::start(connection.as_str());
    loop {
        let Some(line) = next_line(&mut lines, directory)? else {
            if each(Step::Nothing).map_err(ReplayError::Write)? {
                continue;
            }
            break;
        };
        let Ok(line) = parse_line(line) else {
            return Err(ReplayError::Damaged { seq: chain.next(), what: "a line was altered".to_owned() });
        };
        if !line.json.starts_with(start.as_bytes()) {
            continue;
        }
        let damaged = |what: &str| ReplayError::Damaged { seq: chain.next(), what: what.to_owned() };
        let entry = Entry::parse(line.json).map_err(|error| damaged(&error.to_string()))?;
        if chain.next() == 0 && entry.seq > 0 && first_file(directory) > 1 {
            return Err(ReplayError::Removed(connection.clone()));
        }
        if entry.seq != chain.next() {
            return Err(damaged("it is missing"));
        }
        let last = match &entry.content {
            Content::Ended(ended) if ended.chain != hex(chain.head()) => {
                return Err(damaged("the recording's end does not match its records"));
            }
            Content::Ended(_) => true,
            _ => false,
        };
        let goes_on = each(Step::Entry(&entry)).map_err(ReplayError::Write)?;
        if last {
            return Ok(Replayed::Whole);
        }
        if !goes_on {
            return Ok(Replayed::StillOpen);
        }
        chain.push(&record_hash(line.json));
    }
    if chain.next() == 0 {
        return Err(ReplayError::NoRecording(connection.clone()));
    }
    Ok(Replayed::StillOpen)
}

/// Writes a recording as its records, one JSON object a line.
pub fn replay_json(
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
) -> Result<Replayed, ReplayError> {
    json(Lines::open(directory), directory, connection, to, || false)
}

/// As [`replay_json`], and goes on as the recording grows for as long as `wait` says, which is asked whenever
/// everything so far is written.
pub fn follow_json(
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
    wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    json(Lines::follow(directory), directory, connection, to, wait)
}

fn json(
    lines: Lines,
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
    mut wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    walk(lines, directory, connection, |step| match step {
        Step::Entry(entry) => {
            to.write_all(&entry.json)?;
            to.write_all(b"\n")?;
            Ok(true)
        }
        Step::Nothing => to.flush().map(|()| wait()),
    })
}

/// Writes a recording as people read it.
pub fn replay_text(
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
) -> Result<Replayed, ReplayError> {
    text(Lines::open(directory), directory, connection, to, || false)
}

/// As [`replay_text`], and goes on as [`follow_json`].
pub fn follow_text(
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
    wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    text(Lines::follow(directory), directory, connection, to, wait)
}

fn text(
    lines: Lines,
    directory: &Path,
    connection: &ConnectionId,
    to: &mut impl Write,
    mut wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    let mut transcript = Transcript::default();
    let replayed = walk(lines, directory, connection, |step| match step {
        Step::Entry(entry) => transcript.write(entry, to).map(|()| true),
        Step::Nothing => to.flush().map(|()| wait()),
    })?;
    if replayed == Replayed::StillOpen {
        transcript.still_open(to).map_err(ReplayError::Write)?;
    }
    Ok(replayed)
}

/// A recording in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    #[serde(flatten)]
    pub context: Context,
    pub opened_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
}

/// All recordings, in the order in which they were opened.
pub fn list(directory: &Path) -> Result<Vec<Summary>, ReplayError> {
    #[derive(Deserialize)]
    struct Opening {
        at: Timestamp,
        #[serde(flatten)]
        context: Context,
    }
    #[derive(Deserialize)]
    struct Ending {
        at: Timestamp,
        reason: EndReason,
    }
    let mut found: Vec<Summary> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    let mut lines = Lines::open(directory);
    while let Some(line) = next_line(&mut lines, directory)? {
        let damaged =
            |what: &str| ReplayError::Damaged { seq: 0, what: format!("a line was altered: {what}") };
        let json = parse_line(line).map_err(|error| damaged(&error.to_string()))?.json;
        let envelope = Envelope::parse(json).map_err(|error| damaged(&error.to_string()))?;
        if envelope.kind == "opened" {
            let opening: Opening =
                serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
            open.insert(envelope.rec.to_string(), found.len());
            let (context, opened_at) = (opening.context, opening.at);
            found.push(Summary { context, opened_at, ended_at: None, reason: None });
        } else if envelope.kind == "ended"
            && let Some(summary) = open.remove(&*envelope.rec).and_then(|index| found.get_mut(index))
        {
            let ending: Ending = serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
            summary.ended_at = Some(ending.at);
            summary.reason = Some(ending.reason);
        }
    }
    Ok(found)
}

/// The recording of `connection`, if there is one.
pub fn find(directory: &Path, connection: &ConnectionId) -> Result<Option<Summary>, ReplayError> {
    Ok(list(directory)?.into_iter().find(|summary| summary.context.connection == *connection))
}

/// Follows the log. The caller decides when to look again.
#[derive(Debug)]
pub struct Tail {
    directory: PathBuf,
    lines: Lines,
    /// Of the record before: its index, and the log's chain value after it.
    before: Option<(u64, Hash)>,
}

impl Tail {
    /// From the log's start.
    pub fn from_start(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), lines: Lines::follow(directory), before: None }
    }

    /// From what comes next. Reads the whole log once.
    pub fn from_end(directory: &Path) -> Result<Self, ReplayError> {
        let mut tail = Self::from_start(directory);
        while tail.poll()?.is_some() {}
        Ok(tail)
    }

    /// The next record exactly as stored; `None` when there is none yet. Each follows from the one before by the log's
    /// chain, or is not given out; whether a checkpoint vouches for them, [`super::verify`] tells.
    pub fn poll(&mut self) -> Result<Option<Vec<u8>>, ReplayError> {
        let next = self.before.map_or(0, |(n, _)| n.saturating_add(1));
        let damaged = |n: u64, what: String| ReplayError::LogDamaged { n, what };
        let Some(line) = next_line(&mut self.lines, &self.directory)? else { return Ok(None) };
        let line =
            parse_line(line).map_err(|error| damaged(next, format!("its line was altered: {error}")))?;
        if let Some((_, head)) = self.before {
            if line.n != next {
                return Err(damaged(next, format!("record {} stands in its place", line.n)));
            }
            if line.hash != chain::after(&head, &record_hash(line.json)) {
                return Err(damaged(next, "it is not the one that follows the record before it".to_owned()));
            }
        }
        self.before = Some((line.n, line.hash));
        Ok(Some(line.json.to_vec()))
    }
}

fn next_line<'a>(lines: &'a mut Lines, directory: &Path) -> Result<Option<&'a [u8]>, ReplayError> {
    let read = lines.next().map_err(|source| ReplayError::Read { path: directory.to_owned(), source })?;
    match read {
        Read::Line(_) => Ok(Some(lines.line())),
        Read::End(_) | Read::Unfinished(_) => Ok(None),
        Read::Bad { what, .. } => Err(ReplayError::Damaged { seq: 0, what: what.to_string() }),
    }
}
