#![no_main]
//! See `fuzz::metadata_head`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::metadata_head::run(data));
