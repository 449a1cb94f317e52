//! The fuzzing corpus of what reads an SSH connection's bytes, and what people and certificates say, replayed with the usual compiler.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use proptest::prelude::*;

#[path = "support/corpus.rs"]
mod corpus;
#[path = "../fuzz/ssh_entries.rs"]
mod entries;

const ENTRIES: [corpus::Entry; 6] = [
    ("sftp", entries::sftp),
    ("scp", entries::scp),
    ("mask", entries::mask),
    ("certificate", entries::certificate),
    ("names", entries::names),
    ("first_packet", entries::first_packet),
];

#[test]
fn the_fuzzing_corpus_holds() {
    corpus::replay(&ENTRIES);
}

proptest! {
    #[test]
    fn bent_corpus_inputs_hold(bend in corpus::bends()) {
        corpus::bend(&ENTRIES, &bend);
    }
}
