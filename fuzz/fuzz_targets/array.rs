//! Fuzzes the readers of arrays of NumPy, as images, as labels and in a pickle.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    fuzz::open_data("x_train.npy", file);
    fuzz::open_data("y_train.npy", file);
    fuzz::open_data("arrays.pkl", file);
});
