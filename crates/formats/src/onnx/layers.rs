//! Operators that are layers: convolutions, pools, dense layers, normalization, softmax.

use model::PoolKind;

use crate::batch_norm::{EPSILON, Normalization};
use crate::chain::{ChainOperation, Padding, Sides};
use crate::onnx::attributes::Attributes;
use crate::onnx::constant::Constant;
use crate::onnx::shapes::dimensions;
use crate::onnx::values::{Axis, Data, Dim, Network, Value, maps};
use crate::tensor::{Dtype, Tensor};
use crate::windows;

/// First operator set in which a softmax is over one axis, the last one by default.
const SOFTMAX_OF_ONE_AXIS: i64 = 13;

impl Network<'_> {
    pub(super) fn convolution(
        &mut self,
        inputs: &[String],
        attributes: Attributes<'_>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let [_, rows, columns] = data.maps()?;
        let weight = self.weight(inputs, 1)?;
        let bias = self.bias(inputs, 2)?;
        let &[outputs, _, height, width] = weight.shape.as_slice() else {
            return Err(format!(
                "a convolution with a weight of shape {:?}",
                weight.shape
            ));
        };
        let stride = attributes.equal("strides")?;
        let dilation = attributes.equal("dilations")?;
        let groups = attributes.int("group").unwrap_or(1);
        let extent = [height, width].map(|size| windows::dilated(size, dilation));
        let sides = padding(attributes, [rows, columns], extent, stride)?;
        let sizes = [
            windows::count(rows, extent[0], stride, [sides[0], sides[2]])?,
            windows::count(columns, extent[1], stride, [sides[1], sides[3]])?,
        ];
        let operation = ChainOperation::Convolution {
            weight,
            bias,
            stride,
            padding: padding_of(sides),
            dilation,
            groups: usize::try_from(groups).map_err(|_| format!("{groups} groups"))?,
        };
        let data = self.step(&data, operation)?;
        Ok(Value::Data(Data {
            dims: maps([outputs, sizes[0], sizes[1]]),
            ..data
        }))
    }

    pub(super) fn pool(
        &mut self,
        kind: PoolKind,
        inputs: &[String],
        attributes: Attributes<'_>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let [channels, rows, columns] = data.maps()?;
        let size = attributes.equal("kernel_shape")?;
        let stride = attributes.equal("strides")?;
        if attributes.equal("dilations")? != 1 {
            return Err("pooling with dilation".into());
        }
        let sides = padding(attributes, [rows, columns], [size; 2], stride)?;
        let counts_padding = attributes.int("count_include_pad").unwrap_or(0) != 0;
        if kind == PoolKind::Average && sides != [0; 4] && !counts_padding {
            return Err("an average over windows at the border that leaves the padding out".into());
        }
        let lengths = [
            (rows, [sides[0], sides[2]]),
            (columns, [sides[1], sides[3]]),
        ];
        let mut sizes = [0; 2];
        for (output, (length, padding)) in sizes.iter_mut().zip(lengths) {
            *output = windows::count(length, size, stride, padding)?;
            let covered = (*output - 1) * stride + size;
            if attributes.int("ceil_mode").unwrap_or(0) != 0
                && covered != length + padding[0] + padding[1]
            {
                return Err("ceil_mode, which adds windows that exceed the image".into());
            }
        }
        let operation = ChainOperation::Pool {
            kind,
            size,
            stride,
            padding: padding_of(sides),
        };
        let data = self.step(&data, operation)?;
        Ok(Value::Data(Data {
            dims: maps([channels, sizes[0], sizes[1]]),
            ..data
        }))
    }

    pub(super) fn global_pool(
        &mut self,
        kind: PoolKind,
        inputs: &[String],
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let [channels, ..] = data.maps()?;
        let data = self.step(&data, ChainOperation::GlobalPool(kind))?;
        Ok(Value::Data(Data {
            dims: maps([channels, 1, 1]),
            ..data
        }))
    }

    /// Evaluates a mean or maximum over the rows and columns of images.
    pub(super) fn reduce(
        &mut self,
        kind: PoolKind,
        inputs: &[String],
        axes: Option<Vec<i64>>,
        keeps_dimensions: bool,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let axes = dimensions(&axes.unwrap_or_default(), data.dims.len() + 1)?;
        let is_reduced = |at: usize| axes.contains(&(at + 1));
        let is_spatial = |dim: &Dim| matches!(dim.axis, Axis::Row | Axis::Column);
        let mut dims = data.dims.iter().enumerate();
        let is_global =
            data.dims.len() == 3 && dims.all(|(at, dim)| is_reduced(at) == is_spatial(dim));
        if axes.contains(&0) || !is_global {
            return Err(
                "only means and maxima over rows and columns of images are supported".into(),
            );
        }
        let result = self.step(&data, ChainOperation::GlobalPool(kind))?;
        let reduced = data.dims.into_iter().map(|dim| match is_spatial(&dim) {
            true => Dim { size: 1, ..dim },
            false => dim,
        });
        let dims = reduced
            .filter(|dim| keeps_dimensions || !is_spatial(dim))
            .collect();
        Ok(Value::Data(Data { dims, ..result }))
    }

    pub(super) fn gemm(
        &mut self,
        inputs: &[String],
        attributes: Attributes<'_>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let is_set = |name: &str| attributes.int(name).unwrap_or(0) != 0;
        if is_set("transA") {
            return Err("a transposed input".into());
        }
        let scale = |name: &str| attributes.float(name).unwrap_or(1.0);
        let (alpha, beta) = (scale("alpha"), scale("beta"));
        let weight = self.weight(inputs, 1)?;
        let weight = match is_set("transB") {
            true => weight,
            false => self.transposed(&weight)?,
        };
        let weight = multiplied(weight, alpha)?;
        let outputs = weight.shape.first().copied().unwrap_or(0);
        let bias = match self.optional_constant(inputs, 2)? {
            None => None,
            Some(bias) => Some(multiplied(self.dense_bias(&bias, outputs)?, beta)?),
        };
        self.dense(&data, weight, bias)
    }

    pub(super) fn matmul(&mut self, inputs: &[String]) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let weight = self.weight(inputs, 1)?;
        let weight = self.transposed(&weight)?;
        self.dense(&data, weight, None)
    }

    fn dense(
        &mut self,
        data: &Data,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<Value, String> {
        let &[outputs, inputs] = weight.shape.as_slice() else {
            return Err(format!(
                "a dense layer with a weight of shape {:?}",
                weight.shape
            ));
        };
        match data.dims.as_slice() {
            [features] if features.size == inputs => {}
            [_] => return Err(format!("{inputs} inputs for {}", data.description())),
            _ => return Err("a dense layer on images that are not flattened".into()),
        }
        let data = self.step(data, ChainOperation::Dense { weight, bias })?;
        let dims = vec![Dim {
            axis: Axis::Feature,
            size: outputs,
        }];
        Ok(Value::Data(Data { dims, ..data }))
    }

    /// Returns the weight `[out, in]` of a matrix `[in, out]`.
    fn transposed(&mut self, weight: &Tensor) -> Result<Tensor, String> {
        let &[inputs, outputs] = weight.shape.as_slice() else {
            return Err(format!(
                "a dense layer with a weight of shape {:?}",
                weight.shape
            ));
        };
        self.budget.deduct(&weight.shape, Dtype::F32)?;
        let values = weight.values().ok_or("weights that are not numbers")?;
        let values = crate::layout::permute(&values, [inputs, outputs], [1, 0]);
        Ok(Tensor::from_values(vec![outputs, inputs], &values))
    }

    /// Returns the bias of a convolution.
    fn bias(&mut self, inputs: &[String], index: usize) -> Result<Option<Tensor>, String> {
        match self.optional_constant(inputs, index)? {
            None => Ok(None),
            Some(_) => self.weight(inputs, index).map(Some),
        }
    }

    /// Returns the bias of a dense layer: a number, or one for each output.
    fn dense_bias(&mut self, bias: &Constant, outputs: usize) -> Result<Tensor, String> {
        let values = bias.floats()?;
        self.budget.deduct(&[outputs], Dtype::F32)?;
        let has_one_row = bias.shape().iter().rev().skip(1).all(|size| *size == 1);
        match values.as_slice() {
            &[value] => Ok(Tensor::from_values(
                vec![outputs],
                &vec![value as f32; outputs],
            )),
            values if values.len() == outputs && has_one_row => {
                let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
                Ok(Tensor::from_values(vec![outputs], &values))
            }
            _ => Err(format!(
                "a bias of shape {:?} for {outputs} outputs",
                bias.shape()
            )),
        }
    }

    pub(super) fn batch_normalization(
        &mut self,
        inputs: &[String],
        attributes: Attributes<'_>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        if data.dims.len() > 1 {
            data.maps()?;
        }
        if attributes.int("training_mode").unwrap_or(0) != 0 {
            return Err(
                "batch normalization in training mode; export the network in evaluation mode"
                    .into(),
            );
        }
        if attributes.int("spatial").unwrap_or(1) != 1 {
            return Err("batch normalization of each pixel".into());
        }
        let channels = data.channels();
        self.budget.deduct(&[channels, 2], Dtype::F64)?;
        let mut values = |index| -> Result<Vec<f32>, String> {
            let values = self.weight(inputs, index)?.values();
            values
                .filter(|values| values.len() == channels)
                .ok_or_else(|| {
                    format!(
                        "an input {} that is not one number for each of {channels} channels",
                        index + 1
                    )
                })
        };
        let (scale, shift, mean, variance) = (values(1)?, values(2)?, values(3)?, values(4)?);
        let epsilon = attributes.float("epsilon").unwrap_or(EPSILON);
        let normalization =
            Normalization::new([&mean, &variance], [Some(scale), Some(shift)], epsilon);
        let normalization = normalization.ok_or("statistics of different lengths")?;
        let operation = ChainOperation::Normalize(normalization);
        self.step(&data, operation).map(Value::Data)
    }

    /// Evaluates padding with zeros, `[begin of each dimension, end of each dimension]`.
    pub(super) fn pad(
        &mut self,
        inputs: &[String],
        mode: &str,
        pads: Option<Vec<i64>>,
        value: f64,
        axes: Option<Vec<i64>>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let rank = data.dims.len() + 1;
        let axes = match axes {
            Some(axes) => dimensions(&axes, rank)?,
            None => (0..rank).collect(),
        };
        let pads = pads.ok_or("padding that is not constant")?;
        if mode != "constant" {
            return Err(format!(
                "padding of the mode {mode}; only zeros are supported"
            ));
        }
        if value != 0.0 {
            return Err(format!("padding with {value}; only zeros are supported"));
        }
        if pads.len() != 2 * axes.len() {
            return Err(format!("padding {pads:?} for {} dimensions", axes.len()));
        }
        let mut sides: Sides = [0; 4];
        let mut dims = data.dims.clone();
        let (begins, ends) = pads.split_at(axes.len());
        for ((&axis, &begin), &end) in axes.iter().zip(begins).zip(ends) {
            if (begin, end) == (0, 0) {
                continue;
            }
            let dim = axis.checked_sub(1).and_then(|at| dims.get_mut(at));
            let place = match dim.as_ref().map(|dim| dim.axis) {
                Some(Axis::Row) => Some(0),
                Some(Axis::Column) => Some(1),
                _ => None,
            };
            let size = |pixels: i64| usize::try_from(pixels).ok().filter(|size| *size <= 1 << 16);
            let (Some(dim), Some(place), Some(begin), Some(end)) =
                (dim, place, size(begin), size(end))
            else {
                return Err(format!("padding {pads:?}, not of rows and columns"));
            };
            sides[place] = begin;
            sides[place + 2] = end;
            dim.size = dim.size.saturating_add(begin + end);
        }
        if sides == [0; 4] {
            return Ok(Value::Data(data));
        }
        let data = self.step(&data, ChainOperation::Pad(sides))?;
        Ok(Value::Data(Data { dims, ..data }))
    }

    pub(super) fn softmax(
        &mut self,
        inputs: &[String],
        axis: Option<i64>,
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let default = if self.opset < SOFTMAX_OF_ONE_AXIS {
            1
        } else {
            -1
        };
        let axis = dimensions(&[axis.unwrap_or(default)], data.dims.len() + 1)?;
        // Over the channels or features of one pixel.
        let is_pixel = data.dims.iter().skip(1).all(|dim| dim.size == 1);
        match axis == [1] && is_pixel {
            true => self.step(&data, ChainOperation::Softmax).map(Value::Data),
            false => Err(format!("a softmax over an axis of {}", data.description())),
        }
    }
}

