//! Fuzzes the reader of tables of pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| fuzz::open_data("table.csv", file));
