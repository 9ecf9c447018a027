//! Fuzzes the reader of archives of data, and of archives of arrays.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    fuzz::unpack(file);
    fuzz::open_data("arrays.npz", file);
});
