#![no_main]
//! See `fuzz::kafka_log`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::kafka_log::run_producers(data));
