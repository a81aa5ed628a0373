//! See `duologue_fuzz::worker_calls`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::worker_calls(data));
