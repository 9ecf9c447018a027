//! Limits on memory, since the sizes that a file states may be wrong.

use crate::tensor::{Dtype, byte_len};

/// Largest accepted file, in bytes.
pub const MAX_BYTES: u64 = 2 << 30;

/// Number of bytes that the remaining tensors of a file may take. Many tensors can refer to the same few bytes
/// of a file.
#[derive(Debug)]
pub(crate) struct MemoryBudget(usize);

impl MemoryBudget {
    /// Returns the budget for a file of `bytes` bytes: twice its size, because layers may share weights.
    pub(crate) fn for_file(bytes: usize) -> Self {
        Self(bytes.saturating_mul(2))
    }

    /// Deducts the bytes of a tensor.
    ///
    /// # Errors
    /// Returns an error if the tensor exceeds the budget.
    pub(crate) fn deduct(&mut self, shape: &[usize], dtype: Dtype) -> Result<(), &'static str> {
        let left = byte_len(shape, dtype).and_then(|bytes| self.0.checked_sub(bytes));
        self.0 = left.ok_or("the tensors are more than twice as large as the file")?;
        Ok(())
    }
}
