//! Fuzzes the parsers of run configurations and settings files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trainer::fuzzing::config(text));
