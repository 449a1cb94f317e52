//! The fuzzing corpus of what reads an SSH connection's bytes, and what people and certificates say, replayed with the usual compiler.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use proptest::prelude::*;

#[path = "../fuzz/ssh_entries.rs"]
mod entries;

type Entry = (&'static str, fn(&[u8]));
const ENTRIES: [Entry; 6] = [
    ("sftp", entries::sftp),
    ("scp", entries::scp),
    ("mask", entries::mask),
    ("certificate", entries::certificate),
    ("names", entries::names),
    ("first_packet", entries::first_packet),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_fuzzing_corpus_holds() {
    for (name, entry) in ENTRIES {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "the corpus of {name} is empty");
        for bytes in corpus {
            // Every prefix too: what is cut off anywhere must hold as well.
            (0..=bytes.len()).for_each(|end| entry(&bytes[..end]));
        }
    }
}

proptest! {
    #[test]
    fn bent_corpus_inputs_hold(
        input in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        more in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        for (name, entry) in ENTRIES {
            let mut corpus = corpus(name);
            corpus.sort_unstable();
            let mut bytes = input.get(&corpus).clone();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            bytes.extend(&more);
            entry(&bytes);
        }
    }
}
