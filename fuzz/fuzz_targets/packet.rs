//! DNS packets, through all of the answering.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dns::fuzzing::packet(bytes));
