//! Opening run folders, pretrained networks and bytes, and classifying pictures and pixels with them.

#![cfg(all(feature = "pretrained", any(feature = "flex", feature = "ndarray")))]

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use classifier::{
    CONFIDENCE_FILE, CONFIG_FILE, Classifier, Description, Device, Error, MIN_PROBABILITY, Picture,
    Preparation, Verdict, WEIGHTS_FILE, pretrained,
};

fn project(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

fn picture(name: &str) -> Vec<u8> {
    fs::read(project("tests/handwriting").join(name)).unwrap()
}

fn open_pretrained() -> Classifier {
    Classifier::pretrained("pretrained", &Device::default()).unwrap()
}

/// Copies the files of `pretrained` to a folder.
fn run_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE, CONFIDENCE_FILE] {
        let source = project("artifacts/pretrained").join(file);
        fs::copy(source, folder.path().join(file)).unwrap();
    }
    folder
}

fn open_error(folder: &Path) -> Error {
    Classifier::open(folder, &Device::default()).unwrap_err()
}

#[test]
fn matches_trainer_predict() {
    // trainer predict pretrained tests/handwriting/{7-marker,4-scan-16bit}.png --json
    // trainer predict pretrained tests/handwriting/7-marker.png --json --raw
    let classifier = open_pretrained();
    let raw = classifier.clone().with_preparation(Preparation::Picture);
    for (classifier, name, expected) in [
        (
            &classifier,
            "7-marker.png",
            [
                ("7", 0.9999981),
                ("3", 0.0000015175598),
                ("1", 3.7166885e-7),
            ],
        ),
        (
            &classifier,
            "4-scan-16bit.png",
            [
                ("4", 0.99989927),
                ("9", 0.000045712146),
                ("8", 0.000029577519),
            ],
        ),
        (
            &raw,
            "7-marker.png",
            [("8", 0.5364963), ("5", 0.42884496), ("0", 0.026727764)],
        ),
    ] {
        let prediction = classifier.classify_picture(&picture(name)).unwrap();
        for ((class, probability), (expected_class, expected)) in
            prediction.ranked().into_iter().zip(expected)
        {
            assert_eq!(class, expected_class, "{name}");
            // CPUs with other instructions round differently.
            let error: f32 = (probability - expected).abs() / expected;
            assert!(error < 1e-3, "{name}: {class} {probability}");
        }
        let sum: f32 = prediction.probabilities().as_slice().iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
    }
}

#[test]
fn batches_equal_single_images_bit_for_bit() {
    let classifier = Classifier::pretrained("pretrained-best", &Device::default()).unwrap();
    let files = [
        "0-chalk.png",
        "2-mouse.gif",
        "1-marker.bmp",
        "3-photo-rotated.jpg",
    ]
    .map(picture);
    let together = classifier.classify_pictures(&files).unwrap();
    let images: Vec<Vec<u8>> = files
        .iter()
        .map(|file| {
            classifier
                .prepared(&Picture::decode(file).unwrap())
                .unwrap()
        })
        .collect();
    assert_eq!(
        classifier.classify_images(images.clone()).unwrap(),
        together
    );
    for ((file, image), prediction) in files.iter().zip(images).zip(&together) {
        assert_eq!(&classifier.classify_picture(file).unwrap(), prediction);
        assert_eq!(&classifier.classify_image(image).unwrap(), prediction);
    }
    let classes: Vec<&str> = together
        .iter()
        .map(|prediction| prediction.class())
        .collect();
    assert_eq!(classes, ["0", "2", "1", "3"]);
    assert!(classifier.classify_images(Vec::new()).unwrap().is_empty());
}

#[test]
fn run_folder_pretrained_and_bytes_are_the_same_network() {
    let device = Device::default();
    let folder = run_folder();
    let opened = Classifier::open(folder.path(), &device).unwrap();
    let description = Description::from_toml(pretrained::DEFAULT.config).unwrap();
    assert_eq!(opened.description, description);
    let built = Classifier::new(description, pretrained::DEFAULT.weights.to_vec(), &device);
    let file = picture("5-tiny.png");
    let expected = open_pretrained();
    let expected = expected.classify_picture(&file).unwrap();
    assert_eq!(opened.classify_picture(&file).unwrap(), expected);
    let built = built.unwrap();
    let built = built.classify_picture(&file).unwrap();
    assert_eq!(built.probabilities(), expected.probabilities());
    assert_eq!(built.verdict(MIN_PROBABILITY), None);
    assert_eq!(expected.verdict(MIN_PROBABILITY), Some(Verdict::Sure));
}

