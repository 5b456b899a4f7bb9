//! The target `records` of the crate fuzzing, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::records(data));
