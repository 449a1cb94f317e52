//! What a verification found, for people and for programs.

use std::fmt;

use serde::Serialize;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub files: u32,
    /// The first record that is here; those before it were removed when the archive had them.
    #[serde(skip_serializing_if = "is_zero")]
    pub begins_at: u64,
    /// How long the log is: records from the first that is here on were checked and are whole.
    pub records: u64,
    pub recordings: u64,
    /// Recordings without an end: the connections are live, or the node stopped and has not been
    /// started since.
    pub unfinished: Vec<String>,
    /// Recordings whose opening no control record tells of (yet). Not a sign of tampering: the
    /// control record comes from the store, later.
    pub unannounced: u64,
    pub checkpoints: u64,
    /// Records that a checkpoint vouches for: those with `n` below this.
    pub covered: u64,
    /// What others kept, each with how many records it covers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_elsewhere: Vec<Kept>,
    /// Bytes at the end of a write that is under way or was torn, and that nothing vouches for.
    pub torn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<Finding>,
}

/// A checkpoint that somebody else kept, and that the log matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub source: String,
    pub records: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// The first thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: String,
    /// Byte offset in the file, where it makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Index of the first record that is not vouched for.
    pub n: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rec: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub kind: Kind,
    pub what: String,
}

/// What kind of damage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A record's bytes, or its line's, are not those that were written.
    Altered,
    Removed,
    /// A record that stands there a second time, or belongs elsewhere.
    Inserted,
    Reordered,
    /// The log ends before the records that a checkpoint vouches for.
    Truncated,
    Zeroed,
    FileMissing,
    /// The lines follow from each other, but not to what a checkpoint vouches for.
    Rewritten,
    /// A recording's records do not make a whole recording.
    BrokenRecording,
    /// A connection was opened, and there is no recording of it.
    MissingRecording,
    CheckpointMissing,
    CheckpointForged,
    /// A witness that was named has not cosigned.
    NotWitnessed,
    KeyMismatch,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.n)?;
        if let (Some(rec), Some(seq)) = (&self.rec, self.seq) {
            write!(f, " ({rec}, seq {seq})")?;
        }
        write!(f, " in `{}`", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_bad {
            None => writeln!(f, "the audit log is whole")?,
            Some(finding) => writeln!(f, "THE AUDIT LOG IS NOT WHOLE\nfirst bad: {finding}")?,
        }
        let (here, from) = (self.records.saturating_sub(self.begins_at), self.begins_at);
        writeln!(f, "checked:    {here} records in {} files", self.files)?;
        if from > 0 {
            writeln!(f, "begins at:  record {from}: those before it are not here, and were not checked")?;
        }
        writeln!(f, "vouched:    {} records, by {} checkpoints", self.covered, self.checkpoints)?;
        for Kept { source, records } in &self.kept_elsewhere {
            writeln!(f, "of them:    {records} are known elsewhere: `{source}`")?;
        }
        writeln!(f, "recordings: {}, {} without an end", self.recordings, self.unfinished.len())?;
        for recording in &self.unfinished {
            writeln!(f, "  no end:   {recording}")?;
        }
        if self.torn > 0 {
            writeln!(f, "at the end: {} bytes of an unfinished write", self.torn)?;
        }
        Ok(())
    }
}
