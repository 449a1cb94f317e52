//! What is kept of journal files that were removed, because the stream has confirmed what they held: where the log
//! stood at the first file that is still here. The archive has the rest.
//!
//! It is no evidence by itself: the next checkpoint's root is computed from it, so another one is found, and a
//! `journal_trimmed` record in what is left says that it was written, and by whom: by the gateway.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain::{KeptChain, KeptLog, Log, RecordingChain};
use super::checkpoints;
use super::files::{Lines, Place, Read, newest};
use super::medium::file_name;
use super::note::{Checkpoint, VerifyKey};
use super::scan::Scan;
use super::witness::cosigned_file;
use super::writer::Recording;
use crate::crypto::cosign::WitnessVerifyKey;
use crate::domain::id::{ConnectionId, NodeId};
use crate::domain::time::Timestamp;

const FILE: &str = "base";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Base {
    v: u32,
    node: NodeId,
    /// Number of the first journal file that is here.
    file: u32,
    bytes: u64,
    log: KeptLog,
    control: KeptChain,
    recordings: Vec<KeptRecording>,
    unannounced: Vec<ConnectionId>,
    outbox: Option<i64>,
    latest: Option<Timestamp>,
}

/// A recording that was open there.
#[derive(Debug, Serialize, Deserialize)]
struct KeptRecording {
    rec: ConnectionId,
    chain: KeptChain,
    context: String,
    under_way: Vec<u64>,
}

/// Only what says where to begin.
#[derive(Deserialize)]
struct First {
    file: u32,
}

/// Number of the first journal file in `directory`. A damaged base is one of no file: file 1 is then missing.
pub(super) fn first_file(directory: &Path) -> u32 {
    let base = fs::read(directory.join(FILE)).ok();
    base.and_then(|text| serde_json::from_slice::<First>(&text).ok()).map_or(1, |first| first.file)
}

/// Where the log stood at its first file here, and that file's number. Of a whole log: nothing, and 1.
pub(super) fn read(directory: &Path, node: &NodeId) -> io::Result<(Scan, u32)> {
    let text = match fs::read(directory.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Scan::start(node), 1)),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::other(format!("the file `{FILE}` is damaged"));
    let base: Base = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let file = base.file;
    let scan = base.scan(node).ok_or_else(damaged)?;
    Ok((scan, file))
}

impl Base {
    fn of(scan: &Scan, node: &NodeId, file: u32) -> Self {
        let recording = |(rec, recording): (&ConnectionId, &Recording)| KeptRecording {
            rec: rec.clone(),
            chain: recording.chain.kept(),
            context: String::from_utf8_lossy(&recording.context).into_owned(),
            under_way: recording.under_way.iter().copied().collect(),
        };
        Self {
            v: 1,
            node: node.clone(),
            file,
            bytes: scan.bytes,
            log: scan.log.kept(),
            control: scan.control.kept(),
            recordings: scan.recordings.iter().map(recording).collect(),
            unannounced: scan.unannounced.iter().cloned().collect(),
            outbox: scan.outbox,
            latest: scan.latest,
        }
    }

    /// None when it cannot be a log's of `node`.
    fn scan(self, node: &NodeId) -> Option<Scan> {
        if self.v != 1 || self.node != *node || self.file < 2 {
            return None;
        }
        let mut recordings = HashMap::new();
        for kept in self.recordings {
            let chain = RecordingChain::from_kept(&kept.chain)?;
            let context = kept.context.into_bytes().into();
            let under_way = kept.under_way.into_iter().collect();
            recordings.insert(kept.rec, Recording { chain, context, under_way });
        }
        Some(Scan {
            log: Log::from_kept(&self.log)?,
            bytes: self.bytes,
            control: RecordingChain::from_kept(&self.control)?,
            recordings,
            unannounced: self.unannounced.into_iter().collect(),
            outbox: self.outbox,
            latest: self.latest,
        })
    }

