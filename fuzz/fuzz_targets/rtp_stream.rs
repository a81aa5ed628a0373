//! See `duologue_fuzz::rtp_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::rtp_stream(data));
