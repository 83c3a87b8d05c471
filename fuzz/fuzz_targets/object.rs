#![no_main]
//! See `fuzz::object`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::object::run(data));