    fn keep(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        let mut options = File::options();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(new, directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }
}

/// Why no file was removed.
#[derive(Debug, thiserror::Error)]
pub enum NotTrimmed {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the audit log is damaged at record {n}: {what}: run `sallyport audit verify`")]
    Damaged { n: u64, what: String },
}

/// Files that could be removed: what is left then begins with `file`, at record `records`.
#[derive(Debug)]
pub struct Trim {
    base: Base,
    pub file: u32,
    pub records: u64,
    /// What is freed, in bytes.
    pub bytes: u64,
}

/// Looks whether the oldest files, all of them before `shipped` (the journal file with the first record that the stream
/// lacks), can be removed so that no more than `keep` bytes of files are left. Reads those files, and checks them once
/// more. None: nothing is to be done. What one of the `witnesses` has not seen stays; one that is not asked any more does
/// not keep files for ever.
pub fn plan(
    directory: &Path,
    (key, witnesses): (&VerifyKey, &[WitnessVerifyKey]),
    shipped: u32,
    keep: u64,
) -> Result<Option<Trim>, NotTrimmed> {
    let node = key.node();
    let (mut scan, first) = read(directory, node)?;
    // What a crash left of the last time.
    remove_before(directory, first)?;
    let Some(last) = newest(directory)? else { return Ok(None) };
    let size = |number| fs::metadata(directory.join(file_name(number))).map(|data| data.len());
    let mut total: u64 = 0;
    for number in first..=last {
        total = total.saturating_add(size(number)?);
    }
    let vouched = vouched(directory, key, witnesses)?;
    let (mut trim, mut freed) = (None, 0);
    let mut lines = Lines::follow_from(directory, Place { file: first, offset: 0 });
    for number in first..shipped.min(last) {
        if total <= keep {
            break;
        }
        read_file(&mut lines, number, &mut scan, node)?;
        if scan.log.size() > vouched {
            break;
        }
        let bytes = size(number)?;
        (total, freed) = (total.saturating_sub(bytes), freed + bytes);
        let file = number.saturating_add(1);
        trim = Some((Base::of(&scan, node, file), file, scan.log.size(), freed));
    }
    Ok(trim.map(|(base, file, records, bytes)| Trim { base, file, records, bytes }))
}

/// Reads on to the end of file `number`.
fn read_file(lines: &mut Lines, number: u32, scan: &mut Scan, node: &NodeId) -> Result<(), NotTrimmed> {
    loop {
        let n = scan.log.size();
        match lines.next()? {
            Read::Line(place) => {
                scan.take(lines.line(), node).map_err(|what| NotTrimmed::Damaged { n, what })?;
                // The next file is begun only when this one is whole: its last line is followed by zeros.
                debug_assert_eq!(place.file, number);
            }
            Read::End(_) | Read::Unfinished(_) => return Ok(()),
            Read::Bad { what, .. } => return Err(NotTrimmed::Damaged { n, what: what.to_string() }),
        }
        if lines.at_end_of(number)? {
            return Ok(());
        }
    }
}

/// How many records the newest checkpoint covers, and every one of the `witnesses` that cosigned has seen.
fn vouched(directory: &Path, key: &VerifyKey, witnesses: &[WitnessVerifyKey]) -> io::Result<u64> {
    let size = |note: &str| Checkpoint::unchecked(note).map_or(0, |checkpoint| checkpoint.size);
    let newest = checkpoints::newest(directory)?.and_then(|note| key.open(&note).ok());
    let mut vouched = newest.map_or(0, |checkpoint| checkpoint.size);
    for witness in witnesses {
        match fs::read_to_string(directory.join(cosigned_file(witness))) {
            Ok(note) => vouched = vouched.min(size(&note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(vouched)
}

impl Trim {
    /// Removes the files. Call it once the log says so, durably.
    pub fn carry_out(&self, directory: &Path) -> io::Result<()> {
        self.base.keep(directory)?;
        remove_before(directory, self.file)
    }
}

/// Removes files before number `first`, the newest first: what is left never has a hole.
fn remove_before(directory: &Path, first: u32) -> io::Result<()> {
    for number in (1..first).rev() {
        match fs::remove_file(directory.join(file_name(number))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    File::open(directory)?.sync_all()
}
