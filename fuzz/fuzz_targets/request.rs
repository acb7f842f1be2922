//! Heads of requests: method, target, Host and the other fields.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::request(bytes));
