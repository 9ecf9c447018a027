//! Operators on each element: arithmetic with constants, activations of several nodes, and sums of two branches.

use std::rc::Rc;

use model::Activation;

use crate::chain::ChainOperation;
use crate::onnx::constant::{Constant, Extent, Integers};
use crate::onnx::values::{Axis, Data, Form, Network, Value, is_close};
use crate::steps::StepKind;
use crate::tensor::{Dtype, Tensor};

/// Largest number of values of a constant that is computed from others.
const MAX_NUMBERS: usize = 1024;

/// The refusal of powers, which networks hardly have but in GELU.
pub(super) const POWERS: &str = "powers are not supported, as in the tanh approximation of GELU";

/// An operator of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

impl Binary {
    fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
        }
    }

    fn apply_to_integers(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Self::Add => a.checked_add(b),
            Self::Sub => a.checked_sub(b),
            Self::Mul => a.checked_mul(b),
            Self::Div => a.checked_div(b),
        }
    }
}

impl Network<'_> {
    /// Evaluates an operator of two values.
    pub(super) fn binary(&mut self, operator: Binary, inputs: &[String]) -> Result<Value, String> {
        let is_constant = |value: &Value| matches!(value, Value::Constant(_));
        let first = is_constant(self.input(inputs, 0)?);
        let second = is_constant(self.input(inputs, 1)?);
        match (first, second) {
            (true, true) => {
                let [a, b] = [self.constant(inputs, 0)?, self.constant(inputs, 1)?];
                constants(operator, &a, &b).map(Value::Constant)
            }
            (false, true) => {
                let data = self.function(inputs, 0)?;
                let constant = self.constant(inputs, 1)?;
                let (factor, shift) = match operator {
                    Binary::Add => (None, Some((constant, 1.0))),
                    Binary::Sub => (None, Some((constant, -1.0))),
                    Binary::Mul => (Some((constant, 1.0)), None),
                    Binary::Div => (Some((constant, -1.0)), None),
                };
                self.with_constants(data, factor, shift).map(Value::Data)
            }
            (true, false) => {
                let data = self.function(inputs, 1)?;
                let constant = self.constant(inputs, 0)?;
                match operator {
                    Binary::Add => self.with_constants(data, None, Some((constant, 1.0))),
                    Binary::Mul => self.with_constants(data, Some((constant, 1.0)), None),
                    Binary::Sub => {
                        let negated = scaled(data, &[-1.0])?;
                        self.with_constants(negated, None, Some((constant, 1.0)))
                    }
                    Binary::Div => Err("a constant divided by values".into()),
                }
                .map(Value::Data)
            }
            (false, false) => self.sum_or_product(operator, inputs).map(Value::Data),
        }
    }

    /// Multiplies by a constant, or divides for the exponent -1, or adds a constant with a sign.
    fn with_constants(
        &mut self,
        data: Data,
        factor: Option<(Constant, f64)>,
        shift: Option<(Constant, f64)>,
    ) -> Result<Data, String> {
        let mut data = data;
        if let Some((constant, exponent)) = factor {
            let factors = coefficients(&constant, &data)?;
            let factors: Vec<f64> = factors.into_iter().map(|x| x.powf(exponent)).collect();
            data = scaled(data, &factors)?;
        }
        if let Some((constant, sign)) = shift {
            let shifts = coefficients(&constant, &data)?;
            let shifts: Vec<f64> = shifts.into_iter().map(|x| sign * x).collect();
            data = shifted(data, &shifts)?;
        }
        if let Form::Affine { factor, shift } = &data.form {
            self.budget
                .deduct(&[factor.len() + shift.len()], Dtype::F64)?;
        }
        Ok(data)
    }

    /// Combines two values that depend on the image.
    fn sum_or_product(&mut self, operator: Binary, inputs: &[String]) -> Result<Data, String> {
        match operator {
            Binary::Mul => {
                if inputs.first() == inputs.get(1) {
                    return Err(POWERS.into());
                }
                let (a, b) = (self.function(inputs, 0)?, self.function(inputs, 1)?);
                let product = match (&a.form, &b.form) {
                    _ if a.step != b.step || a.dims != b.dims => None,
                    (Form::Affine { factor, shift }, other)
                    | (other, Form::Affine { factor, shift }) => product([factor, shift], other),
                    _ => None,
                };
                match product {
                    Some(Form::Sigmoid) => {
                        let data = Data {
                            form: Form::identity(),
                            ..a
                        };
                        self.step(&data, ChainOperation::Activate(Activation::Silu))
                    }
                    Some(form) => Ok(Data { form, ..a }),
                    None => Err("a product of two values that is not SiLU or GELU".into()),
                }
            }
            Binary::Add => {
                let (a, b) = (self.data(inputs, 0)?, self.data(inputs, 1)?);
                if a.dims != b.dims {
                    return Err(format!(
                        "a sum of {} and {}",
                        a.description(),
                        b.description()
                    ));
                }
                let other = b.step;
                let data = Data {
                    is_image: false,
                    ..a
                };
                self.add_step(&data, StepKind::Add { other })
            }
            Binary::Sub | Binary::Div => Err("a difference or quotient of two values".into()),
        }
    }

    /// Evaluates an activation of one node.
    pub(super) fn activation(
        &mut self,
        activation: Activation,
        inputs: &[String],
    ) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let operation = ChainOperation::Activate(activation);
        self.step(&data, operation).map(Value::Data)
    }

    pub(super) fn sigmoid(&mut self, inputs: &[String]) -> Result<Value, String> {
        let data = self.data(inputs, 0)?;
        let form = Form::Sigmoid;
        Ok(Value::Data(Data { form, ..data }))
    }

    pub(super) fn erf(&mut self, inputs: &[String]) -> Result<Value, String> {
        let data = self.function(inputs, 0)?;
        let is_scaled = match &data.form {
            Form::Affine { factor, shift } => {
                matches!(factor.as_slice(), &[x] if is_close(x, std::f64::consts::FRAC_1_SQRT_2))
                    && shift.iter().all(|x| *x == 0.0)
            }
            _ => false,
        };
        let form = Form::Erf {
            factor: 1.0,
            shift: 0.0,
        };
        match is_scaled {
            true => Ok(Value::Data(Data { form, ..data })),
            false => Err("Erf is only supported as part of GELU".into()),
        }
    }
}

