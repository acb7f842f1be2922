//! Single field values: lists, dictionaries, dates.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge::fuzzing::value(bytes));
