//! See `duologue_fuzz::transcription_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::transcription_request(data));
