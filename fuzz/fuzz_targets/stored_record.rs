//! See `duologue_fuzz::stored_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::stored_record(data));
