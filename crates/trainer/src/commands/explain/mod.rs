//! `trainer explain`: convolution, ReLU and max-pooling on a small image, step by step.

mod matrix;

use std::io::Write;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use model::{ConvBlock, ConvBlockOptions};

use crate::commands::explain::matrix::Matrix;
use crate::commands::flags::DeviceFlags;
use crate::config::suggest::did_you_mean;

/// Steps that are printed; the others are alike.
const MAX_STEPS: usize = 64;

const WHAT: &str = "\
Matrices are rows separated by semicolons, or JSON: --image '1,2;3,4' or --image '[[1,2],[3,4]]'.
Kernels with a name: diagonal (the default), edge, vertical, horizontal, sharpen, blur.";

#[derive(Debug, clap::Args)]
#[command(after_help = WHAT)]
pub(crate) struct Args {
    /// The image [default: a 4x4 one]
    #[arg(long, value_name = "ROWS", allow_hyphen_values = true)]
    image: Option<Matrix>,
    /// The kernel, square: rows or a name
    #[arg(
        long,
        value_name = "ROWS|NAME",
        default_value = "diagonal",
        allow_hyphen_values = true,
        value_parser = kernel
    )]
    kernel: Matrix,
    #[command(flatten)]
    device: DeviceFlags,
}

const IMAGE: [[f64; 4]; 4] = [
    [1.0, 2.0, 0.0, 1.0],
    [0.0, 1.0, 3.0, 1.0],
    [2.0, 2.0, 1.0, 0.0],
    [1.0, 0.0, 1.0, 3.0],
];
const POOLED: [[f64; 4]; 4] = [
    [1.0, 3.0, 2.0, 4.0],
    [2.0, 1.0, 1.0, 3.0],
    [0.0, 4.0, 5.0, 2.0],
    [1.0, 2.0, 3.0, 9.0],
];
const KERNELS: [(&str, &str); 6] = [
    ("diagonal", "1,0; 0,1"),
    ("edge", "-1,-1,-1; -1,8,-1; -1,-1,-1"),
    ("vertical", "-1,0,1; -2,0,2; -1,0,1"),
    ("horizontal", "-1,-2,-1; 0,0,0; 1,2,1"),
    ("sharpen", "0,-1,0; -1,5,-1; 0,-1,0"),
    (
        "blur",
        "0.0625,0.125,0.0625; 0.125,0.25,0.125; 0.0625,0.125,0.0625",
    ),
];

pub(crate) fn run(args: Args) -> Result<()> {
    let size = args.kernel.height();
    ensure!(
        args.kernel.width() == size,
        "--kernel: {size} rows of {}, expected a square",
        args.kernel.width()
    );
    let image = args.image.clone().unwrap_or_else(|| Matrix::of(IMAGE));
    ensure!(
        image.height() >= size && image.width() >= size,
        "--kernel: {size}x{size} does not fit the image of {}x{}",
        image.height(),
        image.width()
    );
    let (found, _) = args.device.open()?;
    let mut out = std::io::stdout().lock();

    let convolved = image.convolve(&args.kernel);
    let rectified = convolved.map(|value| value.max(0.0));
    writeln!(out, "image\n{image}\nkernel\n{}", args.kernel)?;
    writeln!(
        out,
        "Convolution: the kernel moves over the image; at each place, products are summed."
    )?;
    let steps = image.convolution_steps(&args.kernel);
    write_steps(&mut out, &steps)?;
    writeln!(out, "\nconvolved\n{convolved}")?;
    writeln!(
        out,
        "ReLU: what is negative becomes 0.\n\nrectified\n{rectified}"
    )?;
    write_pool(&mut out, &rectified)?;

    let on_device = Layers {
        device: &found.device,
    };
    let pooled = rectified.pool();
    on_device.check(&image, &args.kernel, false, &rectified)?;
    if let Some(pooled) = &pooled {
        on_device.check(&image, &args.kernel, true, pooled)?;
    }
    writeln!(out, "The network's own layers compute the same on {found}.")?;
    if args.image.is_none() {
        let image = Matrix::of(POOLED);
        writeln!(out, "\nMax-pooling alone, of another image\n{image}")?;
        write_pool(&mut out, &image)?;
        // A kernel of a single 1 leaves an image as it is.
        let pooled = image.pool().unwrap_or_else(|| image.clone());
        on_device.check(&image, &Matrix::of([[1.0]]), true, &pooled)?;
        writeln!(out, "The network's own layers compute the same on {found}.")?;
    }
    Ok(())
}

