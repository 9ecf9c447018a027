//! The normalization that this project's exported files state.

use data::{PerChannel, Scaling};
use serde_json::Value;

use crate::chain::ChainOperation;

/// Key of the metadata.
pub(crate) const KEY: &str = "preprocessing";

/// Returns the normalization of pixels in the metadata.
pub(crate) fn scaling(preprocessing: &str) -> Option<Scaling> {
    let preprocessing: Value = serde_json::from_str(preprocessing).ok()?;
    let numbers = preprocessing.get("numbers")?;
    let number = |key: &str| serde_json::from_value::<PerChannel>(numbers.get(key)?.clone()).ok();
    let scaling = Scaling {
        mean: number("mean")?,
        std: number("std")?,
    };
    scaling.std.all(|std| std > 0.0).then_some(scaling)
}

/// Returns the normalization of pixels from 0 to 255 as a layer.
pub(crate) fn operation(scaling: Scaling) -> ChainOperation {
    let (scale, shift) = scaling.factor_and_shift();
    let offset = shift.zip(shift, |shift, _| -shift);
    ChainOperation::Rescale { scale, offset }
}
