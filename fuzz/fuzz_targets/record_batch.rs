#![no_main]
//! See `fuzz::record_batch`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::record_batch::run(data));
