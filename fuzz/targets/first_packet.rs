#![no_main]

#[path = "../ssh_entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::first_packet(bytes));
