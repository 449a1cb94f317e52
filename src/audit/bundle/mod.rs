//! A bundle: what a node's log holds of one session, in one file that is verified by itself, with the public
//! key alone ([`mod@check`]). The records of its connections, what was asked, approved and decided about it, and
//! the proof that the log has all of them where the bundle says.
//!
//! Any record can be replaced by its hash; the rest is still proved. What opens and what ends a recording
//! stays: it says whose it is, and that it is whole.
//!
//! ```text
//! sallyport bundle v1
//! {"node":"nod-…","session":"ses-…","size":1207}        records that the checkpoint covers
//! 17 {hash} {record}                                    index in the log, hash of the record, the record
//! 18 {hash} redacted con-… 4                            … of which only the recording and place are told
//! proof {hash}                                          as many as it takes, from left to right
//! checkpoint
//! sallyport/nod-…                                       the signed note, to the file's end
//! ```

mod check;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use check::{Bad, Report, check};

use super::base;
use super::chain::record_hash;
use super::checkpoints;
use super::files::{Lines, Read};
use super::line::{Envelope, parse_line};
use super::merkle::{Prover, Tree};
use super::note::{BadCheckpoint, Checkpoint, VerifyKey};
use crate::crypto::{Hash, hex};
use crate::domain::id::{NodeId, RequestId, SessionId};

const TITLE: &str = "sallyport bundle v1";
const REDACTED: &str = "redacted";
const PROOF: &str = "proof";
const CHECKPOINT: &str = "checkpoint";
/// What the names of connections' recordings begin with.
const RECORDING: &str = "con-";

/// What a bundle says of itself first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub node: NodeId,
    pub session: SessionId,
    /// Records that the checkpoint covers.
    pub size: u64,
}

/// Records to be replaced by their hashes: `con-…:7` or `con-…:7-12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    pub rec: String,
    pub seqs: RangeInclusive<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no records: write RECORDING:SEQ or RECORDING:FIRST-LAST, as in `con-…:7-12`")]
pub struct MalformedRedaction(String);

impl FromStr for Redaction {
    type Err = MalformedRedaction;

    fn from_str(text: &str) -> Result<Self, MalformedRedaction> {
        let parse = || {
            let (rec, seqs) = text.split_once(':')?;
            let (first, last) = seqs.split_once('-').unwrap_or((seqs, seqs));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (!rec.is_empty() && first <= last).then(|| Self { rec: rec.to_owned(), seqs: first..=last })
        };
        parse().ok_or_else(|| MalformedRedaction(text.chars().take(80).collect()))
    }
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read the audit log in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no checkpoint in `{}`: nothing vouches for the log", path.display())]
    NoCheckpoint { path: PathBuf },
    #[error(transparent)]
    BadCheckpoint(#[from] BadCheckpoint),
    #[error(
        "the log says nothing of a session `{0}` up to its newest checkpoint: `sallyport sessions` lists them; what is \
         older than the log's first file here is in the archive"
    )]
    NoSession(SessionId),
    #[error("the log is damaged at record {n}: {what}: run `sallyport audit verify`")]
    Damaged { n: u64, what: String },
    #[error("the log is not what its checkpoint vouches for: run `sallyport audit verify`")]
    NotVouched,
    #[error("record {seq} of `{rec}` opens or ends the recording: it has to stay")]
    Needed { rec: String, seq: u64 },
    #[error("`{rec}` has no record {seq} of this session")]
    NothingToRedact { rec: String, seq: u64 },
    #[error("the beginning of `{rec}` is not here any more: make the bundle from the archive")]
    Removed { rec: String },
    #[error("cannot write the bundle")]
    Write(#[source] io::Error),
}

/// What a bundle is made of.
#[derive(Debug)]
pub struct Order<'a> {
    pub directory: &'a Path,
    pub key: &'a VerifyKey,
    pub session: &'a SessionId,
    pub redactions: &'a [Redaction],
}

/// What a record is about.
#[derive(Deserialize)]
struct About<'a> {
    #[serde(borrow, default)]
    rec: Option<Cow<'a, str>>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(borrow, default)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    request: Option<Cow<'a, str>>,
}

/// Writes the bundle. Reads the log twice: for what is about the session, and for the records with their proof.
pub fn write(order: &Order<'_>, to: &mut impl Write) -> Result<(), BundleError> {
    let unreadable = |source| BundleError::Read { path: order.directory.to_owned(), source };
    let note = checkpoints::newest(order.directory).map_err(unreadable)?;
    let note = note.ok_or_else(|| BundleError::NoCheckpoint { path: order.directory.to_owned() })?;
    let Checkpoint { size, root } = order.key.open(&note)?;
    let (before, _) = base::read(order.directory, order.key.node()).map_err(unreadable)?;
    let range = (before.log.size(), size);
    let Chosen { records: chosen, cut } = chosen(order, range)?;
    if let Some(rec) = cut.first() {
        return Err(BundleError::Removed { rec: rec.clone() });
    }

    let header = Header { node: order.key.node().clone(), session: order.session.clone(), size };
    let header = serde_json::to_string(&header).map_err(|error| BundleError::Write(error.into()))?;
    writeln!(to, "{TITLE}\n{header}").map_err(BundleError::Write)?;
    let proof = records(order, (before.log.tree(), size, root), &chosen, to)?;
    for hash in proof {
        writeln!(to, "{PROOF} {hash}").map_err(BundleError::Write)?;
    }
    write!(to, "{CHECKPOINT}\n{note}").and_then(|()| to.flush()).map_err(BundleError::Write)
}

