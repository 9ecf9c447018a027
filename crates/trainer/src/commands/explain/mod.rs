//! `trainer explain`: computes convolution, ReLU and max-pooling of a small image by hand.

mod matrix;

use std::io::Write;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use model::{ConvBlock, ConvBlockOptions};

use crate::commands::explain::matrix::Matrix;
use crate::commands::flags::DeviceFlags;
use crate::config::suggest::did_you_mean;

/// Maximum number of calculations printed per operation.
const MAX_STEPS: usize = 64;

const FORMATS: &str = "\
A matrix is written as rows separated by semicolons, or as JSON: --image '1,2;3,4' or
--image '[[1,2],[3,4]]'. Named kernels: diagonal (default), edge, vertical, horizontal, sharpen, blur.";

#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(crate) struct Args {
    /// Image, as a matrix [default: a 4x4 image]
    #[arg(long, value_name = "MATRIX", allow_hyphen_values = true)]
    image: Option<Matrix>,
    /// Kernel: a square matrix or a name
    #[arg(
        long,
        value_name = "MATRIX|NAME",
        default_value = "diagonal",
        allow_hyphen_values = true,
        value_parser = parse_kernel
    )]
    kernel: Matrix,
    #[command(flatten)]
    device: DeviceFlags,
}

/// The default image.
const IMAGE: [[f64; 4]; 4] = [
    [1.0, 2.0, 0.0, 1.0],
    [0.0, 1.0, 3.0, 1.0],
    [2.0, 2.0, 1.0, 0.0],
    [1.0, 0.0, 1.0, 3.0],
];
/// A second image, for max-pooling only.
const POOLING_IMAGE: [[f64; 4]; 4] = [
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
        "--kernel: {size} rows of {} numbers, expected a square matrix",
        args.kernel.width()
    );
    let image = args.image.clone().unwrap_or_else(|| Matrix::new(IMAGE));
    ensure!(
        image.height() >= size && image.width() >= size,
        "--kernel: {size}x{size} is larger than the image of {}x{}",
        image.height(),
        image.width()
    );
    let (device, _) = args.device.open()?;
    let mut out = std::io::stdout().lock();

    let convolved = image.convolve(&args.kernel);
    let rectified = convolved.map(|value| value.max(0.0));
    writeln!(out, "Image\n{image}\nKernel\n{}", args.kernel)?;
    writeln!(
        out,
        "Convolution: the kernel slides over the image, one pixel at a time. At each position, the\n\
         pixels under the kernel are multiplied by its weights, and the products are added."
    )?;
    write_steps(&mut out, &image.convolution_steps(&args.kernel))?;
    writeln!(out, "\nFeature map\n{convolved}")?;
    writeln!(
        out,
        "ReLU: negative values become 0.\n\nFeature map after ReLU\n{rectified}"
    )?;
    write_pooling(&mut out, &rectified)?;

    let layers = Layers {
        device: &device.device,
    };
    let same_result = format!("The layers of the network compute the same result on {device}.");
    layers.check(&image, &args.kernel, false, &rectified)?;
    if let Some(pooled) = rectified.pool() {
        layers.check(&image, &args.kernel, true, &pooled)?;
    }
    writeln!(out, "{same_result}")?;
    if args.image.is_none() {
        let image = Matrix::new(POOLING_IMAGE);
        writeln!(out, "\nMax-pooling of another image\n{image}")?;
        write_pooling(&mut out, &image)?;
        // A 1x1 kernel with weight 1 leaves the image unchanged.
        let pooled = image.pool().unwrap_or_else(|| image.clone());
        layers.check(&image, &Matrix::new([[1.0]]), true, &pooled)?;
        writeln!(out, "{same_result}")?;
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

fn write_pooling(out: &mut impl Write, image: &Matrix) -> Result<()> {
    let Some(pooled) = image.pool() else {
        writeln!(out, "Max-pooling: skipped, because no 2x2 window fits.")?;
        return Ok(());
    };
    writeln!(
        out,
        "Max-pooling: each 2x2 window is replaced by its largest value. A last odd row or column is\n\
         dropped."
    )?;
    write_steps(out, &image.pooling_steps())?;
    writeln!(out, "\nAfter max-pooling\n{pooled}")?;
    Ok(())
}

/// The layers of the crate `model` on a device.
struct Layers<'a> {
    device: &'a Device,
}

impl Layers<'_> {
    /// Checks that a convolution block maps `image` to `expected`, up to rounding.
    ///
    /// # Errors
    /// Returns an error with both results if they differ.
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
        // The device computes in f32; rounding errors scale with the largest possible sum.
        let weights: f64 = kernel.0.iter().flatten().map(|weight| weight.abs()).sum();
        let tolerance = 1e-5 * (1.0 + image.max_abs() * weights);
        let is_equal = (height, width) == (expected.height(), expected.width())
            && values
                .iter()
                .zip(&by_hand)
                .all(|(a, b)| (a - b).abs() <= tolerance);
        ensure!(
            is_equal,
            "the device computes {values:?}, expected {by_hand:?}"
        );
        Ok(())
    }
}

/// Parses a kernel: a name or a matrix.
fn parse_kernel(text: &str) -> Result<Matrix, String> {
    match KERNELS.iter().find(|(name, _)| *name == text) {
        Some((_, rows)) => rows.parse(),
        None if text.starts_with(char::is_alphabetic) => {
            let names = KERNELS.map(|(name, _)| name);
            let hint = did_you_mean(text, names);
            Err(format!(
                "unknown kernel {text}{hint}; expected {}",
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
    fn default_example_matches_results_by_hand() {
        let kernel = parse_kernel("diagonal").unwrap();
        let convolved = Matrix::new(IMAGE).convolve(&kernel);
        let expected = Matrix::new([[2.0, 5.0, 1.0], [2.0, 2.0, 3.0], [2.0, 3.0, 4.0]]);
        assert_eq!(convolved, expected);
        assert_eq!(convolved.pool(), Some(Matrix::new([[5.0]])));
        let pooled = Matrix::new(POOLING_IMAGE).pool();
        assert_eq!(pooled, Some(Matrix::new([[3.0, 4.0], [4.0, 9.0]])));
    }

    #[test]
    fn check_allows_rounding_errors_of_large_sums() {
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
    fn suggests_similar_kernel_names() {
        let error = parse_kernel("edges").unwrap_err();
        assert!(
            error.starts_with("unknown kernel edges (did you mean edge?)"),
            "{error}"
        );
    }
}
