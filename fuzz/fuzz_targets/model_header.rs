//! See `duologue_fuzz::model_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::model_header(data));
