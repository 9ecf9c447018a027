//! Memory of the kernels: scratch buffers and outputs.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Floats in a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Debug)]
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

/// Buffers that are not in use, kept because the pages of a new one cost more time than most kernels take to fill them.
static FREE: Mutex<Vec<AlignedBuffer>> = Mutex::new(Vec::new());
/// Buffers that are kept at most.
const MAX_FREE: usize = 32;

/// A buffer of floats with any contents, which returns to a pool.
#[derive(Debug)]
pub(crate) struct ScratchBuffer(AlignedBuffer);

impl ScratchBuffer {
    /// Takes a buffer of `len` floats from the pool, or allocates one.
    pub(crate) fn new(len: usize) -> Self {
        let lines = len.div_ceil(LINE);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, unless most of it would be unused.
        let fits = |buffer: &AlignedBuffer| (lines..=4 * lines).contains(&buffer.lines.len());
        let candidates = free.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let best = candidates.min_by_key(|(_, buffer)| buffer.lines.len());
        match best.map(|(at, _)| at) {
            Some(at) => {
                let buffer = free.remove(at);
                Self(AlignedBuffer { len, ..buffer })
            }
            None => {
                drop(free);
                Self(AlignedBuffer::zeroed(len))
            }
        }
    }
}

impl Drop for ScratchBuffer {
    fn drop(&mut self) {
        let buffer = std::mem::replace(&mut self.0, AlignedBuffer::zeroed(0));
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() >= MAX_FREE {
            // The one that was not in use for the longest time.
            free.remove(0);
        }
        free.push(buffer);
    }
}

impl Deref for ScratchBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for ScratchBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}
