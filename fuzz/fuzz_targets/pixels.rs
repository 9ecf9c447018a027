//! Fuzzes the parser of images in requests: lists of pixels in JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| trainer::fuzzing::pixels(json));
