//! Fuzzes the parsers of values on the command line: normalizations, times and devices.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trainer::fuzzing::flags(text));
