//! An archive as `audit consume` keeps it: compressed files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sallyport::audit::consume::archive::Sealing;
use sallyport::audit::consume::node::Node;
use sallyport::audit::stream::parcel::Heading;
use sallyport::audit::verify::{Kind, Report};
use tempfile::TempDir;

use super::log::{START, node};
use super::sealed::Sealed;
use super::{FILE_SIZE, Lines, assert_found};

/// How many lines go into a file of the archive.
const LINES: usize = 4;

struct Archive {
    sealed: Sealed,
    home: TempDir,
    written: Lines,
}

impl Archive {
    /// Of a log of 15 records: three compressed files of four records each, and one with the rest, which is not
    /// compressed unless `is_closed`.
    async fn of_a_log(is_closed: bool) -> Self {
        let sealed = Sealed::interleaved(FILE_SIZE).await;
        let (home, written) = (TempDir::new().unwrap(), sealed.files().concat());
        let key = sealed.key.clone();
        let mut kept = Node::open(home.path(), node(), Some(key), START).unwrap();
        let now = Sealing { bytes: 1, age: Duration::MAX };
        for lines in written.chunks(LINES) {
            kept.take("any", Heading::Lines, &lines.concat(), (START, START)).unwrap();
            kept.archive().keep().unwrap();
            if lines.len() == LINES || is_closed {
                kept.archive().seal(&now, START).unwrap();
            }
        }
        let note = fs::read(sealed.dir().join("checkpoint")).unwrap();
        kept.take("any", Heading::Checkpoint, &note, (START, START)).unwrap();
        kept.archive().keep().unwrap();
        assert!(kept.alarms().is_empty() && kept.size() == 15);
        let archive = Self { sealed, home, written };
        let report = archive.verify();
        assert!(report.is_whole() && report.covered == 15, "{report}");
        archive
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join(node().as_str())
    }

    fn verify(&self) -> Report {
        self.sealed.verify_in(&self.dir(), &[], &[])
    }

    /// Compressed files, in order.
    fn packed(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut packed: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "zst")).collect();
        packed.sort();
        packed
    }

    /// Replaces a file, looks, and puts it back.
    fn with(&self, path: &Path, bytes: &[u8]) -> Report {
        let kept = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        let report = self.verify();
        fs::write(path, kept).unwrap();
        report
    }
}

#[tokio::test]
async fn any_flipped_byte_of_a_compressed_file_is_found() {
    let archive = Archive::of_a_log(false).await;
    let packed = archive.packed();
    assert_eq!(packed.len(), 3);
    for (index, path) in packed.iter().enumerate() {
        let (whole, before) = (fs::read(path).unwrap(), index * LINES);
        let lines = zstd::decode_all(whole.as_slice()).unwrap();
        let mut harmless = 0;
        for byte in 0..whole.len() {
            for mask in [0x01, 0x80] {
                let mut flipped = whole.clone();
                flipped[byte] ^= mask;
                let report = archive.with(path, &flipped);
                let Some(found) = &report.first_bad else {
                    // A bit that only says how much memory it takes to unpack: what is in the file is all there.
                    assert_eq!(zstd::decode_all(flipped.as_slice()).unwrap(), lines, "byte {byte}: {report}");
                    harmless += 1;
                    continue;
                };
                let n = usize::try_from(found.n).unwrap();
                assert!((before..=before + LINES).contains(&n), "byte {byte} of file {}: {found}", index + 1);
            }
        }
        assert!(harmless <= 8, "{harmless} bits of {} do not matter", path.display());
    }
    assert!(archive.verify().is_whole());
}

#[tokio::test]
async fn a_compressed_file_that_is_cut_off_gone_or_stands_for_another_is_found() {
    let archive = Archive::of_a_log(true).await;
    let packed = archive.packed();
    assert_eq!(packed.len(), 4);
    for (index, path) in packed.iter().enumerate() {
        let (whole, before) = (fs::read(path).unwrap(), index * LINES);
        for cut in 0..whole.len() {
            let found = archive.with(path, &whole[..cut]).first_bad.expect("it is found");
            let n = usize::try_from(found.n).unwrap();
            assert!((before..=before + LINES).contains(&n), "file {} cut at {cut}: {found}", index + 1);
        }
        let twice = archive.with(path, &[&whole[..], &whole[..]].concat()).first_bad.expect("it is found");
        assert_eq!(twice.n, u64::try_from((before + LINES).min(15)).unwrap(), "{twice}");
        for (other, stands) in packed.iter().enumerate().filter(|(other, _)| *other != index) {
            let found = archive.with(path, &fs::read(stands).unwrap()).first_bad.expect("it is found");
            assert_eq!(found.n, before as u64, "file {} for {}: {found}", other + 1, index + 1);
        }
        fs::remove_file(path).unwrap();
        let found = archive.verify().first_bad.expect("it is found");
        // Behind the last is the file that is to be filled next.
        assert_eq!((found.n, found.kind), (before as u64, Kind::FileMissing), "{found}");
        fs::write(path, &whole).unwrap();
    }
    assert!(archive.verify().is_whole());
}

#[tokio::test]
async fn records_that_are_packed_anew_otherwise_are_named() {
    let archive = Archive::of_a_log(true).await;
    for (index, path) in archive.packed().iter().enumerate() {
        let lines = super::lines_in(&zstd::decode_all(fs::read(path).unwrap().as_slice()).unwrap());
        let before = index * LINES;
        let check = |lines: &Lines, what: &str| {
            let mut there = archive.written.clone();
            there.splice(before..before + archive.written[before..].len().min(LINES), lines.iter().cloned());
            let report = archive.with(path, &zstd::encode_all(lines.concat().as_slice(), 3).unwrap());
            assert_found(&report, &archive.written, &there, &format!("file {}: {what}", index + 1));
        };
        check(&lines, "packed anew as it was");
        for at in 0..lines.len() {
            let mut edited = lines.clone();
            let middle = edited[at].len() / 2;
            edited[at][middle] ^= 1;
            check(&edited, "edited");
            let mut removed = lines.clone();
            removed.remove(at);
            check(&removed, "removed");
            for to in 0..=lines.len() {
                let mut doubled = lines.clone();
                doubled.insert(to, lines[at].clone());
                check(&doubled, "doubled");
            }
            for other in at + 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, other);
                check(&swapped, "swapped");
            }
        }
    }
}
