//! See `duologue_fuzz::voicepack_metadata`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::voicepack_metadata(data));
