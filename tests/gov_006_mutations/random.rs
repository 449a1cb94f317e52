//! Random logs, and random things done to their files.

use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::lines_in;
use super::sealed::{Image, Scribe, Sealed, Step};

/// What is done to the bytes of the journal's files.
#[derive(Debug, Clone)]
enum Mutation {
    /// Other bits in a byte.
    Flip(Index, u8),
    /// Bytes of one place written over those of another.
    Copy {
        from: Index,
        to: Index,
        length: usize,
    },
    Fill {
        at: Index,
        length: usize,
        byte: u8,
    },
    Cut(Index),
    /// Lines that are not there any more.
    Remove {
        first: Index,
        count: usize,
    },
    /// Lines that also stand elsewhere.
    Again {
        first: Index,
        count: usize,
        before: Index,
    },
    Swap(Index, Index),
    SwapFiles(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 1_u8..).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        (index(), index(), 1_usize..2000).prop_map(|(from, to, length)| Mutation::Copy { from, to, length }),
        (index(), 1_usize..2000, prop_oneof![Just(0), Just(b'\n'), any::<u8>()])
            .prop_map(|(at, length, byte)| Mutation::Fill { at, length, byte }),
        index().prop_map(Mutation::Cut),
        (index(), 1_usize..5).prop_map(|(first, count)| Mutation::Remove { first, count }),
        (index(), 1_usize..5, index()).prop_map(|(first, count, before)| Mutation::Again {
            first,
            count,
            before
        }),
        (index(), index()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        (index(), index()).prop_map(|(one, other)| Mutation::SwapFiles(one, other)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![8 => (1_u8..5).prop_map(Step::Turn), 1 => Just(Step::Checkpoint)]
}

/// Where data is: file and byte, of all bytes up to a little behind each file's last line.
fn place(files: &[(PathBuf, Vec<u8>)], index: Index) -> (usize, usize) {
    let used = |bytes: &[u8]| (lines_in(bytes).concat().len() + 8).min(bytes.len());
    let mut at = index.index(files.iter().map(|(_, bytes)| used(bytes)).sum::<usize>().max(1));
    for (file, (_, bytes)) in files.iter().enumerate() {
        if at < used(bytes) {
            return (file, at);
        }
        at -= used(bytes);
    }
    unreachable!("the index is within the sum")
}

/// Replaces a file's lines; what it has allocated stays.
fn set_lines(bytes: &mut Vec<u8>, lines: &[Vec<u8>]) {
    let size = bytes.len();
    *bytes = lines.concat();
    bytes.resize(bytes.len().max(size), 0);
}

fn mutate(files: &mut [(PathBuf, Vec<u8>)], mutation: &Mutation) {
    let count = files.len();
    match *mutation {
        Mutation::Flip(at, mask) => {
            let (file, at) = place(files, at);
            files[file].1[at] ^= mask;
        }
        Mutation::Copy { from, to, length } => {
            let ((from, start), (to, at)) = (place(files, from), place(files, to));
            let source = files[from].1[start..].to_vec();
            let target = &mut files[to].1[at..];
            let length = length.min(source.len()).min(target.len());
            target[..length].copy_from_slice(&source[..length]);
        }
        Mutation::Fill { at, length, byte } => {
            let (file, at) = place(files, at);
            let target = &mut files[file].1[at..];
            let length = length.min(target.len());
            target[..length].fill(byte);
        }
        Mutation::Cut(at) => {
            let (file, at) = place(files, at);
            files[file].1.truncate(at);
        }
        Mutation::Remove { first, count } => {
            let (file, _) = place(files, first);
            let mut lines = lines_in(&files[file].1);
            let first = first.index(lines.len());
            lines.drain(first..(first + count).min(lines.len()));
            set_lines(&mut files[file].1, &lines);
        }
        Mutation::Again { first, count, before } => {
            let ((from, _), (to, _)) = (place(files, first), place(files, before));
            let source = lines_in(&files[from].1);
            let first = first.index(source.len());
            let again = source[first..(first + count).min(source.len())].to_vec();
            let mut lines = lines_in(&files[to].1);
            let before = before.index(lines.len() + 1);
            lines.splice(before..before, again);
            set_lines(&mut files[to].1, &lines);
        }
        Mutation::Swap(one, other) => {
            let ((one_file, _), (other_file, _)) = (place(files, one), place(files, other));
            let (mut first, mut second) = (lines_in(&files[one_file].1), lines_in(&files[other_file].1));
            let (one, other) = (one.index(first.len()), other.index(second.len()));
            if one_file == other_file {
                first.swap(one, other);
            } else {
                std::mem::swap(&mut first[one], &mut second[other]);
                set_lines(&mut files[other_file].1, &second);
            }
            set_lines(&mut files[one_file].1, &first);
        }
        Mutation::SwapFiles(one, other) => {
            let (one, other) = (one.index(count), other.index(count));
            let kept = files[one].1.clone();
            files[one].1 = std::mem::replace(&mut files[other].1, kept);
        }
    }
}

fn journal(image: &Image) -> Vec<(PathBuf, Vec<u8>)> {
    let is_journal = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("journal-");
    image
        .iter()
        .filter(|(path, _)| is_journal(path))
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .collect()
}

/// Whether what the verification says of the mutated files is true.
fn judge(sealed: &Sealed, image: &Image, mutation: &Mutation) -> Result<(), TestCaseError> {
    let written: Vec<_> = sealed.files().concat();
    let mut files = journal(image);
    mutate(&mut files, mutation);
    for (path, bytes) in &files {
        fs::write(path, bytes).unwrap();
    }
    let report = sealed.verify();
    let there: Vec<_> = files.iter().flat_map(|(_, bytes)| lines_in(bytes)).collect();
    let same = written.iter().zip(&there).take_while(|(written, there)| written == there).count();
    if same < written.len() {
        let found = report.first_bad.as_ref();
        prop_assert_eq!(found.map(|found| found.n), Some(same as u64), "{}", report);
    } else if there.len() == written.len() {
        prop_assert!(report.is_whole(), "accused although nothing is wrong: {report}");
    } else {
        // Something stands behind all that was written: never taken for a record.
        prop_assert!(report.first_bad.is_some() || report.torn > 0, "{report}");
        prop_assert_eq!(report.records, written.len() as u64, "{}", report);
    }
    sealed.restore(image);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_done_to_a_log_is_found_and_an_honest_log_is_never_accused(
        steps in vec(step(), 1..40),
        file_size in prop_oneof![Just(2_u64 << 10), Just(5 << 10), Just(64 << 10)],
        mutations in vec(mutation(), 24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sealed = runtime.block_on(Sealed::tell(&steps, file_size));
        let report = sealed.verify();
        prop_assert!(report.is_whole() && report.covered == report.records, "{report}");
        prop_assert_eq!((report.unfinished.len(), report.torn), (0, 0));
        let image = sealed.image();
        if report.records > 0 {
            for mutation in &mutations {
                judge(&sealed, &image, mutation)?;
            }
        }
        prop_assert_eq!(sealed.verify(), report);
    }

    #[test]
    fn an_honest_log_is_not_accused_while_it_is_written_nor_after_a_crash_at_any_moment(
        lives in vec(vec(step(), 1..12), 1..4),
        file_size in prop_oneof![Just(2_u64 << 10), Just(5 << 10), Just(64 << 10)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut sealed = Sealed::empty();
            for (life, steps) in lives.iter().enumerate() {
                let mut scribe = Scribe::new(sealed.open(file_size).unwrap(), life);
                for step in steps {
                    scribe.write(&[*step]).await;
                    prop_assert!(sealed.verify().is_whole(), "{}", sealed.verify());
                }
                // What a crash leaves, which the next life begins with.
                let crashed = sealed.copy(TempDir::new().unwrap());
                drop(scribe);
                prop_assert!(crashed.verify().is_whole(), "{}", crashed.verify());
                sealed = crashed;
            }
            sealed.open(file_size).unwrap().close().await.unwrap();
            let report = sealed.verify();
            prop_assert!(report.is_whole() && report.unfinished.is_empty(), "{report}");
            prop_assert_eq!(report.covered, report.records);
            Ok(())
        })?;
    }
}
