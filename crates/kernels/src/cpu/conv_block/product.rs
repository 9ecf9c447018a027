//! Products of small matrices, with all sums in registers.

use pulp::Simd;

use crate::cpu::simd::{load, mul_add, store};

/// Vectors of columns in a register tile.
pub(super) const VECTORS: usize = 2;

/// Rows of a register tile, at most: leaves registers for one row of the right matrix and one element of the left one.
pub(super) const fn max_rows(registers: usize) -> usize {
    if registers >= 32 { MAX_ROWS } else { 6 }
}
pub(super) const MAX_ROWS: usize = 14;

/// Evaluates `$call` with the constant `$R` equal to `$rows`, which is 1 to [`max_rows`] of the registers of `$S`.
macro_rules! dispatch_rows {
    ($S:ty, $rows:expr, $R:ident => $call:expr) => {
        if const { max_rows(<$S>::REGISTER_COUNT) == MAX_ROWS } {
            dispatch_rows!(@match $rows, $R, $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        } else {
            dispatch_rows!(@match $rows, $R, $call, 1 2 3 4 5 6)
        }
    };
    (@match $rows:expr, $R:ident, $call:expr, $($r:literal)+) => {
        match $rows {
            $($r => {
                const $R: usize = $r;
                $call
            })+
            _ => unreachable!("a register tile has at most max_rows rows"),
        }
    };
}
pub(super) use dispatch_rows;

/// A product `left * right`. The left matrix is read element by element, the right one in vectors.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Number of terms of each sum: columns of the left matrix, rows of the right one.
    pub(super) depth: usize,
    /// Floats from one row of the left matrix to the next.
    pub(super) left_row: usize,
    /// Floats from one column of the left matrix to the next.
    pub(super) left_column: usize,
    /// Floats from one row of the right matrix to the next.
    pub(super) right_row: usize,
    /// Floats from one row of the sums to the next.
    pub(super) sums_row: usize,
    /// Whether to add to the sums instead of replacing them.
    pub(super) add: bool,
}

impl Product {
    /// Computes `rows` rows of `V` vectors.
    ///
    /// # Safety
    /// The pointers must be valid for the matrices that the fields describe, `left` and `right` for reads, `sums` for
    /// writes, and for reads if `add`. `rows` must be 1 to [`max_rows`].
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd, const V: usize>(
        &self,
        simd: S,
        rows: usize,
        left: *const f32,
        right: *const f32,
        sums: *mut f32,
    ) {
        dispatch_rows!(S, rows, R => {
            // SAFETY: the caller guarantees that the matrices have this size.
            unsafe { self.tile::<S, R, V>(simd, left, right, sums) }
        });
    }

    /// Computes `R` rows.
    ///
    /// # Safety
    /// As of [`run`](Self::run).
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        left: *const f32,
        right: *const f32,
        sums: *mut f32,
    ) {
        // SAFETY: the offsets stay within the matrices.
        unsafe {
            let mut acc = [[simd.splat_f32s(0.0); V]; R];
            if self.add {
                for (r, acc) in acc.iter_mut().enumerate() {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = load(simd, sums.add(r * self.sums_row + v * S::F32_LANES));
                    }
                }
            }
            let mut left = left;
            let mut right = right;
            for _ in 0..self.depth {
                let mut row = [simd.splat_f32s(0.0); V];
                for (v, row) in row.iter_mut().enumerate() {
                    *row = load(simd, right.add(v * S::F32_LANES));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let element = simd.splat_f32s(*left.add(r * self.left_row));
                    for (acc, &row) in acc.iter_mut().zip(&row) {
                        *acc = mul_add(simd, element, row, *acc);
                    }
                }
                left = left.add(self.left_column);
                right = right.add(self.right_row);
            }
            for (r, acc) in acc.iter().enumerate() {
                for (v, &acc) in acc.iter().enumerate() {
                    store(simd, sums.add(r * self.sums_row + v * S::F32_LANES), acc);
                }
            }
        }
    }
}
