//! Reads a journal's files line by line, as one stream: for recovery, verification, replay and
//! tailing. Memory is one line, whatever the files hold. Files of an archive may be compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::base::first_file;
use super::line::{LONGEST_LINE, MalformedLine};
use super::medium::file_name;

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the journal file, from 1.
    pub(super) file: u32,
    /// Byte offset of the line's start in it.
    pub(super) offset: u64,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A whole line is in [`Lines::line`].
    Line(Place),
    /// Bytes that no line feed ends, followed by nothing: a write under way, or torn.
    Unfinished(Place),
    /// Not a line.
    Bad { place: Place, what: BadBytes },
    /// The end of the last file's data, where the next line would start.
    End(Place),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBytes {
    #[error("the record was overwritten with zeros")]
    Zeroed,
    #[error("the file ends inside a record")]
    Cut,
    #[error("{0}")]
    Malformed(#[from] MalformedLine),
    #[error("the file `{0}` is missing")]
    MissingFile(String),
    #[error("the file cannot be unpacked: {0}")]
    Packed(String),
}

/// The lines of all files of a journal, in order.
#[derive(Debug)]
pub(super) struct Lines {
    directory: PathBuf,
    file: u32,
    offset: u64,
    /// There was a next file before this one was read to its end.
    sealed: bool,
    /// Zeros where a line would start are the end, whatever follows: not to read an allocated but
    /// empty rest at every look.
    following: bool,
    reader: Option<Reader>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            file: first_file(directory),
            offset: 0,
            sealed: false,
            following: false,
            reader: None,
            line: Vec::new(),
        }
    }

    /// As [`Lines::open`], from the oldest file that is there: others may have been moved away.
    pub(super) fn open_at_oldest(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: oldest(directory)?, ..Self::open(directory) })
    }

    /// As [`Lines::open`], from `place` on.
    pub(super) fn open_from(directory: &Path, place: Place) -> Self {
        Self { file: place.file, offset: place.offset, ..Self::open(directory) }
    }

    /// As [`Lines::open`], for somebody who looks again and again for what is added.
    pub(super) fn follow(directory: &Path) -> Self {
        Self { following: true, ..Self::open(directory) }
    }

    /// As [`Lines::follow`], from `place` on.
    pub(super) fn follow_from(directory: &Path, place: Place) -> Self {
        Self { file: place.file, offset: place.offset, ..Self::follow(directory) }
    }

    /// Whether everything of file `number`, which is not the last, has been read.
    pub(super) fn at_end_of(&mut self, number: u32) -> io::Result<bool> {
        if self.file != number {
            return Ok(true);
        }
        match self.reader.as_mut() {
            Some(reader) => Ok(reader.fill_buf()?.first().is_none_or(|byte| *byte == 0)),
            None => Ok(false),
        }
    }

    /// Where the next line would start, in this file.
    pub(super) fn place(&self) -> Place {
        Place { file: self.file, offset: self.offset }
    }

    /// The bytes of the last line, without its line feed.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads on. After [`Read::End`] and [`Read::Unfinished`] it can be called again later and
    /// finds what was added since. [`Read::Bad`] is the end.
    pub(super) fn next(&mut self) -> io::Result<Read> {
        let mut is_fresh = false;
        loop {
            if self.reader.is_none() {
                if !self.open_file()? {
                    return self.no_file();
                }
                is_fresh = true;
            }
            let place = Place { file: self.file, offset: self.offset };
            let found = match self.read_line() {
                Err(error) if matches!(self.reader, Some(Reader::Packed { .. })) => {
                    return Ok(Read::Bad { place, what: BadBytes::Packed(error.to_string()) });
                }
                found => found?,
            };
            match found {
                Found::Line => {
                    let length = u64::try_from(self.line.len()).unwrap_or(u64::MAX);
                    self.offset = self.offset.saturating_add(length).saturating_add(1);
                    return Ok(Read::Line(place));
                }
                Found::TooLong { skipped } => {
                    self.offset = self.offset.saturating_add(skipped);
                    return Ok(Read::Bad { place, what: MalformedLine::TooLong.into() });
                }
                Found::Nothing if self.sealed => self.next_file(),
                Found::Tail if self.sealed => return Ok(Read::Bad { place, what: BadBytes::Cut }),
                // What was read ahead may be older than what there is now.
                Found::Nothing | Found::Tail if self.following && !is_fresh => self.reader = None,
                // What was written between our reading and the next file's creation is read now.
                Found::Nothing | Found::Tail if self.next_exists() => self.seal(),
                Found::Nothing => {
                    self.reader = None;
                    if newest(&self.directory)? <= Some(self.file) {
                        return Ok(Read::End(place));
                    }
                    if !self.next_exists() {
                        let what = BadBytes::MissingFile(file_name(self.file.saturating_add(1)));
                        return Ok(Read::Bad { place, what });
                    }
                    self.seal();
                }
                Found::Tail => {
                    self.reader = None;
                    return Ok(Read::Unfinished(place));
                }
                Found::Gap => return Ok(Read::Bad { place, what: BadBytes::Zeroed }),
            }
        }
    }

    /// A file is whole once there is a next one.
    fn seal(&mut self) {
        self.sealed = true;
        self.reader = None;
    }

    fn next_file(&mut self) {
        self.sealed = false;
        self.reader = None;
        self.file = self.file.saturating_add(1);
        self.offset = 0;
    }

    fn next_exists(&self) -> bool {
        let next = self.file.saturating_add(1);
        [file_name(next), packed_name(next)].iter().any(|name| self.directory.join(name).exists())
    }

    fn open_file(&mut self) -> io::Result<bool> {
        self.reader = Reader::open(&self.directory, self.file)?;
        self.seek(self.offset)?;
        Ok(self.reader.is_some())
    }

    /// Only the first file can be lacking here, as others are looked for before they are opened.
    fn no_file(&self) -> io::Result<Read> {
        let place = Place { file: self.file, offset: 0 };
        let missing = newest(&self.directory)?.is_some();
        let name = file_name(self.file);
        Ok(if missing { Read::Bad { place, what: BadBytes::MissingFile(name) } } else { Read::End(place) })
    }

    fn read_line(&mut self) -> io::Result<Found> {
        let Some(reader) = self.reader.as_mut() else { return Ok(Found::Nothing) };
        self.line.clear();
        let mut skipped: u64 = 0;
        loop {
            let available = reader.fill_buf()?;
            let first = skipped == 0 && self.line.is_empty();
            if first && available.first() == Some(&0) {
                return self.zeros();
            }
            if available.is_empty() {
                return Ok(if first { Found::Nothing } else { Found::Tail });
            }
            let end = memchr::memchr(b'\n', available);
            let piece = available.get(..end.unwrap_or(available.len())).unwrap_or(available);
            let too_long = skipped > 0 || self.line.len() + piece.len() > LONGEST_LINE;
            if too_long {
                skipped += u64::try_from(self.line.len() + piece.len()).unwrap_or(u64::MAX);
                self.line.clear();
            } else {
                self.line.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() {
                return Ok(if too_long { Found::TooLong { skipped: skipped + 1 } } else { Found::Line });
            }
            // A line that stops in zeros was torn, or is being written.
            if !too_long && self.line.last() == Some(&0) {
                return self.torn();
            }
        }
    }

    /// At a zero byte where a line would start: the data's end, unless something follows.
    fn zeros(&mut self) -> io::Result<Found> {
        if matches!(self.reader, Some(Reader::Packed { .. })) {
            return Ok(Found::Gap);
        }
        match self.after_zeros(self.offset)? {
            None => Ok(Found::Nothing),
            Some(_) if self.grew(self.offset)? => self.read_line(),
            Some(_) => Ok(Found::Gap),
        }
    }

    /// In a line that ends in zeros: unfinished when nothing but zeros follows.
    fn torn(&mut self) -> io::Result<Found> {
        if matches!(self.reader, Some(Reader::Packed { .. })) {
            return Ok(Found::Gap);
        }
        let kept = self.line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let end = self.offset.saturating_add(u64::try_from(kept).unwrap_or(u64::MAX));
        match self.after_zeros(end)? {
            None => {
                self.line.truncate(kept);
                Ok(Found::Tail)
            }
            // The writer may have gone on meanwhile.
            Some(_) if self.grew(end)? => {
                self.seek(self.offset)?;
                self.read_line()
            }
            Some(_) => Ok(Found::Gap),
        }
    }

    /// Where the first byte that is not zero stands at or after `from`, in this file.
    fn after_zeros(&mut self, from: u64) -> io::Result<Option<u64>> {
        if self.following {
            return Ok(None);
        }
        let Some(mut at) = self.data_after(from)? else { return Ok(None) };
        self.seek(at)?;
        let Some(reader) = self.reader.as_mut() else { return Ok(None) };
        loop {
            let available = reader.fill_buf()?;
            if available.is_empty() {
                return Ok(None);
            }
            if let Some(index) = first_not_zero(available) {
                return Ok(Some(at.saturating_add(u64::try_from(index).unwrap_or(u64::MAX))));
            }
            let length = available.len();
            at = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            reader.consume(length);
        }
    }

    /// Where the file may hold anything but zeros, at or after `from`: what was never written need not be read. `None`
    /// when nothing was, up to the end.
    fn data_after(&self, from: u64) -> io::Result<Option<u64>> {
        let Some(Reader::Plain(reader)) = &self.reader else { return Ok(Some(from)) };
        match rustix::fs::seek(reader.get_ref(), rustix::fs::SeekFrom::Data(from)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // Not every file system tells.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(Some(from)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the byte at `at` is no longer zero; leaves the reader there.
    fn grew(&mut self, at: u64) -> io::Result<bool> {
        self.seek(at)?;
        let Some(reader) = self.reader.as_mut() else { return Ok(false) };
        Ok(reader.fill_buf()?.first().is_some_and(|byte| *byte != 0))
    }

    fn seek(&mut self, to: u64) -> io::Result<()> {
        self.reader.as_mut().map_or(Ok(()), |reader| reader.seek(to))
    }
}

/// One file, as it is or compressed.
enum Reader {
    Plain(BufReader<File>),
    Packed { path: PathBuf, reader: Box<dyn BufRead + Send> },
}

impl Reader {
    /// The file of that number; none when there is none.
    fn open(directory: &Path, number: u32) -> io::Result<Option<Self>> {
        match File::open(directory.join(file_name(number))) {
            Ok(file) => return Ok(Some(Self::Plain(BufReader::with_capacity(64 << 10, file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let path = directory.join(packed_name(number));
        match unpack(&path) {
            Ok(reader) => Ok(Some(Self::Packed { path, reader })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes to byte `to` of the lines; what was read ahead is read anew.
    fn seek(&mut self, to: u64) -> io::Result<()> {
        match self {
            Self::Plain(reader) => reader.seek(SeekFrom::Start(to)).map(drop),
            Self::Packed { path, reader } => {
                *reader = unpack(path)?;
                io::copy(&mut reader.take(to), &mut io::sink()).map(drop)
            }
        }
    }

    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Plain(reader) => reader.fill_buf(),
            Self::Packed { reader, .. } => reader.fill_buf(),
        }
    }

    fn consume(&mut self, length: usize) {
        match self {
            Self::Plain(reader) => reader.consume(length),
            Self::Packed { reader, .. } => reader.consume(length),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Packed { .. } => "Packed",
        })
    }
}

/// Blocks at a time, which the compiler can look at many bytes at once.
fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 256;
    let is_zero = |block: &&[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
    let before = bytes.chunks(BLOCK).take_while(is_zero).map(<[u8]>::len).sum();
    let index = bytes.get(before..)?.iter().position(|byte| *byte != 0)?;
    Some(before + index)
}

fn unpack(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let decoder = zstd::Decoder::new(File::open(path)?)?;
    Ok(Box::new(BufReader::with_capacity(64 << 10, decoder)))
}

enum Found {
    Line,
    TooLong { skipped: u64 },
    Nothing,
    Tail,
    Gap,
}

/// What a compressed file's name ends in.
const PACKED: &str = ".log.zst";

pub(super) fn packed_name(number: u32) -> String {
    format!("journal-{number:08}{PACKED}")
}

/// Number of the newest journal file.
pub(super) fn newest(directory: &Path) -> io::Result<Option<u32>> {
    Ok(numbers(directory)?.into_iter().max())
}

/// Number of the oldest journal file; that of the first one, where there is none.
pub(super) fn oldest(directory: &Path) -> io::Result<u32> {
    Ok(numbers(directory)?.into_iter().min().unwrap_or(1))
}

fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            let number = name.strip_prefix("journal-")?;
            number.strip_suffix(".log").or(number.strip_suffix(PACKED))?.parse::<u32>().ok()
        });
        numbers.extend(number);
    }
    Ok(numbers)
}
