#![no_main]
//! See `fuzz::metadata_snapshot`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::metadata_snapshot::run(data));
