//! See `duologue_fuzz::package_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::package_index(data));
