#![no_main]
//! See `fuzz::metadata_entry`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::metadata_entry::run(data));
