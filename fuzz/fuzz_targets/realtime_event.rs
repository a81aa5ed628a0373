//! See `duologue_fuzz::realtime_event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::realtime_event(data));
