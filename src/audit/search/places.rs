//! Where records stand in the journal's files, in few bytes; and reading them there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::audit::files::Place;
use crate::audit::line::LONGEST_LINE;
use crate::audit::medium::file_name;

/// How much is read at first: records of a recording stand close to each other, or among those of many others.
const WINDOW: usize = 8 << 10;
/// Bits of an offset within a file; the number of the file stands above them.
const OFFSET_BITS: u32 = 40;

/// Places in the order of the log, each as its distance from the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    bytes: Vec<u8>,
    last: u64,
    count: usize,
}

impl Places {
    pub(super) fn push(&mut self, place: Place) {
        let number = (u64::from(place.file) << OFFSET_BITS) | place.offset;
        let mut distance = number.saturating_sub(self.last);
        while distance >= 0x80 {
            self.bytes.push(u8::try_from(distance & 0x7f).unwrap_or(0) | 0x80);
            distance >>= 7;
        }
        self.bytes.push(u8::try_from(distance).unwrap_or(0));
        self.last = number;
        self.count += 1;
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The places that [`Places::as_bytes`] stands for. Bytes that are not of that form give places where nothing is.
pub(super) fn places(bytes: &[u8]) -> impl Iterator<Item = Place> {
    let (mut number, mut distance, mut shift) = (0_u64, 0_u64, 0_u32);
    bytes.iter().filter_map(move |byte| {
        distance |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 != 0 {
            return None;
        }
        number = number.saturating_add(distance);
        (distance, shift) = (0, 0);
        let file = u32::try_from(number >> OFFSET_BITS).unwrap_or(u32::MAX);
        Some(Place { file, offset: number & ((1 << OFFSET_BITS) - 1) })
    })
}

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// A line, without its line feed.
    Line(&'a [u8]),
    /// No whole line.
    Nothing,
    /// The file is not there: somebody moved it away.
    NoFile,
}

/// Reads lines wherever they stand.
#[derive(Debug)]
pub(super) struct LineReader {
    directory: PathBuf,
    file: Option<(u32, File)>,
    /// What was read last, and where in the file it begins.
    window: Vec<u8>,
    start: u64,
}

impl LineReader {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), file: None, window: Vec::new(), start: 0 }
    }

    /// The line at `place`.
    pub(super) fn line(&mut self, place: Place) -> io::Result<Standing<'_>> {
        if self.file.as_ref().is_none_or(|(number, _)| *number != place.file) {
            let file = match File::open(self.directory.join(file_name(place.file))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::NoFile),
                opened => opened?,
            };
            self.file = Some((place.file, file));
            self.window.clear();
        }
        let mut size = WINDOW;
        loop {
            if let Some((from, to)) = self.found(place.offset) {
                return Ok(self.window.get(from..to).map_or(Standing::Nothing, Standing::Line));
            }
            if size > 8 * LONGEST_LINE || !self.read(place.offset, size)? {
                return Ok(Standing::Nothing);
            }
            size *= 8;
        }
    }

    /// Where in the window the line at `offset` is, if all of it is there.
    fn found(&self, offset: u64) -> Option<(usize, usize)> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let length = self.window.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        Some((from, from + length))
    }

    /// Whether there was anything.
    fn read(&mut self, offset: u64, size: usize) -> io::Result<bool> {
        let Some((_, file)) = &self.file else { return Ok(false) };
        self.window.resize(size, 0);
        self.start = offset;
        let mut filled = 0;
        while let Some(rest) = self.window.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX))) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.window.truncate(filled);
        Ok(filled > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_are_kept_as_they_are(mut all in proptest::collection::vec((1..9_u32, 0..1_u64 << 30), 0..50)) {
            all.sort_unstable();
            let all: Vec<Place> = all.into_iter().map(|(file, offset)| Place { file, offset }).collect();
            let mut kept = Places::default();
            for place in &all {
                kept.push(*place);
            }
            prop_assert_eq!(places(kept.as_bytes()).collect::<Vec<_>>(), all);
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            places(&bytes).count();
        }
    }

    #[test]
    fn lines_are_read_wherever_they_stand() {
        let dir = tempfile::TempDir::new().unwrap();
        let lines = ["a".repeat(10), "b".repeat(200_000), "c".to_owned(), "d".repeat(70_000), "e".to_owned()];
        std::fs::write(dir.path().join(file_name(1)), lines.join("\n") + "\nunfinished\0\0").unwrap();
        let mut reader = LineReader::new(dir.path());
        let mut offsets = vec![0];
        for line in &lines {
            offsets.push(offsets.last().unwrap() + line.len() as u64 + 1);
        }
        for index in [0, 1, 2, 3, 4, 2, 0] {
            let place = Place { file: 1, offset: offsets[index] };
            assert_eq!(reader.line(place).unwrap(), Standing::Line(lines[index].as_bytes()), "{index}");
        }
        for nowhere in [Place { file: 1, offset: offsets[5] }, Place { file: 1, offset: 1 << 30 }] {
            assert_eq!(reader.line(nowhere).unwrap(), Standing::Nothing);
        }
        assert_eq!(reader.line(Place { file: 2, offset: 0 }).unwrap(), Standing::NoFile);
    }
}
