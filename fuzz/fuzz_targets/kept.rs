//! The fold that a node keeps on its disk.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // One folder per process: both files are written anew each time.
    let folder = std::env::temp_dir().join(format!("atoll-fuzz-kept-{}", std::process::id()));
    if std::fs::create_dir_all(&folder).is_ok() {
        follow::fuzzing::kept(&folder, bytes);
    }
});
