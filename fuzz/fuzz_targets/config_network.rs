//! The network's configuration as the journal keeps it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| config::fuzzing::network(bytes));
