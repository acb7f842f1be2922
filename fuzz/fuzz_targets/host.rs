//! Authorities and patterns of hosts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::fuzzing::host(bytes));
