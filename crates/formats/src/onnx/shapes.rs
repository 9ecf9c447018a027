//! Operators on shapes, and on the dimensions of values.

use std::rc::Rc;

use crate::chain::{ChainOperation, ChannelOrder};
use crate::layout::permute;
use crate::onnx::constant::{Constant, Extent, Integers, MAX_INTEGERS};
use crate::onnx::values::{Axis, Data, Dim, Network, Value, maps};
use crate::tensor::{Dtype, Tensor};

/// Largest number of dimensions of a value, without the batch.
const MAX_RANK: usize = 6;

/// Returns the dimensions that a shape `[height, width]`, `[channels, height, width]` or `[height, width, channels]` of
/// images has.
pub(super) fn image_dims(sizes: &[usize]) -> Result<Vec<Dim>, String> {
    let dim = |axis, size| Dim { axis, size };
    match *sizes {
        [features] => Ok(vec![dim(Axis::Feature, features)]),
        [rows, columns] => Ok(vec![dim(Axis::Row, rows), dim(Axis::Column, columns)]),
        [rows, columns, channels @ (1 | 3)] if !matches!(rows, 1 | 3) => Ok(vec![
            dim(Axis::Row, rows),
            dim(Axis::Column, columns),
            dim(Axis::Channel, channels),
        ]),
        [channels, rows, columns] => Ok(maps([channels, rows, columns])),
        _ => Err(format!("images of shape {sizes:?}")),
    }
}

/// Returns the shape `[channels, height, width]` of images with these dimensions.
pub(super) fn image_shape(dims: &[Dim]) -> Option<[usize; 3]> {
    let size = |axis| dims.iter().find(|dim| dim.axis == axis).map(|dim| dim.size);
    Some([
        size(Axis::Channel).unwrap_or(1),
        size(Axis::Row)?,
        size(Axis::Column)?,
    ])
}