/// Returns the product of an affine function and another one, if it is part of an activation.
fn product([factor, shift]: [&Vec<f64>; 2], other: &Form) -> Option<Form> {
    let (&[scale], true) = (factor.as_slice(), shift.iter().all(|x| *x == 0.0)) else {
        return None;
    };
    match *other {
        Form::Sigmoid => (scale == 1.0).then_some(Form::Sigmoid),
        Form::Erf { factor, shift } => Some(Form::ErfProduct {
            factor: scale * factor,
            shift: scale * shift,
        }),
        _ => None,
    }
}

/// Multiplies a value by one number, or by one for each channel.
fn scaled(data: Data, factors: &[f64]) -> Result<Data, String> {
    let form = match (data.form, factors) {
        (Form::Affine { factor, shift }, _) => Form::Affine {
            factor: zip(&factor, factors, |a, b| a * b)?,
            shift: zip(&shift, factors, |a, b| a * b)?,
        },
        (Form::Erf { factor, shift }, &[x]) => Form::Erf {
            factor: factor * x,
            shift: shift * x,
        },
        (Form::ErfProduct { factor, shift }, &[x]) => Form::ErfProduct {
            factor: factor * x,
            shift: shift * x,
        },
        _ => return Err("a factor within an activation".into()),
    };
    Ok(Data { form, ..data })
}

/// Adds one number to a value, or one for each channel.
fn shifted(data: Data, shifts: &[f64]) -> Result<Data, String> {
    let form = match (data.form, shifts) {
        (Form::Affine { factor, shift }, _) => Form::Affine {
            factor,
            shift: zip(&shift, shifts, |a, b| a + b)?,
        },
        (Form::Erf { factor, shift }, &[x]) => Form::Erf {
            factor,
            shift: shift + x,
        },
        _ => return Err("a sum within an activation".into()),
    };
    Ok(Data { form, ..data })
}

/// Combines numbers, where one number stands for all.
fn zip(a: &[f64], b: &[f64], combine: impl Fn(f64, f64) -> f64) -> Result<Vec<f64>, String> {
    match (a, b) {
        (&[a], b) => Ok(b.iter().map(|b| combine(a, *b)).collect()),
        (a, &[b]) => Ok(a.iter().map(|a| combine(*a, b)).collect()),
        (a, b) if a.len() == b.len() => Ok(a.iter().zip(b).map(|(a, b)| combine(*a, *b)).collect()),
        _ => Err("constants of different sizes".into()),
    }
}

