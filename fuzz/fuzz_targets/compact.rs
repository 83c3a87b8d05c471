#![no_main]
//! See `fuzz::compact`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::compact::run(data));
