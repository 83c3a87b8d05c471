#![no_main]
//! See `fuzz::nfs_directory`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::nfs_directory::run(data));
