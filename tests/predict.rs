//! The command predict, with handwriting of many kinds and with invalid pictures.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::support::{Output, WorkDir, project};

/// Draws a one: a black bar on white.
fn one() -> GrayImage {
    GrayImage::from_fn(100, 120, |x, y| {
        let is_ink = (46..54).contains(&x) && (20..100).contains(&y);
        Luma([if is_ink { 0 } else { 255 }])
    })
}

fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Returns the digit on a picture, the first letter of its file name.
fn digit(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap();
    name.to_str().unwrap().chars().take(1).collect()
}

#[test]
fn handwriting_is_classified_correctly() {
    let dir = WorkDir::new();
    for run in ["pretrained", "pretrained-best"] {
        let mut command = dir.command(&format!("predict {run} --json"));
        let output = Output::of(command.arg(project("tests/handwriting"))).success();
        let predictions = json(&output.stdout);
        assert_eq!(predictions.len(), 60);
        let is_wrong = |prediction: &&Value| {
            prediction["class"].as_str().unwrap() != digit(prediction["path"].as_str().unwrap())
        };
        let wrong: Vec<&Value> = predictions.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "{run}: {wrong:#?}");
    }
}

#[cfg(feature = "flex")]
#[test]
fn the_classifier_crate_returns_the_probabilities_of_predict() {
    use classifier::{Classifier, Device, Preparation};

    let dir = WorkDir::new();
    for name in ["pretrained", "pretrained-best"] {
        let classifier = Classifier::pretrained(name, &Device::flex()).unwrap();
        let raw = classifier.clone().with_preparation(Preparation::Picture);
        for (flag, classifier) in [("", classifier), ("--raw", raw)] {
            let flags = format!("predict {name} --json --top 10 --device flex {flag}");
            let mut command = dir.command(&flags);
            let output = Output::of(command.arg(project("tests/handwriting"))).success();
            for expected in json(&output.stdout) {
                let picture = fs::read(expected["path"].as_str().unwrap()).unwrap();
                let prediction = classifier.classify_picture(&picture).unwrap();
                assert_eq!(prediction.class(), expected["class"]);
                let expected = expected["top"].as_array().unwrap().iter();
                let expected: Vec<(&str, f32)> = expected
                    .map(|top| {
                        let probability = top["probability"].as_f64().unwrap() as f32;
                        (top["class"].as_str().unwrap(), probability)
                    })
                    .collect();
                assert_eq!(prediction.ranked(), expected);
            }
        }
    }
}

/// The bound of docs/kernels.md.
#[cfg(feature = "flex")]
#[test]
fn the_batch_changes_probabilities_by_less_than_1e_5() {
    use classifier::{Classifier, Device};
    use data::Dataset;

    let dir = WorkDir::new();
    let test = Dataset::embedded_mnist().unwrap().test;
    let images: Vec<Vec<u8>> = (0..400)
        .map(|index| test.pixels(index).unwrap().into_owned())
        .collect();
    for (preset, epochs) in [("tiny", 5), ("dense", 3), ("sprint", 2), ("best", 1)] {
        let flags = format!("--preset {preset} --limit-train 1000 --epochs {epochs}");
        dir.trainer(&format!("{flags} --run-name {preset} --quiet"))
            .success();
        let run = dir.path("artifacts/runs").join(preset);
        let classifier = Classifier::open(&run, &Device::flex()).unwrap();
        let classify = |size: usize| -> Vec<_> {
            let batches = images.chunks(size);
            batches
                .flat_map(|batch| classifier.probabilities(batch.to_vec()).unwrap())
                .collect()
        };
        let expected = classify(400);
        for size in [1, 10, 65] {
            for (found, expected) in classify(size).iter().zip(&expected) {
                let pairs = found.as_slice().iter().zip(expected.as_slice());
                for (found, expected) in pairs {
                    assert!((found - expected).abs() < 1e-5, "{preset} {size}: {found}");
                }
                assert_eq!(found.best().0, expected.best().0, "{preset} {size}");
            }
        }
    }
}

#[test]
fn predictions_are_printed_as_text_json_and_csv() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    one().save(dir.path("my one.png")).unwrap();
    fs::create_dir(dir.path("folder")).unwrap();
    one().save(dir.path("folder/b.JPG")).unwrap();
    one().save(dir.path("folder/a.bmp")).unwrap();
    fs::write(dir.path("folder/notes.txt"), "no picture").unwrap();
    let call = |arguments: &str| {
        let mut command = dir.command(&format!("predict {run} {arguments}"));
        Output::of(command.args(["my one.png", "folder"]))
            .success()
            .stdout
    };

    let text = call("--top 2");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("my one.png  1  "), "{text}");
    assert!(
        lines[0].ends_with("%)  sure") && !lines[0].contains(','),
        "{text}"
    );
    assert!(lines[1].starts_with("folder/a.bmp  1  "), "{text}");

    let predictions = json(&call("--json --top 10"));
    assert_eq!(predictions[0]["path"], "my one.png");
    assert_eq!(predictions[0]["class"], "1");
    let top = predictions[0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 10);
    assert_eq!(top[0]["probability"], predictions[0]["probability"]);
    let sum: f64 = top
        .iter()
        .map(|candidate| candidate["probability"].as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-4, "{sum}");

    let csv = call("--csv --top 2");
    let lines: Vec<&str> = csv.lines().collect();
    let header = "path,class,probability,class_2,probability_2,verdict,calibrated,distance";
    assert_eq!(lines[0], header);
    assert!(lines[3].starts_with("folder/b.JPG,1,"), "{csv}");
}

