//! Fuzzes the parser of checkpoints.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trainer::fuzzing::checkpoint(bytes));
