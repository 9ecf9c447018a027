//! Training that starts from a trained network.

use std::fs;

use crate::support::{WorkDir, project};

/// Creates the run `source`, the network `tiny` trained by PyTorch.
fn work_dir() -> WorkDir {
    let work = WorkDir::new();
    let file = project("tests/weights/tiny.pt");
    work.trainer(&format!(
        "import {} --preset tiny --run-name source",
        file.display()
    ))
    .success();
    work
}

/// Returns the bytes of a tensor of the last weights of a run.
fn tensor(work: &WorkDir, run: &str, name: &str) -> Vec<u8> {
    let file = work.run_file(run, "model.safetensors");
    let tensors = formats::from_safetensors(&file).unwrap();
    tensors[name].bytes.clone()
}

#[test]
fn frozen_layers_keep_their_weights() {
    let work = work_dir();
    let training = "train --init-from source --limit-train 128 --epochs 1";
    work.trainer(&format!("{training} --run-name all"))
        .success();
    work.trainer(&format!("{training} --freeze blocks --run-name head"))
        .success();
    let is_kept = |run, name| tensor(&work, run, name) == tensor(&work, "source", name);
    assert!(!is_kept("all", "conv1.weight") && !is_kept("all", "fc1.weight"));
    assert!(is_kept("head", "conv1.weight") && is_kept("head", "conv1.bias"));
    assert!(!is_kept("head", "fc1.weight"));
    // Two steps hardly change a trained network.
    for run in ["all", "head"] {
        let evaluation: serde_json::Value =
            serde_json::from_str(&work.run_text(run, "evaluation.json")).unwrap();
        assert!(
            evaluation["accuracy"].as_f64().unwrap() > 0.9,
            "{evaluation}"
        );
    }
    // The checkpoint before the first step begins with the same weights.
    let resumed = work.trainer("--resume head --epochs 2").success();
    assert!(
        resumed.stderr.contains("resuming in epoch 2"),
        "{}",
        resumed.stderr
    );
    assert!(is_kept("head", "conv1.weight"));
}

#[test]
fn other_classes_and_channels_get_new_layers() {
    let work = work_dir();
    for split in ["train", "test"] {
        for (class, color) in [("red", [255, 0, 0]), ("blue", [0, 0, 255])] {
            let folder = work.path(&format!("mine/{split}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            for shade in 0..6u8 {
                let picture = image::RgbImage::from_fn(28, 28, |x, y| {
                    let value = color.map(|value: u8| value.saturating_sub(shade * 8));
                    image::Rgb(if (x + y) % 2 == 0 { value } else { [40; 3] })
                });
                picture.save(folder.join(format!("{shade}.png"))).unwrap();
            }
        }
    }
    let tuned = work
        .trainer("train --init-from source --data mine --epochs 20 --batch-size 4 --run-name mine")
        .success();
    for line in [
        "conv1: filters of 1 channels made those of 3",
        "fc1: initialized anew, for other classes",
    ] {
        assert!(tuned.stderr.contains(line), "{}", tuned.stderr);
    }
    let evaluation = work.run_text("mine", "evaluation.json");
    assert!(evaluation.contains("\"accuracy\": 1.0"), "{evaluation}");
    // Networks whose batch normalization is part of the weights can be trained on.
    work.trainer("train --init-from pretrained-best --limit-train 64 --epochs 1 --run-name best")
        .success();
}

#[test]
fn a_network_to_start_from_is_checked() {
    let work = work_dir();
    let error = |arguments: &str| work.trainer(arguments).error();
    assert_eq!(
        error("train --freeze blocks"),
        "training.freeze keeps the weights of a trained network: name it with --init-from"
    );
    let file = project("tests/weights/tiny.pt").display().to_string();
    assert_eq!(
        error(&format!("train --init-from {file}")),
        format!("{file}: has weights only; create a run with `trainer import`, and name the run")
    );
    assert!(error("train --init-from missing").starts_with("missing: no run folder"));
    let names = fs::read_dir(work.path("artifacts/runs")).unwrap();
    assert_eq!(names.count(), 1, "only the source");
}
