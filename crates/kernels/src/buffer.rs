//! Working memory of the kernels.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// Floats of one cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// `len` floats that `write` writes, so that nobody has to fill them with zeros before.
///
/// # Safety
/// `write` writes all of them.
pub(crate) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut floats = Vec::with_capacity(len);
    if cfg!(test) {
        // So that one that is left out is seen.
        floats.resize(len, f32::NAN);
        floats.clear();
    }
    write(&mut floats.spare_capacity_mut()[..len]);
    // SAFETY: there is room for them, and they are written, as the caller promises.
    unsafe { floats.set_len(len) };
    floats
}

/// Floats, zeros to begin with, aligned to cache lines, so that no vector crosses one.
#[derive(Clone)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    pub(crate) fn zeroed(len: usize) -> Self {
        Self {
            lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)],
            len,
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are at least `len` floats without padding between them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