#[test]
fn missing_files_are_named() {
    let folder = run_folder();
    fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    let message = open_error(folder.path()).to_string();
    let expected = "model.safetensors: no weights yet: they are written after the first epoch";
    assert!(message.ends_with(expected), "{message}");

    fs::remove_file(folder.path().join(CONFIG_FILE)).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, Error::Read { .. }), "{error:?}");
    let expected = format!(
        "{}: cannot read the file",
        folder.path().join(CONFIG_FILE).display()
    );
    assert_eq!(error.to_string(), expected);

    let error = Classifier::pretrained("best", &Device::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "best: no pretrained network, expected one of pretrained, pretrained-best, pretrained-cifar"
    );
}

#[test]
fn the_network_for_color_pictures_has_the_classes_of_cifar_10() {
    let classifier = Classifier::pretrained("pretrained-cifar", &Device::default()).unwrap();
    let classes = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ];
    assert_eq!(classifier.description.images.classes, classes);
    // A blue sky above a blue sea: planes of red, green and blue.
    let plane = |value: fn(u8) -> u8| (0..32).flat_map(move |y| [value(y); 32]);
    let planes = [plane(|_| 60), plane(|y| 90 + 3 * y), plane(|_| 200)];
    let image = planes.into_iter().flatten().collect();
    let prediction = classifier.classify_image(image).unwrap();
    assert!(
        ["airplane", "ship"].contains(&prediction.class()),
        "{prediction:?}"
    );
}

#[test]
fn rejects_damaged_weights_and_weights_of_other_networks() {
    let folder = run_folder();
    let path = folder.path().join(WEIGHTS_FILE);
    let weights = fs::read(&path).unwrap();
    let not_finite = {
        let mut weights = weights.clone();
        let end = weights.len();
        weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        weights
    };
    fs::write(&path, not_finite).unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, Error::NotFinite { .. }), "{error:?}");

    let expected = format!("{}: not the network of config.toml", path.display());
    for damaged in [&[][..], b"weights", &weights[..weights.len() / 2]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(open_error(folder.path()).to_string(), expected);
    }
    fs::write(&path, pretrained::BEST.weights).unwrap();
    let error = open_error(folder.path());
    assert_eq!(error.to_string(), expected);
    let source = error.source().unwrap().to_string();
    assert!(
        source.contains("conv1") || source.contains("blocks.0"),
        "{source}"
    );
}

#[test]
fn rejects_damaged_descriptions() {
    let folder = run_folder();
    let path = folder.path().join(CONFIG_FILE);
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [text.replace("[images]", "[image]"), text[..40].into()] {
        fs::write(&path, damaged).unwrap();
        let error = open_error(folder.path());
        assert!(matches!(error, Error::Description { .. }), "{error:?}");
    }
    fs::write(&path, b"\xff").unwrap();
    let error = open_error(folder.path());
    assert!(matches!(error, Error::Read { .. }), "{error:?}");

    let mut description = Description::from_toml(&text).unwrap();
    description.images.classes.pop();
    let weights = pretrained::DEFAULT.weights.to_vec();
    let error = Classifier::new(description, weights, &Device::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.toml: the number of images.classes = 9, expected 10, as the network has"
    );
}

#[test]
fn rejects_pictures_and_images_by_their_position() {
    let classifier = open_pretrained();
    let files = [picture("5-tiny.png"), b"text".to_vec()];
    let error = classifier.classify_pictures(&files).unwrap_err();
    assert_eq!(error.to_string(), "picture 1");
    assert_eq!(
        error.source().unwrap().to_string(),
        "not a picture: expected PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA or ICO"
    );
    let images = vec![vec![0; 784], vec![0; 783]];
    let error = classifier.classify_images(images).unwrap_err();
    assert_eq!(
        error.to_string(),
        "image 1: 783 bytes, expected 784 for [channels, height, width] = [1, 28, 28]"
    );
}
