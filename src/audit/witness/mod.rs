//! A witness: somebody else's machine, which keeps the last checkpoint of each log that it knows and cosigns
//! the next when it is shown that the log has only grown. Whoever holds a log's key can write it anew, but not
//! what a witness saw (c2sp.org/tlog-witness).
//!
//! Its memory is a directory with one note for each log, written before a cosignature goes out.

mod asker;
mod follow;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;

use super::merkle::is_consistent;
use super::note::{Checkpoint, VerifyKey, origin};
use crate::crypto::Hash;
use crate::crypto::cosign::{WitnessKey, text_and_signatures};
pub use asker::{ADD_CHECKPOINT, Asker, NotCosigned, SIZE_TYPE, cosigned_file};

/// A proof has no more hashes than a size has bits, twice.
const LONGEST_PROOF: usize = 128;

/// What a log asks of a witness: to cosign `note`, of a log that had `old` records when the witness last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub old: u64,
    pub proof: Vec<Hash>,
    pub note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a request to a witness: expected `old SIZE`, a proof, an empty line and a checkpoint")]
pub struct MalformedRequest;

impl Asked {
    /// As it is sent.
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            text.push_str(&BASE64.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Reads what was sent. Never panics, whatever it is given.
    pub fn parse(text: &str) -> Result<Self, MalformedRequest> {
        let (head, note) = text.split_once("\n\n").ok_or(MalformedRequest)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(MalformedRequest)?;
        let size: u64 = old.parse().map_err(|_| MalformedRequest)?;
        let hash = |line: &str| Hash::try_from(BASE64.decode(line.as_bytes()).ok()?).ok();
        let proof: Option<Vec<Hash>> = lines.take(LONGEST_PROOF + 1).map(hash).collect();
        match proof {
            Some(proof) if proof.len() <= LONGEST_PROOF && size.to_string() == old => {
                Ok(Self { old: size, proof, note: note.to_owned() })
            }
            _ => Err(MalformedRequest),
        }
    }
}

/// Why a witness does not cosign.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    #[error("no log of this name is witnessed here")]
    UnknownLog,
    #[error("the checkpoint does not hold: {0}")]
    BadCheckpoint(#[from] super::note::BadCheckpoint),
    /// The log begins its proof elsewhere: it may ask again, from here.
    #[error("the last checkpoint of this log that was seen here is over {size} records")]
    OtherSize { size: u64 },
    /// The log is not the one that was seen: it was rewritten, or has two sides.
    #[error(
        "the log is not a continuation of the one that was seen here: {size} records then had another root, or \
         the proof does not show that they are its beginning"
    )]
    Inconsistent { size: u64 },
    #[error("cannot keep what was seen")]
    Store(#[source] io::Error),
}

/// Keeps what it saw in a directory.
#[derive(Debug)]
pub struct Witness {
    directory: PathBuf,
    key: WitnessKey,
    logs: Vec<VerifyKey>,
}

impl Witness {
    /// Of the logs of these keys. Makes the directory where there is none.
    pub fn open(directory: &Path, key: WitnessKey, logs: Vec<VerifyKey>) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned(), key, logs })
    }

    /// Checks what a log asks, keeps its checkpoint, and gives the cosignature's line. `seconds` since 1970
    /// is now. Not to be called twice at a time.
    pub fn add(&mut self, request: &str, seconds: u64) -> Result<String, Refused> {
        let asked = Asked::parse(request)?;
        let name = asked.note.split('\n').next().unwrap_or_default();
        let log = self.logs.iter().find(|log| origin(log.node()) == name).ok_or(Refused::UnknownLog)?;
        let new = log.open(&asked.note)?;
        let seen = self.seen(log).map_err(Refused::Store)?;
        let old = seen.map_or(0, |seen| seen.size);
        if asked.old != old || new.size < old {
            return Err(Refused::OtherSize { size: old });
        }
        // Of a log that was never seen, the first checkpoint is taken as it is.
        let consistent = match seen {
            None => asked.proof.is_empty(),
            Some(seen) => is_consistent((seen.size, seen.root), (new.size, new.root), &asked.proof),
        };
        if !consistent {
            return Err(Refused::Inconsistent { size: old });
        }
        let (text, _) = text_and_signatures(&asked.note).ok_or(MalformedRequest)?;
        self.keep(log, &asked.note).map_err(Refused::Store)?;
        Ok(self.key.cosign(&text, seconds))
    }

    /// The last checkpoint of a log, `None` before the first. One that does not hold is an error: what was seen
    /// must not be forgotten.
    fn seen(&self, log: &VerifyKey) -> io::Result<Option<Checkpoint>> {
        match fs::read_to_string(self.path(log)) {
            Ok(note) => {
                log.open(&note).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, log: &VerifyKey) -> PathBuf {
        self.directory.join(log.node().as_str())
    }

    /// Durable on return.
    fn keep(&self, log: &VerifyKey, note: &str) -> io::Result<()> {
        let path = self.path(log);
        let aside = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}
