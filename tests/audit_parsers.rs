//! The fuzzing corpus of the audit log's formats, replayed with the usual compiler.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use proptest::prelude::*;

#[path = "support/corpus.rs"]
mod corpus;
#[path = "../fuzz/audit_entries.rs"]
mod entries;

const ENTRIES: [corpus::Entry; 3] =
    [("bundle", entries::bundle), ("parcel", entries::parcel), ("witness", entries::witness)];

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
