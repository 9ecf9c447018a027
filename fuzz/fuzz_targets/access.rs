//! Fuzzes the access control of the server: addresses and headers of requests.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trainer::fuzzing::access(text));
