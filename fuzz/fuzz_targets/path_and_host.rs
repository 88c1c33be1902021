#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pointsman::fuzzing::path_and_host(bytes));
