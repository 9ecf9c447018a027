//! Memory of the kernels: scratch buffers and outputs.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// Floats in a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; LINE]);

/// Returns a vector of `len` floats that `init` initializes. Saves the pass over memory that fills it with zeros.
///
/// # Safety
/// `init` must initialize every element of the slice.
pub(crate) unsafe fn init_vec(len: usize, init: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut floats = Vec::with_capacity(len);
    if cfg!(test) {
        // An element that `init` leaves out fails the comparison of a test.
        floats.resize(len, f32::NAN);
        floats.clear();
    }
    init(&mut floats.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller guarantees that `init` initialized all elements.
    unsafe { floats.set_len(len) };
    floats
}

/// A buffer of floats, aligned to cache lines so that no aligned vector crosses one.
#[derive(Clone)]
pub(crate) struct AlignedBuffer {
    lines: Vec<CacheLine>,
    len: usize,
}

impl AlignedBuffer {
    pub(crate) fn zeroed(len: usize) -> Self {
        Self {
            lines: vec![CacheLine([0.0; LINE]); len.div_ceil(LINE)],
            len,
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines hold at least `len` contiguous floats.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: the lines hold at least `len` contiguous floats, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
