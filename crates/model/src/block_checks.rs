//! Checks of the settings of one block.

use crate::block::{BlockConfig, Initialization, Pool, PoolKind};
use crate::shape_error::{MAX_KERNEL, MAX_SIZE, ShapeError, check_fraction, check_range};

/// Checks the settings of a block, whose keys start with `key`.
pub(crate) fn check_block(key: &str, block: &BlockConfig) -> Result<(), ShapeError> {
    let field = |field: &str| format!("{key}.{field}");
    check_range(&field("channels"), block.channels, MAX_SIZE)?;
    check_range(&field("kernel"), block.kernel, MAX_KERNEL)?;
    check_range(&field("stride"), block.stride, MAX_KERNEL)?;
    check_fraction(&field("dropout"), block.dropout)?;
    check_padding(&field("padding"), block.padding, block.kernel, "the kernel")?;
    check_pool(key, block.pool)?;
    let is_max = matches!(
        block.pool,
        Pool::Windows {
            kind: PoolKind::Max,
            ..
        } | Pool::Global(PoolKind::Max)
    );
    let conflict = |message: &str| {
        Err(ShapeError::Conflict {
            key: key.into(),
            message: message.into(),
        })
    };
    if block.norm_scale && !block.norm {
        return conflict("norm_scale = true needs norm = true");
    }
    if block.norm_scale && block.pool_first && is_max {
        return conflict(
            "norm_scale = true needs pool_first = false: after max-pooling, a negative scale cannot be folded into \
             the filters",
        );
    }
    if block.initialization == Some(Initialization::Dirac) && block.kernel.is_multiple_of(2) {
        return conflict("initialization = \"dirac\" needs an odd kernel, which has a center");
    }
    Ok(())
}

/// Checks the sizes of a pooling.
pub(crate) fn check_pool(key: &str, pool: Pool) -> Result<(), ShapeError> {
    let field = |field: &str| format!("{key}.{field}");
    if let Pool::Windows {
        size,
        stride,
        padding,
        ..
    } = pool
    {
        check_range(&field("pool_size"), size, MAX_KERNEL)?;
        check_range(&field("pool_stride"), stride, MAX_KERNEL)?;
        if 2 * padding > size {
            return Err(ShapeError::OutOfRange {
                key: field("pool_padding"),
                value: padding.to_string(),
                expected: format!("0 to {}, at most half of the window", size / 2),
            });
        }
    }
    Ok(())
}

fn check_padding(key: &str, padding: usize, size: usize, of: &str) -> Result<(), ShapeError> {
    if padding < size {
        return Ok(());
    }
    Err(ShapeError::OutOfRange {
        key: key.into(),
        value: padding.to_string(),
        expected: format!("0 to {}, less than {of}", size - 1),
    })
}

/// Checks a whitening block on images of `channels`.
pub(crate) fn check_whitening(
    key: &str,
    block: &BlockConfig,
    channels: usize,
    is_first: bool,
) -> Result<(), ShapeError> {
    let conflict = |message: String| {
        Err(ShapeError::Conflict {
            key: key.into(),
            message,
        })
    };
    let filters = 2 * channels * block.kernel * block.kernel;
    if !is_first {
        return conflict("whitening = true: only the first block sees the images".into());
    }
    if block.norm {
        return conflict("whitening = true excludes norm = true".into());
    }
    if block.channels != filters {
        let kernel = block.kernel;
        return conflict(format!(
            "channels = {}: whitening of {kernel}x{kernel} patches of {channels} channels has {filters} filters",
            block.channels
        ));
    }
    Ok(())
}
