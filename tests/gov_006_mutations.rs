//! GOV-006: whatever is done to a log of several recordings in several files, or to an archive of it, is found, and the
//! first record that is not as it was written is named; a log that nobody touched is never accused.
//!
//! What ought to be found is not asked of the code under test: the mutated files' lines are compared with those
//! that were written.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helpers fail by panicking"
)]

#[path = "gov_006_mutations/archive.rs"]
mod archive;
#[path = "gov_006_mutations/binary.rs"]
mod binary;
#[path = "gov_006_mutations/files.rs"]
mod files;
#[path = "gov_006_mutations/keys.rs"]
mod keys;
#[path = "support/log.rs"]
mod log;
#[path = "gov_006_mutations/random.rs"]
mod random;
#[path = "gov_006_mutations/records.rs"]
mod records;
#[path = "support/sealed.rs"]
mod sealed;

use sallyport::audit::verify::Report;
use sealed::Sealed;

/// So small that a few records fill them.
const FILE_SIZE: u64 = 3 << 10;

type Lines = Vec<Vec<u8>>;

/// Index of the first line that is not as it was written; none when all are there.
fn first_wrong(written: &Lines, there: &Lines) -> Option<u64> {
    let same = written.iter().zip(there).take_while(|(written, there)| written == there).count();
    (same < written.len()).then_some(same as u64)
}

/// What was found is what is wrong: `there` are the lines that are there now, in order.
#[track_caller]
fn assert_found(report: &Report, written: &Lines, there: &Lines, what: &str) {
    let expected = match first_wrong(written, there) {
        None if there.len() == written.len() => {
            assert!(report.is_whole(), "{what}: accused although nothing is wrong: {report}");
            return;
        }
        // All that was written is there, and something behind it.
        None => written.len() as u64,
        Some(first) => first,
    };
    let found = report.first_bad.as_ref().unwrap_or_else(|| panic!("{what}: not found: {report}"));
    assert_eq!(found.n, expected, "{what}: {found}");
}

/// The lines that bytes of a file hold: each up to its line feed, and a rest without one.
fn lines_in(bytes: &[u8]) -> Lines {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Verifies a log whose files hold these lines now, and compares.
#[track_caller]
fn check(sealed: &Sealed, written: &Lines, files: &[Lines], what: &str) {
    sealed.set_files(files);
    assert_found(&sealed.verify(), written, &files.concat(), what);
}