/// Returns the padding at the top, left, bottom and right.
fn padding(
    attributes: Attributes<'_>,
    image: [usize; 2],
    size: [usize; 2],
    stride: usize,
) -> Result<Sides, String> {
    match attributes.text("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" | "" => match attributes.sizes("pads")?.as_deref() {
            None | Some([]) => Ok([0; 4]),
            Some(&[top, left, bottom, right]) => Ok([top, left, bottom, right]),
            Some(pads) => Err(format!("padding {pads:?}")),
        },
        "VALID" => Ok([0; 4]),
        "SAME_UPPER" => Ok(windows::sides(Padding::Same, image, size, stride)),
        "SAME_LOWER" => {
            let [top, left, bottom, right] = windows::sides(Padding::Same, image, size, stride);
            Ok([bottom, right, top, left])
        }
        other => Err(format!("padding {other:?}")),
    }
}

fn padding_of(sides: Sides) -> Padding {
    match sides {
        [top, left, bottom, right] if [left, bottom, right] == [top; 3] => Padding::Each(top),
        sides => Padding::Sides(sides),
    }
}

/// Multiplies a tensor by a number.
fn multiplied(tensor: Tensor, factor: f64) -> Result<Tensor, String> {
    if factor == 1.0 {
        return Ok(tensor);
    }
    let values = tensor.values().ok_or("weights that are not numbers")?;
    let values: Vec<f32> = values
        .iter()
        .map(|value| (f64::from(*value) * factor) as f32)
        .collect();
    Ok(Tensor::from_values(tensor.shape, &values))
}
