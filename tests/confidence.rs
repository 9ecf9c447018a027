//! Verdicts on predictions: digits are accepted, and what is no digit is not. Letters are drawn from
//! `tests/confidence/letters.txt`.

use std::fs;

use classifier::{Classifier, Device, MIN_PROBABILITY, Verdict};
use data::Dataset;
use image::GrayImage;
use serde_json::Value;

use crate::pen::{Random, characters, drawn};
use crate::support::{WorkDir, project};

/// Pictures of each letter.
const PER_LETTER: u32 = 20;

/// Returns the probability that a random element of `others` is above one of `digits`: the area under the ROC curve.
fn auroc(digits: &[f32], others: &[f32]) -> f64 {
    let mut sorted = digits.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = others
        .iter()
        .map(|other| sorted.partition_point(|digit| digit < other));
    below.sum::<usize>() as f64 / (digits.len() * others.len()) as f64
}

/// The verdicts on images.
struct Verdicts {
    distances: Vec<f32>,
    /// The share of images that are called sure.
    sure: f64,
}

impl Verdicts {
    fn of(classifier: &Classifier, images: Vec<Vec<u8>>) -> Self {
        let (mut distances, mut sure) = (Vec::new(), 0);
        for images in images.chunks(500) {
            for prediction in classifier.classify_images(images.to_vec()).unwrap() {
                distances.push(prediction.assessment().unwrap().distance);
                sure += usize::from(prediction.verdict(MIN_PROBABILITY) == Some(Verdict::Sure));
            }
        }
        Self {
            sure: sure as f64 / distances.len() as f64,
            distances,
        }
    }

    /// Returns the share of images beyond a distance.
    fn beyond(&self, limit: f32) -> f64 {
        let beyond = self.distances.iter().filter(|distance| **distance > limit);
        beyond.count() as f64 / self.distances.len() as f64
    }
}

fn test_digits() -> Vec<Vec<u8>> {
    let images = Dataset::embedded_mnist().unwrap().test;
    let pixels = (0..images.len()).map(|index| images.pixels(index).unwrap().into_owned());
    pixels.collect()
}

fn noise(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let image = |_| (0..784).map(|_| random.between(0.0, 255.9) as u8).collect();
    (0..count).map(image).collect()
}

fn drawn_letters(classifier: &Classifier) -> Vec<Vec<u8>> {
    let mut random = Random(1);
    let mut images = Vec::new();
    for (_, strokes) in characters("letters.txt") {
        for _ in 0..PER_LETTER {
            let mut png = std::io::Cursor::new(Vec::new());
            let picture = drawn(&strokes, &mut random);
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let picture = data::Picture::decode(png.get_ref()).unwrap();
            images.push(classifier.prepared(&picture).unwrap());
        }
    }
    images
}

#[test]
fn what_is_no_digit_is_called_unlike_the_training_images() {
    // At the distance that accepts 99% of the test digits, the shares of noise and letters beyond it, and the area under the ROC
    // curve of letters.
    for (name, letters_beyond, area) in
        [("pretrained", 0.55, 0.96), ("pretrained-best", 0.75, 0.98)]
    {
        let classifier = Classifier::pretrained(name, &Device::default()).unwrap();
        let digits = Verdicts::of(&classifier, test_digits());
        let mut sorted = digits.distances.clone();
        sorted.sort_by(f32::total_cmp);
        let limit = sorted[9899];
        let noise = Verdicts::of(&classifier, noise(500));
        let letters = Verdicts::of(&classifier, drawn_letters(&classifier));
        let found = auroc(&digits.distances, &letters.distances);
        println!(
            "{name}: sure {:.3} of digits, {:.3} of noise, {:.3} of letters; at 99% of digits (distance {limit:.3}): noise {:.3}, \
             letters {:.3}, AUROC {found:.4}",
            digits.sure,
            noise.sure,
            letters.sure,
            noise.beyond(limit),
            letters.beyond(limit)
        );
        assert!(digits.sure > 0.98, "{}", digits.sure);
        assert!((0.9..1.1).contains(&limit), "{limit}");
        assert!(noise.beyond(limit) > 0.99);
        assert!(letters.beyond(limit) > letters_beyond);
        assert!(found > area, "{found}");
    }
}

#[test]
fn handwriting_is_accepted() {
    let work = WorkDir::new();
    let folder = project("tests/handwriting");
    let output = work.trainer(&format!(
        "predict pretrained-best {} --json",
        folder.display()
    ));
    let output = output.success().stdout;
    let verdicts: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["verdict"].clone())
        .collect();
    assert_eq!(verdicts.len(), 60);
    let others = verdicts.iter().filter(|verdict| *verdict != "sure").count();
    assert!(others <= 3, "{verdicts:?}");
}

#[test]
fn a_run_measures_what_its_verdicts_need() {
    let work = WorkDir::new();
    work.images();
    let train = "--data data --preset tiny --validation 0.4 --epochs 2 --run-name run -q";
    work.trainer(train).success();
    let measured = work.run_file("run", "confidence.safetensors");
    let path = work.path("noise.png");
    GrayImage::from_raw(28, 28, noise(1).remove(0))
        .unwrap()
        .save(path)
        .unwrap();
    let predict = || {
        work.trainer("predict run noise.png --raw --json -q")
            .success()
            .stdout
    };
    let with = predict();
    assert!(with.contains("\"verdict\":"), "{with}");
    // A run of an older version has no such file: it is measured once.
    let file = work.path("artifacts/runs/run/confidence.safetensors");
    fs::remove_file(&file).unwrap();
    assert_eq!(predict(), with);
    assert_eq!(fs::read(&file).unwrap(), measured);
    // The file of other weights is replaced.
    fs::copy(
        project("artifacts/pretrained/confidence.safetensors"),
        &file,
    )
    .unwrap();
    assert_eq!(predict(), with);
    assert_eq!(fs::read(&file).unwrap(), measured);
    // Without the images there is no verdict, with a warning.
    fs::remove_file(&file).unwrap();
    fs::rename(work.path("data"), work.path("elsewhere")).unwrap();
    let output = work.trainer("predict run noise.png --raw --json").success();
    assert!(!output.stdout.contains("verdict"), "{}", output.stdout);
    assert!(output.stderr.contains("no verdicts: "), "{}", output.stderr);
    // A damaged file is named.
    fs::write(&file, b"damaged").unwrap();
    let message = work.trainer("predict run noise.png --raw -q").error();
    assert!(
        message.contains("confidence.safetensors: damaged; without it"),
        "{message}"
    );
}

#[test]
fn a_higher_probability_can_be_required() {
    let work = WorkDir::new();
    work.shipped();
    let predict = |flags: &str| {
        let output = work.trainer(&format!("predict pretrained --test-index 0,1,2,3 {flags}"));
        output.success().stdout
    };
    assert!(
        predict("")
            .lines()
            .all(|line| line.contains("  sure  true "))
    );
    let strict = predict("--min-probability 1");
    assert!(strict.contains("  unsure: "), "{strict}");
    let csv = predict("--csv");
    assert!(csv.starts_with("path,class,probability,class_2,probability_2,class_3,probability_3,verdict,calibrated,distance,actual\n"));
    let output = work.trainer("predict pretrained --test-index 0 --min-probability 2");
    assert_eq!(output.code, Some(2));
}
