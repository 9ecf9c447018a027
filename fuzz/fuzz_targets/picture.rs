//! Fuzzes the decoders of pictures, and their preparation for a network.
#![no_main]

use data::{Picture, Preparation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = Picture::decode(bytes) else {
        return;
    };
    for preparation in [
        Preparation::Handwriting,
        Preparation::Object,
        Preparation::Picture,
    ] {
        for channels in [1, 3] {
            if let Ok(pixels) = preparation.prepare(&picture, [channels, 28, 28]) {
                assert_eq!(pixels.len(), channels * 28 * 28);
            }
        }
    }
});
