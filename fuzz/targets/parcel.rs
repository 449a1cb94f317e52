#![no_main]

#[path = "../audit_entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::parcel(bytes));
