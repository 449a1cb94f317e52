//! Replays a fuzzing corpus: whole, cut off anywhere, and with a byte changed and others behind it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

/// A folder of the corpus and what takes its files.
pub(crate) type Entry = (&'static str, fn(&[u8]));

/// Which file is bent, where, to what, and what is put behind it.
pub(crate) type Bend = (Index, Index, u8, Vec<u8>);

fn files(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    files
}

/// Every file and every prefix of it: what is cut off anywhere must hold as well.
pub(crate) fn replay(entries: &[Entry]) {
    for (name, entry) in entries {
        for bytes in files(name) {
            (0..=bytes.len()).filter_map(|end| bytes.get(..end)).for_each(entry);
        }
    }
}

pub(crate) fn bends() -> impl Strategy<Value = Bend> {
    (any::<Index>(), any::<Index>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..20))
}

pub(crate) fn bend(entries: &[Entry], (input, at, byte, more): &Bend) {
    for (name, entry) in entries {
        let corpus = files(name);
        let mut bytes = input.get(&corpus).clone();
        let index = at.index(bytes.len());
        bytes.splice(index..=index, [*byte]);
        bytes.extend(more);
        entry(&bytes);
    }
}
