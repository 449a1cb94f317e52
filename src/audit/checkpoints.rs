//! Reads `checkpoints.log` as a stream of notes, and the newest one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::Path;

use super::medium::{CHECKPOINTS, NEWEST_CHECKPOINT};
use super::note::{BadCheckpoint, Checkpoint, VerifyKey};

/// No note is longer, in bytes.
const LONGEST_NOTE: u64 = 64 << 10;
/// Checkpoints in buckets, followed by their sizes in digits that sort.
const OBJECT: &str = "checkpoint-";
/// Origin, size and root; then a blank line, the signatures, and a blank line between notes.
const LINES_OF_TEXT: usize = 3;

/// The notes of `checkpoints.log`, in order, up to the length that it had when it was opened.
#[derive(Debug)]
pub(super) struct Checkpoints {
    reader: Option<Take<BufReader<File>>>,
    /// How many bytes at the end are an unfinished note.
    pub(super) torn: u64,
    /// How many bytes of whole notes were read.
    pub(super) whole: u64,
}

impl Checkpoints {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let reader = match File::open(directory.join(CHECKPOINTS)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Some(BufReader::new(file).take(length))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { reader, torn: 0, whole: 0 })
    }

    /// The next note, checked with `key`. An unfinished one at the very end is counted in `torn`.
    pub(super) fn next(&mut self, key: &VerifyKey) -> io::Result<Option<Result<Checkpoint, BadCheckpoint>>> {
        let note = self.next_note(&|note| key.open(note).is_ok())?;
        Ok(note.map(|note| note.and_then(|note| key.open(&note))))
    }

    /// As [`Self::next`], whoever signed it; ends at what is no checkpoint.
    pub(super) fn next_unchecked(&mut self) -> io::Result<Option<Checkpoint>> {
        let note = self.next_note(&|note| Checkpoint::unchecked(note).is_some())?;
        Ok(note.and_then(Result::ok).and_then(|note| Checkpoint::unchecked(&note)))
    }

    fn next_note(
        &mut self,
        holds: &dyn Fn(&str) -> bool,
    ) -> io::Result<Option<Result<String, BadCheckpoint>>> {
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        let mut note = String::new();
        for index in 0.. {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LONGEST_NOTE).read_until(b'\n', &mut line)?;
            if read == 0 && note.is_empty() {
                return Ok(None);
            }
            let Ok(text) = String::from_utf8(line) else { return self.bad() };
            if !text.ends_with('\n') && reader.limit() == 0 {
                // The separator may be lacking; what looks whole must be so all the same.
                if index > LINES_OF_TEXT + 1 && !holds(&note) {
                    return self.bad();
                }
                self.torn = u64::try_from(note.len() + text.len()).unwrap_or(u64::MAX);
                return Ok(None);
            }
            let too_long = u64::try_from(note.len()).unwrap_or(u64::MAX) > LONGEST_NOTE;
            let blank = text == "\n";
            if too_long || (index <= LINES_OF_TEXT && blank != (index == LINES_OF_TEXT)) {
                return self.bad();
            }
            note.push_str(&text);
            if blank && index > LINES_OF_TEXT {
                break;
            }
        }
        self.whole = self.whole.saturating_add(u64::try_from(note.len()).unwrap_or(u64::MAX));
        note.pop();
        Ok(Some(Ok(note)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what `next` returns")]
    fn bad(&mut self) -> io::Result<Option<Result<String, BadCheckpoint>>> {
        self.reader = None;
        Ok(Some(Err(BadCheckpoint::Malformed)))
    }
}

/// The newest checkpoint, as text. A copy of an archive's objects has it by the number of records that it covers.
pub(super) fn newest(directory: &Path) -> io::Result<Option<String>> {
    match File::open(directory.join(NEWEST_CHECKPOINT)) {
        Ok(file) => read_note(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(objects(directory)?.pop().map(|(_, note)| note))
        }
        Err(error) => Err(error),
    }
}

/// The checkpoints of a copy of an archive's objects, with their files' names, the newest last.
pub(super) fn objects(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| name.starts_with(OBJECT)).map(str::to_owned));
    }
    names.sort();
    let read = |name: String| Ok((name.clone(), read_note(File::open(directory.join(name))?)?));
    names.into_iter().map(read).collect()
}

/// What a checkpoint over `size` records is called in a bucket.
pub(super) fn object_name(size: u64) -> String {
    format!("{OBJECT}{size:020}")
}

/// A file that holds one note. What is not text becomes a note that no key opens.
pub(super) fn read_note(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST_NOTE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_default())
}
