//! Fuzzes the parsers of IDX files, plain and gzipped.
#![no_main]

use data::idx::{parse_images, parse_labels};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(images) = parse_images(bytes) {
        let size = images.count() * images.height * images.width;
        assert_eq!(images.pixels.len(), size);
    }
    let _ = parse_labels(bytes);
});
