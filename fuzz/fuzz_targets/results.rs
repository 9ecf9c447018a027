//! Fuzzes the parsers of event logs, evaluations and records of images, and the figures drawn from them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trainer::fuzzing::results(bytes));
