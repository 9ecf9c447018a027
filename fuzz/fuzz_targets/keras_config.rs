//! Fuzzes the reader of Keras's model configuration, in an archive with the weights of a small network.
#![no_main]

use libfuzzer_sys::fuzz_target;

const ARCHIVE: &[u8] = include_bytes!("../../tests/weights/tiny.keras");

fuzz_target!(|config: &[u8]| {
    if let Some(weights) = fuzz::weights(&fuzz::with_entry(ARCHIVE, "config.json", config)) {
        fuzz::check_architecture(&weights);
    }
});
