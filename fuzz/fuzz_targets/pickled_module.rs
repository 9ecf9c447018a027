//! Fuzzes the reader of pickles, in an archive with the tensors of a small module.
#![no_main]

use libfuzzer_sys::fuzz_target;

const ARCHIVE: &[u8] = include_bytes!("../../tests/weights/module.pt");

fuzz_target!(|pickle: &[u8]| {
    if let Some(weights) = fuzz::weights(&fuzz::with_entry(ARCHIVE, "data.pkl", pickle)) {
        fuzz::check_architecture(&weights);
        let _ = formats::unsupported(&weights);
    }
});
