//! Corruptions of real and of artificial images.

use burn::data::dataset::Dataset as _;
use data::corruption::{Corruption, STRENGTHS};
use data::{Dataset, Preparation, Sample};

/// Returns images of MNIST.
fn digits(count: usize) -> Vec<Sample> {
    let test = Dataset::embedded_mnist().unwrap().test;
    (0..count).map(|index| test.get(index).unwrap()).collect()
}

/// Returns a picture of a disk on a ramp and fine waves, with other colors in each channel.
fn scene(channels: usize, height: usize, width: usize) -> Sample {
    let pixels = (0..channels * height * width).map(|at| {
        let (channel, row, column) = (at / (height * width), at / width % height, at % width);
        let is_inside = (row as f32 - 10.0).hypot(column as f32 - 26.0) < 7.0;
        let wave = 15.0 * (2.0 * row as f32).sin() * (1.5 * column as f32).cos();
        let ramp = 20.0 + 2.0 * row as f32 + 3.0 * column as f32;
        let disk = if is_inside {
            40.0 * channel as f32
        } else {
            0.0
        };
        (ramp + disk + wave) as u8
    });
    Sample {
        channels,
        height,
        width,
        pixels: pixels.collect(),
        label: 3,
    }
}

fn corrupted(
    corruption: Corruption,
    sample: &Sample,
    strength: usize,
    preparation: Preparation,
    index: usize,
) -> Sample {
    let mut sample = sample.clone();
    corruption
        .apply(&mut sample, strength, preparation, 1, index)
        .unwrap();
    sample
}

/// Returns the mean absolute difference of pixels.
fn difference(a: &Sample, b: &Sample) -> f64 {
    let pairs = a.pixels.iter().zip(&b.pixels);
    let sum: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.pixels.len() as f64
}

#[test]
fn each_strength_changes_images_more_than_the_last() {
    let cases = [
        (Preparation::Handwriting, digits(100)),
        (Preparation::Picture, vec![scene(3, 32, 40); 20]),
    ];
    for (preparation, samples) in cases {
        for corruption in Corruption::all(preparation) {
            let mean = |strength| {
                let differences = samples.iter().enumerate().map(|(index, sample)| {
                    let changed = corrupted(corruption, sample, strength, preparation, index);
                    difference(sample, &changed)
                });
                differences.sum::<f64>() / samples.len() as f64
            };
            let means: Vec<f64> = (1..=STRENGTHS).map(mean).collect();
            assert!(means[0] > 0.1, "{corruption} {means:?}");
            assert!(means.is_sorted_by(|a, b| a < b), "{corruption} {means:?}");
        }
    }
}

#[test]
fn images_keep_their_shape_and_their_label() {
    for channels in [1, 3] {
        for [height, width] in [[1, 1], [2, 2], [1, 9], [8, 8], [28, 20]] {
            let sample = scene(channels, height, width);
            for preparation in [Preparation::Handwriting, Preparation::Picture] {
                for corruption in Corruption::all(preparation) {
                    for strength in 1..=STRENGTHS {
                        let changed = corrupted(corruption, &sample, strength, preparation, 0);
                        let pixels = sample.pixels.clone();
                        assert_eq!(changed.pixels.len(), pixels.len(), "{corruption}");
                        assert_eq!(Sample { pixels, ..changed }, sample, "{corruption}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_index_of_an_image_determines_its_corruption() {
    let sample = &digits(1)[0];
    let handwriting = Preparation::Handwriting;
    for corruption in Corruption::all(handwriting) {
        let of_index = |index| corrupted(corruption, sample, 3, handwriting, index).pixels;
        assert_eq!(of_index(5), of_index(5));
        let all: Vec<Vec<u8>> = (0..20).map(of_index).collect();
        let has_no_choice = [Corruption::Blur, Corruption::Contrast, Corruption::Jpeg];
        let is_constant = all.iter().all(|pixels| *pixels == all[0]);
        assert_eq!(
            is_constant,
            has_no_choice.contains(&corruption),
            "{corruption}"
        );
    }
}

#[test]
fn a_uniform_picture_has_no_edges_but_a_uniform_drawing_has() {
    let uniform = Sample {
        pixels: vec![200; 3 * 16 * 16],
        ..scene(3, 16, 16)
    };
    for corruption in [Corruption::Shift, Corruption::Rotation] {
        let picture = corrupted(corruption, &uniform, 5, Preparation::Picture, 0);
        assert_eq!(picture, uniform, "{corruption}");
        let drawing = corrupted(corruption, &uniform, 5, Preparation::Object, 0);
        assert!(drawing.pixels.contains(&0), "{corruption}");
        assert!(drawing.pixels.contains(&200), "{corruption}");
    }
}

#[test]
fn blur_is_a_gaussian() {
    let mut dot = Sample {
        pixels: vec![0; 101 * 101],
        ..scene(1, 101, 101)
    };
    dot.pixels[50 * 101 + 50] = 255;
    // A standard deviation of 0.015 * 101 pixels.
    let blurred = corrupted(Corruption::Blur, &dot, 1, Preparation::Picture, 0);
    let density = |x: f64, y: f64| {
        let variance = (0.015f64 * 101.0).powi(2);
        (-(x * x + y * y) / (2.0 * variance)).exp() / (2.0 * std::f64::consts::PI * variance)
    };
    for (x, y) in [(0, 0), (1, 0), (2, 1), (3, 3)] {
        let found = f64::from(blurred.pixels[(50 + y) * 101 + 50 + x]);
        let expected = 255.0 * density(x as f64, y as f64);
        assert!(
            (found - expected).abs() < 1.0,
            "{x} {y}: {found} {expected}"
        );
    }
}

#[test]
fn noise_has_its_standard_deviation() {
    let gray = Sample {
        pixels: vec![128; 3 * 60 * 60],
        ..scene(3, 60, 60)
    };
    let noisy = corrupted(Corruption::Noise, &gray, 2, Preparation::Picture, 7);
    let changes = noisy.pixels.iter().map(|&pixel| f64::from(pixel) - 128.0);
    let (count, sum, squares) = changes.fold((0.0, 0.0, 0.0), |(n, sum, squares), change| {
        (n + 1.0, sum + change, squares + change * change)
    });
    let deviation = (squares / count - (sum / count).powi(2)).sqrt();
    // 0.12 of 255. The error of the estimate has a standard deviation of 0.2.
    assert!((deviation - 30.6).abs() < 0.8, "{deviation}");
    assert!((sum / count).abs() < 1.0, "{}", sum / count);
}

#[test]
fn strokes_become_wider_or_narrower() {
    // A vertical stroke of three pixels.
    let mut stroke = Sample {
        pixels: vec![0; 20 * 20],
        ..scene(1, 20, 20)
    };
    for row in stroke.pixels.chunks_mut(20) {
        row[8..11].fill(200);
    }
    let width =
        |sample: &Sample| sample.pixels.iter().copied().map(f64::from).sum::<f64>() / 200.0 / 20.0;
    let widths: Vec<f64> = (0..20)
        .map(|index| {
            let corruption = Corruption::StrokeWidth;
            width(&corrupted(
                corruption,
                &stroke,
                5,
                Preparation::Handwriting,
                index,
            ))
        })
        .collect();
    // Dilation by one pixel to each side, erosion by half of a pixel.
    for found in &widths {
        assert!(
            [5.0, 2.0]
                .iter()
                .any(|width: &f64| (width - found).abs() < 0.01),
            "{found}"
        );
    }
    assert!(widths.iter().any(|&found| found > 4.0) && widths.iter().any(|&found| found < 3.0));
}