#[test]
fn reads_a_picture_from_standard_input() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    one().save(dir.path("one.png")).unwrap();
    let mut command = dir.command(&format!("predict {run} - --json"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let picture = fs::read(dir.path("one.png")).unwrap();
    child.stdin.take().unwrap().write_all(&picture).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let piped = json(std::str::from_utf8(&output.stdout).unwrap());
    let named = json(
        &dir.trainer(&format!("predict {run} one.png --json"))
            .success()
            .stdout,
    );
    assert_eq!(piped[0]["path"], "-");
    assert_eq!(piped[0]["top"], named[0]["top"]);
}

#[test]
fn show_prints_and_saves_the_input_of_the_network() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let call = format!("predict {run} --test-index 0 --show");
    let text = dir.trainer(&call).success().stdout;
    assert!(text.starts_with("test:0  7  "), "{text}");
    assert!(text.contains("  true 7, right\n"), "{text}");
    assert_eq!(text.lines().count(), 1 + 28 + 1, "{text}");
    let saved = text
        .lines()
        .last()
        .unwrap()
        .strip_prefix("saved as ")
        .unwrap();
    assert_eq!(saved, "artifacts/runs/shipped/figures/seen/test-0.png");
    let csv = dir.trainer(&format!("predict {run} --test-index 0,1 --csv --top 1"));
    let csv = csv.success().stdout;
    assert!(
        csv.starts_with("path,class,probability,verdict,calibrated,distance,actual\ntest:0,7,"),
        "{csv}"
    );
    assert!(csv.ends_with(",2\n"), "{csv}");
    // An existing file is not overwritten.
    let again = dir.trainer(&call).success().stdout;
    assert!(again.ends_with("figures/seen/test-0-2.png\n"), "{again}");

    // The saved picture is the input of the network, so with --raw the prediction is the same.
    let raw = dir
        .trainer(&format!("predict {run} {saved} --raw --json"))
        .success();
    let test = dir
        .trainer(&format!("predict {run} --test-index 0 --json"))
        .success();
    assert_eq!(json(&raw.stdout)[0]["top"], json(&test.stdout)[0]["top"]);
    assert_eq!(json(&test.stdout)[0]["actual"], "7");
}

#[test]
fn reports_invalid_pictures_and_predicts_the_others() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    one().save(dir.path("one.png")).unwrap();
    GrayImage::from_pixel(50, 50, Luma([255]))
        .save(dir.path("blank.png"))
        .unwrap();
    fs::write(dir.path("words.png"), "no picture at all").unwrap();
    fs::write(dir.path("nothing.png"), "").unwrap();
    fs::create_dir(dir.path("folder")).unwrap();
    let error = |arguments: &str| {
        dir.trainer(&format!("predict {run} -q {arguments}"))
            .error()
    };
    assert_eq!(
        error("words.png"),
        "words.png: not a picture: expected PNG, JPEG, BMP, GIF, WebP, TIFF, PNM, QOI, TGA or ICO"
    );
    assert_eq!(error("nothing.png"), "nothing.png: empty file");
    assert_eq!(
        error("blank.png"),
        "blank.png: blank: found nothing drawn on it"
    );
    assert_eq!(error("folder"), "folder: no pictures in this folder");
    assert_eq!(
        error("missing.png"),
        "missing.png: cannot read the file: No such file or directory (os error 2)"
    );
    assert_eq!(
        error("- one.png -"),
        "-: standard input was named twice, but it holds one picture"
    );
    assert_eq!(
        error("--test-index 10000"),
        "test image 10000: expected an index below 10000"
    );

    let output = dir.trainer(&format!(
        "predict {run} words.png one.png folder blank.png one.png --json"
    ));
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert_eq!(json(&output.stdout).len(), 2);
    for part in [
        "error: words.png: not a picture",
        "error: folder: no pictures",
        "error: blank.png: blank",
        "error: 3 of 5 failed",
    ] {
        assert!(output.stderr.contains(part), "{part}: {output:#?}");
    }
}

#[test]
fn reports_runs_with_missing_or_damaged_weights() {
    let dir = WorkDir::new();
    let run = dir.path("artifacts/runs").join(dir.shipped());
    one().save(dir.path("one.png")).unwrap();
    for command in [
        "predict shipped one.png",
        "inspect shipped",
        "report shipped",
    ] {
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        fs::write(
            run.join("config.toml"),
            config.replace("dense = [128]", "dense = [64]"),
        )
        .unwrap();
        let error = dir.trainer(command).error();
        let start = "artifacts/runs/shipped/model.safetensors: not the network of config.toml: ";
        assert!(error.starts_with(start), "{error}");
        assert!(
            error.contains("fc1.weight") || error.contains("hidden.0"),
            "{error}"
        );
        fs::write(run.join("config.toml"), config).unwrap();

        let weights = fs::read(run.join("model.safetensors")).unwrap();
        fs::remove_file(run.join("model.safetensors")).unwrap();
        let error = dir.trainer(command).error();
        let expected = "no weights yet: they are written after the first epoch";
        assert!(error.ends_with(expected), "{error}");
        fs::write(run.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
        let error = dir.trainer(command).error();
        assert!(error.starts_with(start), "{error}");
        fs::write(run.join("model.safetensors"), weights).unwrap();
    }
}
