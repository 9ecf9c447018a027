//! Explanations of predictions: `inspect --explain`.

use std::fs;

use image::GrayImage;
use serde_json::Value;

use crate::support::{WorkDir, project};

/// Returns the rows of a heat map.
fn rows(map: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(map.clone()).unwrap()
}

#[test]
fn an_explanation_is_one_figure() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let text = dir.trainer(&format!("inspect {run} --explain 0")).success();
    let figure = "artifacts/runs/shipped/figures/explanation";
    assert_eq!(text.stdout, format!("{figure}.svg\n{figure}.png\n"));
    let svg = dir.run_text(run, "figures/explanation.svg");
    // The image, three heat maps with their color bars, and eight training images.
    assert_eq!(svg.matches("<image ").count(), 15);
    for part in [
        "Predicted 7, 100.0%, sure",
        "label 7",
        "evidence for 7",
        "maps of 14x14",
        "patch of 4x4",
    ] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(!svg.contains("no Grad-CAM"));

    let picture = project("tests/handwriting/4-photo-shadow.jpg");
    let command = format!("inspect {run} --explain {}", picture.display());
    dir.trainer(&format!("{command} --explain-class 9"))
        .success();
    let svg = dir.run_text(run, "figures/explanation.svg");
    assert!(svg.contains("Predicted 4, "), "{svg}");
    assert!(svg.contains("; evidence for 9, "), "{svg}");
    assert!(!svg.contains("label"), "{svg}");
}

#[test]
fn json_has_the_heat_maps() {
    let dir = WorkDir::new();
    let explain = |flags: &str| -> Value {
        let output = dir.trainer(&format!("inspect pretrained --explain 0 --json {flags}"));
        serde_json::from_str(&output.success().stdout).unwrap()
    };
    let json = explain("");
    assert_eq!(json["class"], "7");
    assert!(json["probability"].as_f64().unwrap() > 0.99);
    for name in ["grad_cam", "integrated_gradients", "occlusion"] {
        let rows = rows(&json[name]);
        assert_eq!(rows.len(), 28, "{name}");
        assert!(rows.iter().all(|row| row.len() == 28), "{name}");
        assert!(rows.iter().flatten().any(|value| *value > 0.0), "{name}");
    }
    let contributions = rows(&json["integrated_gradients"]);
    let sum: f64 = contributions.iter().flatten().sum();
    let difference = json["logit_difference"].as_f64().unwrap();
    assert!((sum - difference).abs() < 0.02 * difference, "{sum}");
    // Black pixels are those of the baseline.
    assert_eq!(contributions[0], [0.0; 28]);

    let other = explain("--explain-class 1");
    assert_eq!(
        (&other["class"], &other["predicted"]),
        (&"1".into(), &"7".into())
    );
    assert!(other["probability"].as_f64().unwrap() < 0.01);
    assert_ne!(other["grad_cam"], json["grad_cam"]);
}

#[test]
fn dense_and_color_networks_are_explained() {
    let dir = WorkDir::new();
    dir.images();
    for (name, settings) in [
        ("dense", "--preset dense"),
        ("color", "--preset tiny --channels 3"),
    ] {
        let train = format!("{settings} --data data --validation 0 --max-steps 1 -q");
        dir.trainer(&format!("{train} --run-name {name}")).success();
        dir.trainer(&format!("inspect {name} --explain 4 -q"))
            .success();
    }
    let dense = dir.run_text("dense", "figures/explanation.svg");
    assert!(dense.contains("no Grad-CAM, which needs convolutions"));
    assert_eq!(dense.matches("<image ").count(), 3 + 2 + 8);
    let json = dir.trainer("inspect dense --explain 4 --json -q").success();
    assert!(json.stdout.contains("\"grad_cam\":null"), "{}", json.stdout);
    let color = dir.run_text("color", "figures/explanation.svg");
    assert_eq!(color.matches("<image ").count(), 4 + 3 + 8);

    // Without the training images, the rest is drawn.
    fs::remove_dir_all(dir.path("data")).unwrap();
    GrayImage::from_pixel(8, 8, image::Luma([200]))
        .save(dir.path("gray.png"))
        .unwrap();
    let output = dir.trainer("inspect color --explain gray.png --raw");
    let warning = "no nearest training images: ";
    assert!(output.stderr.contains(warning), "{}", output.stderr);
    output.success();
    let color = dir.run_text("color", "figures/explanation.svg");
    assert_eq!(color.matches("<image ").count(), 4 + 3);
}

#[test]
fn what_cannot_be_explained_is_named() {
    let dir = WorkDir::new();
    GrayImage::from_pixel(40, 40, image::Luma([255]))
        .save(dir.path("blank.png"))
        .unwrap();
    for (arguments, expected) in [
        (
            "--explain 10000",
            "test image 10000: the test split has images 0 to 9999",
        ),
        ("--explain none.png", "none.png: "),
        ("--explain blank.png", "blank.png: "),
        (
            "--explain 0 --explain-class seven",
            "class seven: this network has the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
    ] {
        let message = dir
            .trainer(&format!("inspect pretrained -q {arguments}"))
            .error();
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    for arguments in [
        "--explain-class 3",
        "--json",
        "--explain 0 --block 2",
        "--explain 0 --augmentation",
        "--explain 0 --count 3",
    ] {
        let output = dir.trainer(&format!("inspect pretrained {arguments}"));
        assert_eq!(output.code, Some(2), "{arguments}");
    }
}