fn write_steps(out: &mut impl Write, steps: &[String]) -> Result<()> {
    for step in steps.iter().take(MAX_STEPS) {
        writeln!(out, "  {step}")?;
    }
    if let Some(more @ 1..) = steps.len().checked_sub(MAX_STEPS) {
        writeln!(out, "  and {more} more")?;
    }
    Ok(())
}

fn write_pool(out: &mut impl Write, image: &Matrix) -> Result<()> {
    let Some(pooled) = image.pool() else {
        writeln!(out, "Max-pooling: no 2x2 window fits, so it is left out.")?;
        return Ok(());
    };
    writeln!(
        out,
        "Max-pooling: of each 2x2 window the largest; an odd edge is dropped."
    )?;
    write_steps(out, &image.pool_steps())?;
    writeln!(out, "\npooled\n{pooled}")?;
    Ok(())
}

/// The layers of the crate `model` on a device.
struct Layers<'a> {
    device: &'a Device,
}

impl Layers<'_> {
    /// Checks that a convolution block makes `expected` of an image.
    fn check(&self, image: &Matrix, kernel: &Matrix, pool: bool, expected: &Matrix) -> Result<()> {
        let options = ConvBlockOptions {
            padding: 0,
            relu: true,
            pool,
        };
        let block = ConvBlock::with_weights(kernel.tensor(self.device), options);
        let output = block.forward(image.tensor(self.device));
        let [_, _, height, width] = output.dims();
        let values: Vec<f64> = output.into_data().iter::<f64>().collect();
        let by_hand = expected.0.concat();
        // Single precision, of the largest sums that there may have been on the way.
        let weights: f64 = kernel.0.iter().flatten().map(|weight| weight.abs()).sum();
        let tolerance = 1e-5 * (1.0 + image.largest() * weights);
        let is_same = (height, width) == (expected.height(), expected.width())
            && values
                .iter()
                .zip(&by_hand)
                .all(|(a, b)| (a - b).abs() <= tolerance);
        ensure!(
            is_same,
            "this device computes {values:?}, by hand it is {by_hand:?}"
        );
        Ok(())
    }
}

/// A kernel by its name, or by its rows.
fn kernel(text: &str) -> Result<Matrix, String> {
    match KERNELS.iter().find(|(name, _)| *name == text) {
        Some((_, rows)) => rows.parse(),
        None if text.starts_with(char::is_alphabetic) => {
            let names = KERNELS.map(|(name, _)| name);
            let hint = did_you_mean(text, names);
            Err(format!(
                "no such kernel{hint}; there are {}",
                names.join(", ")
            ))
        }
        None => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_ends_as_it_does_by_hand() {
        let kernel = kernel("diagonal").unwrap();
        let convolved = Matrix::of(IMAGE).convolve(&kernel);
        let expected = Matrix::of([[2.0, 5.0, 1.0], [2.0, 2.0, 3.0], [2.0, 3.0, 4.0]]);
        assert_eq!(convolved, expected);
        assert_eq!(convolved.pool(), Some(Matrix::of([[5.0]])));
        let pooled = Matrix::of(POOLED).pool();
        assert_eq!(pooled, Some(Matrix::of([[3.0, 4.0], [4.0, 9.0]])));
    }

    #[test]
    fn large_numbers_are_no_error() {
        let device = Device::default();
        let image = "1000,1000;1000,1000".parse().unwrap();
        let kernel = "1000,-1000;-999.99,1000".parse().unwrap();
        let expected = Matrix::convolve(&image, &kernel);
        let layers = Layers { device: &device };
        layers.check(&image, &kernel, false, &expected).unwrap();
        let wrong = expected.map(|value| value + 100.0);
        assert!(layers.check(&image, &kernel, false, &wrong).is_err());
    }

    #[test]
    fn kernels_have_names() {
        let error = kernel("edges").unwrap_err();
        assert!(
            error.starts_with("no such kernel (did you mean edge?)"),
            "{error}"
        );
    }
}