/// Returns a constant as one number for all elements of a value, or one for each channel or feature.
fn coefficients(constant: &Constant, data: &Data) -> Result<Vec<f64>, String> {
    let shape = constant.shape();
    let refusal = || {
        format!(
            "a constant of shape {shape:?} for {}, not one number or one for each channel",
            data.description()
        )
    };
    // The dimensions are aligned at the end. The first dimension of a value is the batch.
    let rank = data.dims.len() + 1;
    let offset = rank.checked_sub(shape.len()).ok_or_else(refusal)?;
    let mut count = 1;
    for (index, &size) in shape.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let dim = (index + offset)
            .checked_sub(1)
            .and_then(|at| data.dims.get(at));
        let is_channel = dim.is_some_and(|dim| {
            dim.size == size && (dim.axis == Axis::Channel || data.dims.len() == 1)
        });
        if !is_channel {
            return Err(refusal());
        }
        count = size;
    }
    let values = constant.floats()?;
    match values.len() == count {
        true => Ok(values),
        false => Err(refusal()),
    }
}

/// Computes with two constants of the same shape, or with a single number.
fn constants(operator: Binary, a: &Constant, b: &Constant) -> Result<Constant, String> {
    let is_single = |constant: &Constant| constant.shape().iter().all(|size| *size == 1);
    let shape = match (a.shape(), b.shape()) {
        (shape, _) if is_single(b) => shape.to_vec(),
        (_, shape) if is_single(a) => shape.to_vec(),
        (a, b) if a == b => a.to_vec(),
        _ => return Err("constants of different shapes".into()),
    };
    let count = shape
        .iter()
        .try_fold(1, |count: usize, size| count.checked_mul(*size));
    if count.is_none_or(|count| count > MAX_NUMBERS) {
        return Err("arithmetic with large constants".into());
    }
    if let (Constant::Integers(a), Constant::Integers(b)) = (a, b) {
        let numbers = a.numbers().zip(b.numbers());
        let (a, b) = numbers.ok_or("arithmetic with the number of images")?;
        let longest = a.len().max(b.len());
        let at = |numbers: &[i64], index: usize| numbers.get(index).or(numbers.first()).copied();
        let values = (0..longest).map(|index| {
            let value = operator.apply_to_integers(at(&a, index)?, at(&b, index)?)?;
            Some(Extent::Number(value))
        });
        let values: Option<Vec<Extent>> = values.collect();
        let values = values.ok_or("a number that overflows")?;
        return Ok(Constant::Integers(Integers { shape, values }));
    }
    let values = zip(&a.floats()?, &b.floats()?, |a, b| operator.apply(a, b))?;
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Ok(Constant::Tensor(Rc::new(Tensor::from_values(
        shape, &values,
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Constant {
        Constant::Tensor(Rc::new(Tensor::from_values(shape.to_vec(), values)))
    }

    fn integers(values: &[i64]) -> Constant {
        let values = values.iter().copied().map(Extent::Number).collect();
        Constant::Integers(Integers::vector(values))
    }

    #[test]
    fn constants_are_computed() {
        let one = floats(&[], &[1.0]);
        let pair = floats(&[2], &[1.0, 2.0]);
        let sum = constants(Binary::Add, &one, &pair).unwrap();
        assert_eq!((sum.shape(), sum.floats()), (&[2][..], Ok(vec![2.0, 3.0])));
        let quotient = constants(Binary::Div, &integers(&[6]), &integers(&[2])).unwrap();
        assert_eq!(quotient.floats(), Ok(vec![3.0]));
        let mixed = constants(Binary::Mul, &integers(&[2, 3]), &one).unwrap();
        assert_eq!(
            (mixed.shape(), mixed.floats()),
            (&[2][..], Ok(vec![2.0, 3.0]))
        );
        let error =
            |operator, a: &Constant, b: &Constant| constants(operator, a, b).map(drop).unwrap_err();
        let row = floats(&[1, 2], &[1.0, 2.0]);
        assert_eq!(
            error(Binary::Add, &pair, &row),
            "constants of different shapes"
        );
        let overflow = error(Binary::Mul, &integers(&[i64::MAX]), &integers(&[2]));
        assert_eq!(overflow, "a number that overflows");
        let division = error(Binary::Div, &integers(&[1]), &integers(&[0]));
        assert_eq!(division, "a number that overflows");
    }
}
