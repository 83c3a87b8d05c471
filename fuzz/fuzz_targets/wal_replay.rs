#![no_main]
//! See `fuzz::wal_replay`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::wal_replay::run(data));
