//! Reads recordings back: one of them whole, or as it grows, or a list of all.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::base::first_file;
use super::body;
use super::chain::{RecordingChain, record_hash};
use super::files::{Lines, Place, Read};
use super::line::{Envelope, parse_line};
use super::record::{Body, Context, Ended, Opened};
use super::since::file_before;
pub use super::transcript::Transcript;
use crate::crypto::hex;
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
        let content = Content::read(&envelope.kind, json)?;
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

impl Content {
    /// Reads a record of this kind. Of a [`Content::Body`] the fields that every record has may be left out.
    pub(super) fn read(kind: &str, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            "opened" => {
                Self::Opened(Box::new((serde_json::from_slice(json)?, serde_json::from_slice(json)?)))
            }
            "ended" => Self::Ended(serde_json::from_slice(json)?),
            kind => Self::Body(Box::new(body::read(kind, json)?)),
        })
    }
}

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// To its last record, and its chain holds.
    Whole,
    /// The recording has no end yet. What was read is in order, but only verification proves it.
    StillOpen,
}

/// A recording, and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub directory: &'a Path,
    pub connection: &'a ConnectionId,
    /// When it was opened, where that is known: the log is read from about there.
    pub opened: Option<Timestamp>,
}

impl<'a> Source<'a> {
    pub fn new(directory: &'a Path, connection: &'a ConnectionId) -> Self {
        Self { directory, connection, opened: None }
    }

    /// The file where reading begins, and the first that there is.
    fn files(&self) -> Result<(u32, u32), ReplayError> {
        let path = || self.directory.to_owned();
        let first = first_file(self.directory);
        let begin = self.opened.map_or(Ok(first), |opened| file_before(self.directory, opened));
        Ok((begin.map_err(|source| ReplayError::Read { path: path(), source })?, first))
    }
}

/// Gives the records of one recording to `each`, in order, checking its chain on the way.
pub fn replay(
    source: &Source<'_>,
    mut each: impl FnMut(&Entry) -> io::Result<()>,
) -> Result<Replayed, ReplayError> {
    walk(source, false, |step| match step {
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

/// As [`replay`]; `each` says whether to go on, and if it `follows`, as the recording grows.
fn walk(
    source: &Source<'_>,
    follows: bool,
    mut each: impl FnMut(Step<'_>) -> io::Result<bool>,
) -> Result<Replayed, ReplayError> {
    let (begin, first) = source.files()?;
    let lines = |file| {
        let place = Place { file, offset: 0 };
        if follows {
            Lines::follow_from(source.directory, place)
        } else {
            Lines::open_from(source.directory, place)
        }
    };
    if begin > first
        && let Some(replayed) = walk_lines(source, lines(begin), true, &mut each)?
    {
        return Ok(replayed);
    }
    let replayed = walk_lines(source, lines(first), false, &mut each)?;
    replayed.ok_or_else(|| ReplayError::NoRecording(source.connection.clone()))
}

/// None: where it is not the log's first file that they begin in, the recording does not begin in `lines`.
fn walk_lines(
    source: &Source<'_>,
    mut lines: Lines,
    is_late: bool,
    mut each: impl FnMut(Step<'_>) -> io::Result<bool>,
) -> Result<Option<Replayed>, ReplayError> {
    let &Source { directory, connection, .. } = source;
    let start = format!(r#"{{"v":1,"rec":"{connection}","#);
    let mut chain = RecordingChain::start(connection.as_str());
    loop {
        let Some(line) = next_line(&mut lines, directory)? else {
            if is_late && chain.next() == 0 {
                return Ok(None);
            }
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
        if chain.next() == 0 && entry.seq > 0 && is_late {
            return Ok(None);
        }
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
            return Ok(Some(Replayed::Whole));
        }
        if !goes_on {
            return Ok(Some(Replayed::StillOpen));
        }
        chain.push(&record_hash(line.json));
    }
    Ok((chain.next() > 0).then_some(Replayed::StillOpen))
}

/// Writes a recording as its records, one JSON object a line.
pub fn replay_json(source: &Source<'_>, to: &mut impl Write) -> Result<Replayed, ReplayError> {
    json(source, false, to, || false)
}

/// As [`replay_json`], and goes on as the recording grows for as long as `wait` says, which is asked whenever
/// everything so far is written.
pub fn follow_json(
    source: &Source<'_>,
    to: &mut impl Write,
    wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    json(source, true, to, wait)
}

fn json(
    source: &Source<'_>,
    follows: bool,
    to: &mut impl Write,
    mut wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    walk(source, follows, |step| match step {
        Step::Entry(entry) => {
            to.write_all(&entry.json)?;
            to.write_all(b"\n")?;
            Ok(true)
        }
        Step::Nothing => to.flush().map(|()| wait()),
    })
}

/// Writes a recording as people read it.
pub fn replay_text(source: &Source<'_>, to: &mut impl Write) -> Result<Replayed, ReplayError> {
    text(source, false, to, || false)
}

/// As [`replay_text`], and goes on as [`follow_json`].
pub fn follow_text(
    source: &Source<'_>,
    to: &mut impl Write,
    wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    text(source, true, to, wait)
}

fn text(
    source: &Source<'_>,
    follows: bool,
    to: &mut impl Write,
    mut wait: impl FnMut() -> bool,
) -> Result<Replayed, ReplayError> {
    let mut transcript = Transcript::default();
    let replayed = walk(source, follows, |step| match step {
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

pub(super) fn next_line<'a>(lines: &'a mut Lines, directory: &Path) -> Result<Option<&'a [u8]>, ReplayError> {
    let read = lines.next().map_err(|source| ReplayError::Read { path: directory.to_owned(), source })?;
    match read {
        Read::Line(_) => Ok(Some(lines.line())),
        Read::End(_) | Read::Unfinished(_) => Ok(None),
        Read::Bad { what, .. } => Err(ReplayError::Damaged { seq: 0, what: what.to_string() }),
    }
}
