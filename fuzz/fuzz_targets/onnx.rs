//! Fuzzes the reader of ONNX graphs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Some(weights) = fuzz::weights(file) {
        fuzz::check_architecture(&weights);
    }
});
