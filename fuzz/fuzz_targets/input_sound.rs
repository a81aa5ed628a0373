//! See `duologue_fuzz::input_sound`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duologue_fuzz::input_sound(data));