/// Gives each record from `first` on and below `size` to `each`.
fn scan(
    directory: &Path,
    (first, size): (u64, u64),
    mut each: impl FnMut(u64, &[u8]) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let mut lines = Lines::open(directory);
    for n in first..size {
        let damaged = |what: String| BundleError::Damaged { n, what };
        match lines.next().map_err(|source| BundleError::Read { path: directory.to_owned(), source })? {
            Read::Line(_) => {}
            Read::End(_) | Read::Unfinished(_) => return Err(damaged("the log ends before it".to_owned())),
            Read::Bad { what, .. } => return Err(damaged(what.to_string())),
        }
        let line = parse_line(lines.line()).map_err(|error| damaged(error.to_string()))?;
        if line.n != n {
            return Err(damaged(format!("record {} stands in its place", line.n)));
        }
        each(n, line.json)?;
    }
    Ok(())
}

fn about(n: u64, json: &[u8]) -> Result<About<'_>, BundleError> {
    serde_json::from_slice(json).map_err(|error| BundleError::Damaged { n, what: error.to_string() })
}

/// What of the log is about the session.
#[derive(Default)]
struct Chosen {
    /// Indices, in order.
    records: Vec<u64>,
    /// Recordings of which the beginning is not here.
    cut: Vec<String>,
}

/// Finds it in one reading. What was asked and approved stands before the record that says which request became the
/// session, so of requests all records are remembered until that is known.
fn chosen(order: &Order<'_>, size: (u64, u64)) -> Result<Chosen, BundleError> {
    let (mut chosen, mut open) = (Chosen::default(), HashSet::new());
    let (mut found, mut request) = (false, None::<RequestId>);
    let mut of_requests: HashMap<String, Vec<u64>> = HashMap::new();
    scan(order.directory, size, |n, json| {
        let about = about(n, json)?;
        let recording = about.rec.filter(|rec| rec.starts_with(RECORDING));
        if about.session.as_deref() != Some(order.session.as_str()) {
            // A recording names its session in each record.
            let asked = about.request.filter(|_| recording.is_none());
            if let Some(asked) =
                asked.filter(|of| request.as_ref().is_none_or(|request| **of == *request.as_str()))
            {
                of_requests.entry(asked.into_owned()).or_default().push(n);
            }
            return Ok(());
        }
        found = true;
        request = request.take().or_else(|| about.request.as_deref()?.parse().ok());
        chosen.records.push(n);
        if let Some(rec) = recording {
            if about.seq == Some(0) {
                open.insert(rec.into_owned());
            } else if !open.contains(&*rec) && !chosen.cut.iter().any(|known| *known == rec) {
                chosen.cut.push(rec.into_owned());
            }
        }
        Ok(())
    })?;
    if !found {
        return Err(BundleError::NoSession(order.session.clone()));
    }
    let asked = request.and_then(|request| of_requests.remove(request.as_str()));
    chosen.records.extend(asked.into_iter().flatten());
    chosen.records.sort_unstable();
    Ok(chosen)
}

/// Writes the chosen records; gives the proof's hashes.
fn records(
    order: &Order<'_>,
    (before, size, root): (&Tree, u64, Hash),
    chosen: &[u64],
    to: &mut impl Write,
) -> Result<Vec<String>, BundleError> {
    // Of each redaction, the record that is to be met next.
    let mut next: Vec<u64> = order.redactions.iter().map(|redaction| *redaction.seqs.start()).collect();
    let mut prover = Prover::new(before, size, chosen);
    let mut tree = before.clone();
    let mut rest = chosen.iter().copied().peekable();
    scan(order.directory, (before.size(), size), |n, json| {
        let hash = record_hash(json);
        prover.push(&hash);
        tree.push(&hash);
        if rest.next_if_eq(&n).is_none() {
            return Ok(());
        }
        let envelope = Envelope::parse(json)
            .map_err(|error| BundleError::Damaged { n, what: format!("not a record: {error}") })?;
        let hash = hex(&hash);
        let mut redacted = false;
        for (redaction, next) in order.redactions.iter().zip(&mut next) {
            if envelope.rec == *redaction.rec && redaction.seqs.contains(&envelope.seq) {
                *next = envelope.seq.saturating_add(1);
                redacted = true;
            }
        }
        let written = if redacted {
            if matches!(&*envelope.kind, "opened" | "ended") {
                return Err(BundleError::Needed { rec: envelope.rec.to_string(), seq: envelope.seq });
            }
            writeln!(to, "{n} {hash} {REDACTED} {} {}", envelope.rec, envelope.seq)
        } else {
            write!(to, "{n} {hash} ").and_then(|()| to.write_all(json)).and_then(|()| to.write_all(b"\n"))
        };
        written.map_err(BundleError::Write)
    })?;
    if tree.root() != root {
        return Err(BundleError::NotVouched);
    }
    for (redaction, next) in order.redactions.iter().zip(next) {
        if next <= *redaction.seqs.end() {
            return Err(BundleError::NothingToRedact { rec: redaction.rec.clone(), seq: next });
        }
    }
    let proof = prover.finish().unwrap_or_default();
    Ok(proof.iter().map(|hash| hex(hash)).collect())
}
