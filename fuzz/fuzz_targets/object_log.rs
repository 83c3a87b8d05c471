#![no_main]
//! See `fuzz::object_log`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::object_log::run(data));
