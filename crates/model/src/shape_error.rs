//! The reasons why a description gives no valid network.

/// Largest accepted number of channels, outputs, classes, rows or columns.
pub const MAX_SIZE: usize = 65_536;
/// Largest accepted height and width of a kernel or a pooling window.
pub const MAX_KERNEL: usize = 31;
/// Largest accepted number of parameters: 1 GiB in 32 bits.
pub(crate) const MAX_PARAMETERS: usize = 1 << 28;

/// The reason why a description gives no valid network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A setting is out of range.
    #[error("{key} = {value}: expected {expected}")]
    OutOfRange {
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// Accepted values.
        expected: String,
    },
    /// Two settings of a block contradict each other.
    #[error("{key}: {message}")]
    Conflict {
        /// Key of the block.
        key: String,
        /// The contradiction.
        message: String,
    },
    /// A residual group has no blocks.
    #[error("{0}.residual = []: expected at least one block")]
    EmptyGroup(String),
    /// The input of a residual group cannot be added to its output.
    #[error(
        "{key}: the residual group turns {input:?} into {output:?}, and no 1x1 convolution with a stride does the \
         same: the shapes cannot be added"
    )]
    NotAddable {
        /// Key of the group.
        key: String,
        /// Shape of its input, `[channels, height, width]`.
        input: [usize; 3],
        /// Shape of its output.
        output: [usize; 3],
    },
    /// The network has too many parameters.
    #[error(
        "the network has more than {MAX_PARAMETERS} parameters: use fewer channels or outputs, or more pools"
    )]
    TooManyParameters,
    /// A kernel is larger than its padded input.
    #[error(
        "{key} ({layer}): the {kernel}x{kernel} kernel is larger than its {height}x{width} input with padding \
         {padding}: use fewer pools, a smaller kernel or more padding"
    )]
    KernelTooLarge {
        /// Key of the block.
        key: String,
        /// Name of the layer.
        layer: String,
        /// Height and width of the kernel.
        kernel: usize,
        /// Zero padding on each side.
        padding: usize,
        /// Height of the input.
        height: usize,
        /// Width of the input.
        width: usize,
    },
    /// The input of a pool is smaller than its window.
    #[error(
        "{key} ({layer}): the {size}x{size} pool is larger than its {height}x{width} input: use fewer pools"
    )]
    PoolTooLarge {
        /// Key of the block.
        key: String,
        /// Name of the layer.
        layer: String,
        /// Height and width of the window.
        size: usize,
        /// Height of the input.
        height: usize,
        /// Width of the input.
        width: usize,
    },
}

/// Checks that a number is from 1 to `max`.
pub(crate) fn check_range(key: &str, value: usize, max: usize) -> Result<(), ShapeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(ShapeError::OutOfRange {
        key: key.into(),
        value: value.to_string(),
        expected: format!("1 to {max}"),
    })
}

/// Checks that a number is a probability below 1.
pub(crate) fn check_fraction(key: &str, value: f64) -> Result<(), ShapeError> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(ShapeError::OutOfRange {
        key: key.into(),
        value: value.to_string(),
        expected: "a probability from 0 up to but not including 1".into(),
    })
}
