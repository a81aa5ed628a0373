//! See `duologue_fuzz::policies_and_scenes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::policies_and_scenes(data));
