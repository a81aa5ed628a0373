//! See `duologue_fuzz::opus_packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::opus_packets(data));
