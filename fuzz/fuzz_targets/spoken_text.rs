//! See `duologue_fuzz::spoken_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::spoken_text(data));
