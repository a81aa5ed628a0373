//! See `duologue_fuzz::endpoint_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::endpoint_stream(data));
