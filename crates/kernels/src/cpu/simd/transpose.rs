//! Transposition of matrices, in 8x8 blocks held in registers.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;
use std::mem::MaybeUninit;

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// Side of a block.
#[cfg(target_arch = "x86_64")]
const BLOCK: usize = 8;

/// Same as [`transpose_into`], for an initialized destination.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(
    simd: S,
    from: &[f32],
    from_pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
    rows: usize,
    columns: usize,
) {
    // SAFETY: both element types have the same layout, and `transpose_into` writes initialized floats only.
    let to = unsafe { &mut *(std::ptr::from_mut(to) as *mut [MaybeUninit<f32>]) };
    transpose_into(simd, from, from_pitch, to, to_pitch, rows, columns);
}

/// Transposes a row-major matrix: `to[column * to_pitch + row] = from[row * from_pitch + column]`.
///
/// Initializes all `columns` rows of `rows` elements in `to`.
#[inline(always)]
pub(crate) fn transpose_into<S: Simd>(
    _: S,
    from: &[f32],
    from_pitch: usize,
    to: &mut [MaybeUninit<f32>],
    to_pitch: usize,
    rows: usize,
    columns: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * from_pitch + columns <= from.len());
    assert!((columns - 1) * to_pitch + rows <= to.len());
    #[cfg(target_arch = "x86_64")]
    if rows >= BLOCK && columns >= BLOCK && has_avx::<S>() {
        // The last blocks overlap their neighbors, so that they end with the matrix.
        for row in (0..rows).step_by(BLOCK) {
            let row = row.min(rows - BLOCK);
            for column in (0..columns).step_by(BLOCK) {
                let column = column.min(columns - BLOCK);
                // SAFETY: the block lies within both slices by the assertions above, and the
                // instruction set includes AVX.
                unsafe {
                    avx::transpose_block(
                        from.as_ptr().add(row * from_pitch + column),
                        from_pitch,
                        to.as_mut_ptr().add(column * to_pitch + row).cast(),
                        to_pitch,
                    );
                }
            }
        }
        return;
    }
    for row in 0..rows {
        for column in 0..columns {
            to[column * to_pitch + row].write(from[row * from_pitch + column]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx<S: Simd>() -> bool {
    TypeId::of::<S>() == TypeId::of::<V4>() || TypeId::of::<S>() == TypeId::of::<V3>()
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::{
        __m256, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    use super::BLOCK;

    /// Transposes one 8x8 block.
    ///
    /// # Safety
    /// The processor must support AVX. `from` must be valid for reads, and `to` for writes, of
    /// eight rows of eight floats; rows are one pitch apart.
    #[inline]
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn transpose_block(
        from: *const f32,
        from_pitch: usize,
        to: *mut f32,
        to_pitch: usize,
    ) {
        // SAFETY: the caller guarantees that the reads are valid.
        let r: [__m256; BLOCK] =
            std::array::from_fn(|i| unsafe { _mm256_loadu_ps(from.add(i * from_pitch)) });
        // Interleaves pairs of rows, then pairs of these, then exchanges 128-bit halves.
        let p = [
            _mm256_unpacklo_ps(r[0], r[1]),
            _mm256_unpackhi_ps(r[0], r[1]),
            _mm256_unpacklo_ps(r[2], r[3]),
            _mm256_unpackhi_ps(r[2], r[3]),
            _mm256_unpacklo_ps(r[4], r[5]),
            _mm256_unpackhi_ps(r[4], r[5]),
            _mm256_unpacklo_ps(r[6], r[7]),
            _mm256_unpackhi_ps(r[6], r[7]),
        ];
        let q = [
            _mm256_shuffle_ps::<0x44>(p[0], p[2]),
            _mm256_shuffle_ps::<0xee>(p[0], p[2]),
            _mm256_shuffle_ps::<0x44>(p[1], p[3]),
            _mm256_shuffle_ps::<0xee>(p[1], p[3]),
            _mm256_shuffle_ps::<0x44>(p[4], p[6]),
            _mm256_shuffle_ps::<0xee>(p[4], p[6]),
            _mm256_shuffle_ps::<0x44>(p[5], p[7]),
            _mm256_shuffle_ps::<0xee>(p[5], p[7]),
        ];
        for i in 0..BLOCK / 2 {
            let low = _mm256_permute2f128_ps::<0x20>(q[i], q[i + 4]);
            let high = _mm256_permute2f128_ps::<0x31>(q[i], q[i + 4]);
            // SAFETY: the caller guarantees that the writes are valid.
            unsafe {
                _mm256_storeu_ps(to.add(i * to_pitch), low);
                _mm256_storeu_ps(to.add((i + 4) * to_pitch), high);
            }
        }
    }
}