impl Network<'_> {
    pub(super) fn shape(&self, inputs: &[String], range: [i64; 2]) -> Result<Value, String> {
        let extents = match self.input(inputs, 0)? {
            Value::Data(data) => {
                let sizes = data.sizes().into_iter();
                let sizes = sizes.map(|size| Extent::Number(size as i64));
                [Extent::Batch].into_iter().chain(sizes).collect()
            }
            Value::Constant(constant) => {
                let sizes = constant.shape().iter();
                sizes.map(|&size| Extent::Number(size as i64)).collect()
            }
        };
        let extents: Vec<Extent> = extents;
        let [start, end] = range.map(|index| bounded(index, extents.len()));
        let extents = extents.get(start..end.max(start)).unwrap_or_default();
        Ok(integers(Integers::vector(extents.to_vec())))
    }

    pub(super) fn gather(&self, inputs: &[String], axis: i64) -> Result<Value, String> {
        let values = self.vector(inputs, 0)?;
        let Some(Value::Constant(Constant::Integers(indices))) = self.optional(inputs, 1)? else {
            return Err("indices that are not constant integers".into());
        };
        let numbers = indices.numbers().filter(|_| axis == 0);
        let numbers = numbers.ok_or("only elements of a shape can be gathered")?;
        let gathered = numbers.into_iter().map(|index| {
            let index = if index < 0 {
                index.checked_add(values.len() as i64)?
            } else {
                index
            };
            values.get(usize::try_from(index).ok()?).copied()
        });
        let gathered: Option<Vec<Extent>> = gathered.collect();
        Ok(integers(Integers {
            shape: indices.shape.clone(),
            values: gathered.ok_or("an index that does not exist")?,
        }))
    }

    pub(super) fn slice(
        &self,
        inputs: &[String],
        [starts, ends, axes, steps]: [Option<Vec<i64>>; 4],
    ) -> Result<Value, String> {
        let values = match self.input(inputs, 0)? {
            Value::Constant(Constant::Integers(integers)) => integers.clone(),
            _ => return Err("only shapes can be sliced".into()),
        };
        let rows = values.shape.first().copied().unwrap_or(1);
        let (&[start], &[end]) = (
            starts.as_deref().unwrap_or_default(),
            ends.as_deref().unwrap_or_default(),
        ) else {
            return Err("only shapes can be sliced".into());
        };
        if axes.is_some_and(|axes| axes != [0]) {
            return Err("only the first dimension of a shape can be sliced".into());
        }
        let width = values.values.len().checked_div(rows).unwrap_or(0);
        let indices: Vec<usize> = match steps.as_deref() {
            None | Some(&[1]) => (bounded(start, rows)..bounded(end, rows)).collect(),
            // Reversed, as exporters of PyTorch do for padding.
            Some(&[-1]) if bounded(start, rows) + 1 >= rows && end <= -(rows as i64) => {
                (0..rows).rev().collect()
            }
            _ => return Err("a slice with steps".into()),
        };
        let shape = [indices.len()]
            .into_iter()
            .chain(values.shape.iter().skip(1).copied());
        let rows = indices
            .iter()
            .map(|row| values.values.get(row * width..(row + 1) * width));
        let sliced: Option<Vec<&[Extent]>> = rows.collect();
        Ok(integers(Integers {
            shape: shape.collect(),
            values: sliced.ok_or("a slice that does not exist")?.concat(),
        }))
    }

    pub(super) fn concat(&self, inputs: &[String], axis: i64) -> Result<Value, String> {
        let mut joined = Vec::new();
        for index in 0..inputs.len() {
            if let Value::Data(_) = self.input(inputs, index)? {
                return Err("branches that are joined are not supported".into());
            }
            joined.extend(self.vector(inputs, index)?);
            if joined.len() > MAX_INTEGERS {
                return Err(format!("a shape of more than {MAX_INTEGERS} numbers"));
            }
        }
        match axis {
            0 => Ok(integers(Integers::vector(joined))),
            _ => Err("only vectors of integers can be joined".into()),
        }
    }

    pub(super) fn constant_of_shape(
        &self,
        inputs: &[String],
        value: Option<Constant>,
    ) -> Result<Value, String> {
        let shape = self.optional_numbers(inputs, 0)?.unwrap_or_default();
        let sizes = shape.iter().map(|&size| usize::try_from(size).ok());
        let shape: Option<Vec<usize>> = sizes.collect();
        let shape = shape.ok_or("a negative size")?;
        let count = shape
            .iter()
            .try_fold(1, |count: usize, &size| count.checked_mul(size));
        match (value, count) {
            (Some(Constant::Integers(value)), Some(count @ ..=MAX_INTEGERS)) => {
                let value = value.values.first().copied().unwrap_or(Extent::Number(0));
                let values = vec![value; count];
                Ok(integers(Integers { shape, values }))
            }
            _ => Err("only small tensors of integers are supported".into()),
        }
    }

    /// Returns an input that is a vector of integers, or a number.
    fn vector(&self, inputs: &[String], index: usize) -> Result<Vec<Extent>, String> {
        match self.input(inputs, index)? {
            Value::Constant(Constant::Integers(integers)) if integers.shape.len() <= 1 => {
                Ok(integers.values.clone())
            }
            _ => Err(format!("an input {} that is not a shape", index + 1)),
        }
    }

    pub(super) fn reshape(
        &mut self,
        inputs: &[String],
        is_zero_kept: bool,
    ) -> Result<Value, String> {
        let target = self.vector(inputs, 1)?;
        if let Value::Constant(_) = self.input(inputs, 0)? {
            let constant = self.constant(inputs, 0)?;
            let target = Integers::vector(target).numbers();
            let target = target.ok_or("a constant for each image")?;
            return self.reshape_constant(&constant, &target);
        }
        let data = self.data(inputs, 0)?;
        let sizes = self.target_sizes(&data, &target, is_zero_kept)?;
        self.with_sizes(&data, &sizes).map(Value::Data)
    }

    /// Returns the sizes of the dimensions after the batch that the target of a reshaping states.
    fn target_sizes(
        &self,
        data: &Data,
        target: &[Extent],
        is_zero_kept: bool,
    ) -> Result<Vec<usize>, String> {
        let is_batch = match target.first() {
            Some(Extent::Batch | Extent::Number(-1)) => true,
            Some(Extent::Number(0)) => !is_zero_kept,
            Some(Extent::Number(count)) => self.batch == Some(*count),
            None => false,
        };
        let is_inferred = target.first() == Some(&Extent::Number(-1));
        let all = data.sizes();
        let count = all
            .iter()
            .try_fold(1, |count: usize, size| count.checked_mul(*size));
        let count = count.ok_or("a shape that overflows")?;
        let mut sizes = Vec::new();
        let mut unknown = None;
        for (index, extent) in target.iter().skip(1).enumerate() {
            sizes.push(match extent {
                Extent::Number(0) if !is_zero_kept => all.get(index).copied().unwrap_or(0),
                Extent::Number(-1) if unknown.is_none() && !is_inferred => {
                    unknown = Some(index);
                    1
                }
                Extent::Number(size @ 1..) => usize::try_from(*size).unwrap_or(0),
                _ => 0,
            });
        }
        let known = sizes
            .iter()
            .try_fold(1, |count: usize, size| count.checked_mul(*size));
        let known = known.filter(|known| *known > 0);
        if let (Some(index), Some(known)) = (unknown, known)
            && let Some(size) = sizes.get_mut(index)
        {
            *size = count / known;
        }
        let product = sizes
            .iter()
            .try_fold(1, |count: usize, size| count.checked_mul(*size));
        match is_batch && product == Some(count) && sizes.len() <= MAX_RANK && !sizes.is_empty() {
            true => Ok(sizes),
            false => Err(format!(
                "{} in a shape that does not keep each image apart",
                data.description()
            )),
        }
    }

    /// Changes the dimensions of a value, whose elements keep their order.
    pub(super) fn with_sizes(&mut self, data: &Data, sizes: &[usize]) -> Result<Data, String> {
        let refusal = || {
            Err(format!(
                "{} in the shape {sizes:?}, which is neither that of images nor flattened",
                data.description()
            ))
        };
        if sizes == data.sizes() {
            return Ok(data.clone());
        }
        let is_larger = |dim: &&Dim| dim.size != 1;
        let larger: Vec<Dim> = data.dims.iter().filter(is_larger).copied().collect();
        if let &[features] = sizes {
            let first = [Axis::Channel, Axis::Row, Axis::Column];
            let last = [Axis::Row, Axis::Column, Axis::Channel];
            let order = match (is_ordered(&larger, first), is_ordered(&larger, last)) {
                (true, _) => ChannelOrder::First,
                (false, true) => ChannelOrder::Last,
                (false, false) => return refusal(),
            };
            let flattened = self.step(data, ChainOperation::Flatten { order })?;
            let dims = vec![Dim {
                axis: Axis::Feature,
                size: features,
            }];
            return Ok(Data { dims, ..flattened });
        }
        if data.is_image && data.has_axes(&[Axis::Feature]) {
            let dims = image_dims(sizes)?;
            self.image = image_shape(&dims);
            return Ok(Data {
                dims,
                ..data.clone()
            });
        }
        let kept = sizes.iter().filter(|size| **size != 1);
        let is_same = data.dims.len() > 1 || larger.is_empty() || larger[0].axis != Axis::Feature;
        if !is_same || !larger.iter().map(|dim| &dim.size).eq(kept) {
            return refusal();
        }
        // Dimensions of one element are interchangeable.
        let axes = [Axis::Channel, Axis::Row, Axis::Column];
        let is_free = |axis: &Axis| larger.iter().all(|dim| dim.axis != *axis);
        let mut free = axes.into_iter().filter(is_free);
        let mut larger = larger.iter();
        let dims = sizes.iter().map(|size| match size {
            1 => free.next().map(|axis| Dim { axis, size: 1 }),
            _ => larger.next().copied(),
        });
        match dims.collect::<Option<Vec<Dim>>>() {
            Some(dims) => Ok(Data {
                dims,
                ..data.clone()
            }),
            None => refusal(),
        }
    }

    pub(super) fn flatten(&mut self, inputs: &[String], axis: i64) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let rank = data.dims.len() as i64 + 1;
        if axis != 1 && axis != 1 - rank {
            return Err(format!("flattening from axis {axis}"));
        }
        let sizes = data.sizes().into_iter();
        let features = sizes
            .into_iter()
            .try_fold(1, |count: usize, size| count.checked_mul(size));
        let features = features.ok_or("a shape that overflows")?;
        self.with_sizes(&data, &[features]).map(Value::Data)
    }

    pub(super) fn squeeze(
        &mut self,
        inputs: &[String],
        axes: Option<Vec<i64>>,
    ) -> Result<Value, String> {
        if let Value::Constant(_) = self.input(inputs, 0)? {
            let constant = self.constant(inputs, 0)?;
            let rank = constant.shape().len();
            let axes = axes.map(|axes| dimensions(&axes, rank)).transpose()?;
            let sizes = constant.shape().iter().enumerate().filter(|(axis, size)| {
                axes.as_ref()
                    .map_or(**size != 1, |axes| !axes.contains(axis))
            });
            let sizes: Vec<i64> = sizes.map(|(_, size)| *size as i64).collect();
            return self.reshape_constant(&constant, &sizes);
        }
        let data = self.data(inputs, 0)?;
        let axes = axes.ok_or("the batch may be removed with other dimensions")?;
        let axes = dimensions(&axes, data.dims.len() + 1)?;
        let sizes = data.sizes();
        let is_kept = |axis: usize| !axes.contains(&(axis + 1));
        let kept = sizes.iter().enumerate().filter(|(axis, _)| is_kept(*axis));
        let kept: Vec<usize> = kept.map(|(_, size)| *size).collect();
        let is_one = sizes
            .iter()
            .enumerate()
            .all(|(axis, size)| is_kept(axis) || *size == 1);
        if axes.contains(&0) || !is_one || kept.is_empty() {
            return Err("the batch or a dimension of several elements is removed".into());
        }
        self.with_sizes(&data, &kept).map(Value::Data)
    }

    pub(super) fn unsqueeze(
        &mut self,
        inputs: &[String],
        axes: Option<Vec<i64>>,
    ) -> Result<Value, String> {
        let axes = axes.ok_or("no axes")?;
        let inserted = |sizes: Vec<usize>| -> Result<Vec<usize>, String> {
            let rank = sizes.len() + axes.len();
            let axes = dimensions(&axes, rank)?;
            let mut sizes = sizes.into_iter();
            let all = (0..rank).map(|axis| {
                if axes.contains(&axis) {
                    Some(1)
                } else {
                    sizes.next()
                }
            });
            all.collect::<Option<Vec<usize>>>()
                .ok_or_else(|| "axes that repeat".into())
        };
        if let Value::Constant(_) = self.input(inputs, 0)? {
            let constant = self.constant(inputs, 0)?;
            let sizes = inserted(constant.shape().to_vec())?;
            let sizes: Vec<i64> = sizes.into_iter().map(|size| size as i64).collect();
            return self.reshape_constant(&constant, &sizes);
        }
        let data = self.data(inputs, 0)?;
        // The batch is marked with an impossible size.
        let mut all = vec![usize::MAX];
        all.extend(data.sizes());
        match inserted(all)?.split_first() {
            Some((&usize::MAX, sizes)) if sizes.len() <= MAX_RANK => {
                let sizes = sizes.to_vec();
                self.with_sizes(&data, &sizes).map(Value::Data)
            }
            _ => Err("a dimension before the batch".into()),
        }
    }

    pub(super) fn transpose(
        &mut self,
        inputs: &[String],
        order: Option<Vec<i64>>,
    ) -> Result<Value, String> {
        if let Value::Constant(_) = self.input(inputs, 0)? {
            let constant = self.constant(inputs, 0)?;
            return self.transpose_constant(&constant, order);
        }
        let data = self.data(inputs, 0)?;
        let order = dimensions(&order.ok_or("the batch is moved")?, data.dims.len() + 1)?;
        let (Some(0), true) = (order.first(), order.len() == data.dims.len() + 1) else {
            return Err("the batch is moved".into());
        };
        let dims = order
            .iter()
            .skip(1)
            .map(|axis| data.dims.get(axis.checked_sub(1)?).copied());
        let dims: Option<Vec<Dim>> = dims.collect();
        let dims = dims.ok_or("the batch is moved")?;
        let is_permutation = data.dims.iter().all(|dim| dims.contains(dim));
        match is_permutation {
            true => Ok(Value::Data(Data { dims, ..data })),
            false => Err("an axis that repeats".into()),
        }
    }

    fn reshape_constant(&mut self, constant: &Constant, target: &[i64]) -> Result<Value, String> {
        let all = constant.shape();
        let product = |sizes: &[usize]| {
            sizes
                .iter()
                .try_fold(1, |count: usize, size| count.checked_mul(*size))
        };
        let count = product(all).ok_or("a shape that overflows")?;
        let known = target.iter().enumerate().filter(|(_, size)| **size != -1);
        let known = known.map(|(index, &size)| match size {
            0 => all.get(index).copied(),
            size => usize::try_from(size).ok(),
        });
        let known: Option<Vec<usize>> = known.collect();
        let known = known
            .and_then(|known| product(&known))
            .ok_or("a negative size")?;
        let shape: Vec<usize> = target
            .iter()
            .enumerate()
            .map(|(index, &size)| match size {
                -1 => count.checked_div(known).unwrap_or(0),
                0 => all.get(index).copied().unwrap_or(0),
                size => usize::try_from(size).unwrap_or(0),
            })
            .collect();
        if product(&shape) != Some(count) || shape.len() > MAX_RANK {
            return Err(format!(
                "a constant of shape {all:?} in the shape {target:?}"
            ));
        }
        Ok(Value::Constant(match constant {
            Constant::Integers(integers) => Constant::Integers(Integers {
                shape,
                values: integers.values.clone(),
            }),
            Constant::Tensor(tensor) => {
                self.budget.deduct(&tensor.shape, tensor.dtype)?;
                Constant::Tensor(Rc::new(Tensor {
                    shape,
                    dtype: tensor.dtype,
                    bytes: tensor.bytes.clone(),
                }))
            }
        }))
    }

    fn transpose_constant(
        &mut self,
        constant: &Constant,
        order: Option<Vec<i64>>,
    ) -> Result<Value, String> {
        let rank = constant.shape().len();
        let reversed = || (0..rank as i64).rev().collect();
        let order = dimensions(&order.unwrap_or_else(reversed), rank)?;
        let refusal = || {
            format!(
                "a constant of shape {:?} with the axes {order:?}",
                constant.shape()
            )
        };
        match constant {
            Constant::Integers(integers) => match (integers.shape.as_slice(), order.as_slice()) {
                (&[rows, columns], [1, 0]) => {
                    let index = |at: usize| at % rows * columns + at / rows;
                    let values =
                        (0..rows * columns).map(|at| integers.values.get(index(at)).copied());
                    let values: Option<Vec<Extent>> = values.collect();
                    Ok(self::integers(Integers {
                        shape: vec![columns, rows],
                        values: values.ok_or_else(refusal)?,
                    }))
                }
                _ => Err(refusal()),
            },
            Constant::Tensor(tensor) => {
                self.budget.deduct(&tensor.shape, Dtype::F32)?;
                let values = tensor.values().ok_or("a constant that is not numbers")?;
                let (shape, values) = match (tensor.shape.as_slice(), order.as_slice()) {
                    (&[a, b], [1, 0]) => (vec![b, a], permute(&values, [a, b], [1, 0])),
                    (&[a, b, c, d], &[e, f, g, h]) if is_permutation([e, f, g, h]) => {
                        let shape = [e, f, g, h].map(|axis| [a, b, c, d][axis]);
                        (shape.to_vec(), permute(&values, [a, b, c, d], [e, f, g, h]))
                    }
                    _ => return Err(refusal()),
                };
                let tensor = Tensor::from_values(shape, &values);
                Ok(Value::Constant(Constant::Tensor(Rc::new(tensor))))
            }
        }
    }
}

fn integers(integers: Integers) -> Value {
    Value::Constant(Constant::Integers(integers))
}

fn is_permutation(order: [usize; 4]) -> bool {
    let mut sorted = order;
    sorted.sort_unstable();
    sorted == [0, 1, 2, 3]
}

/// Whether the axes appear in this order.
fn is_ordered(dims: &[Dim], order: [Axis; 3]) -> bool {
    let mut order = order.into_iter();
    dims.iter().all(|dim| order.any(|axis| axis == dim.axis))
}

/// Returns an index of a slice, which may be negative to count from the end.
fn bounded(index: i64, length: usize) -> usize {
    let length = length as i64;
    let index = if index < 0 {
        index.saturating_add(length)
    } else {
        index
    };
    index.clamp(0, length) as usize
}

/// Returns axes, which may be negative to count from the end.
pub(super) fn dimensions(axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let axes = axes.iter().map(|&axis| {
        let axis = if axis < 0 {
            axis.checked_add(rank as i64)?
        } else {
            axis
        };
        usize::try_from(axis).ok().filter(|axis| *axis < rank)
    });
    let axes: Option<Vec<usize>> = axes.collect();
    axes.ok_or_else(|| "an axis that does not exist".into())
}
