//! What comes in over a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::connection(bytes));
