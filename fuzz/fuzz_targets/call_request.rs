//! See `duologue_fuzz::call_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::call_request(data));
