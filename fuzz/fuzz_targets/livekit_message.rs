//! See `duologue_fuzz::livekit_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::livekit_message(data));
