//! Header fields of a request and its response, through every rule of caching.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::response(bytes));
