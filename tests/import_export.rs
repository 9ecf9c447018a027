//! The commands import and export.

use std::fs;

use serde_json::Value;

use crate::support::{WorkDir, idx, project};

/// Returns the path of a file with weights of the preset `tiny`, trained and saved by PyTorch or Keras.
fn fixture(name: &str) -> String {
    project("tests/weights").join(name).display().to_string()
}

#[test]
fn imported_network_works_with_all_commands() {
    let work = WorkDir::new();
    let imported = work
        .trainer(&format!(
            "import {} --preset tiny --epochs 1 --limit-train 600",
            fixture("tiny.pt")
        ))
        .success();
    let lines: Vec<&str> = imported.stdout.lines().collect();
    assert!(
        lines[1].starts_with("test        0.") && lines[1].ends_with('%'),
        "{lines:?}"
    );
    assert_eq!(lines[2], "saved in    artifacts/runs/tiny-1");
    let percent: f64 = lines[1]
        .rsplit(' ')
        .next()
        .unwrap()
        .trim_end_matches('%')
        .parse()
        .unwrap();
    assert!(percent > 93.0, "{percent}");
    let evaluation: Value =
        serde_json::from_str(&work.trainer("evaluate latest --json").success().stdout).unwrap();
    assert!((evaluation["accuracy"].as_f64().unwrap() * 100.0 - percent).abs() < 0.005);

    let predicted = work
        .trainer("predict latest --test-index 0 -q")
        .success()
        .stdout;
    assert!(predicted.contains("true 7, right"), "{predicted}");
    assert!(
        work.trainer("inspect latest")
            .success()
            .stdout
            .contains("figures/filters-block1.svg")
    );
    work.trainer("report latest").success();
    let table = work.trainer("compare tiny-1 pretrained").success().stdout;
    let row = table.lines().nth(1).unwrap();
    assert!(
        row.starts_with("tiny-1 ") && row.contains(&format!("{percent:.2}%")),
        "{table}"
    );

    let before = work.run_file("tiny-1", "model.safetensors");
    work.trainer("train --resume tiny-1 -q").success();
    assert_ne!(work.run_file("tiny-1", "model.safetensors"), before);
    assert_eq!(work.run_text("tiny-1", "metrics.csv").lines().count(), 2);
    // From random initial weights, one epoch on 540 images reaches less than 70%.
    let evaluation: Value =
        serde_json::from_str(&work.run_text("tiny-1", "evaluation.json")).unwrap();
    assert!(
        evaluation["accuracy"].as_f64().unwrap() > 0.9,
        "{evaluation}"
    );
}

#[test]
fn whole_models_of_keras_describe_themselves() {
    let work = WorkDir::new();
    let preset = format!(
        "import {} --preset tiny --run-name preset",
        fixture("tiny.pt")
    );
    work.trainer(&preset).success();
    let expected = work.run_text("preset", "evaluation.json");
    for name in ["tiny.keras", "tiny-whole.h5"] {
        let import = work
            .trainer(&format!("import {} --run-name {name}", fixture(name)))
            .success();
        assert_eq!(work.run_text(name, "evaluation.json"), expected, "{name}");
        // The file does not say that pixels were divided by 255.
        let choice = "read as the network in the file, normalization unit: 93";
        assert!(import.stderr.contains(choice), "{}", import.stderr);
        let config = work.run_text(name, "config.toml");
        assert!(config.contains("normalization = \"unit\""), "{config}");
    }
    // A given normalization is not questioned.
    work.trainer(&format!(
        "import {} --normalization mean-std --run-name given",
        fixture("tiny.keras")
    ))
    .success();
    assert!(
        work.run_text("given", "config.toml")
            .contains("normalization = \"mean-std\"")
    );
}

#[test]
fn networks_of_weights_are_recognized() {
    let work = WorkDir::new();
    work.trainer(&format!(
        "import {} --config {} --run-name described",
        fixture("lenet.pt"),
        fixture("lenet.toml")
    ))
    .success();
    let expected = work.run_text("described", "evaluation.json");
    for name in ["lenet.pt", "lenet.safetensors", "lenet.weights.h5"] {
        let import = work
            .trainer(&format!("import {} --run-name {name}", fixture(name)))
            .success();
        let choice = "read as 5x5 convolution, padding 2, ReLU, 2x2 max-pool, 5x5 convolution, no padding, ReLU, \
                      2x2 max-pool, flattened channels ";
        assert!(import.stderr.contains(choice), "{}", import.stderr);
        assert!(import.stderr.contains("normalization mean-std: 9"));
        assert_eq!(work.run_text(name, "evaluation.json"), expected, "{name}");
    }
    // The modules of Burn's example for MNIST. Batch normalization tells GELU from ReLU.
    let name = "burn-example.safetensors";
    let import = work
        .trainer(&format!("import {} --run-name burn", fixture(name)))
        .success();
    let choice = "read as 2 x (3x3 convolution, no padding, batch norm, GELU, 2x2 max-pool), flattened channels first, \
                  1 dense layer with GELU, normalization mean-std: 98.6%";
    assert!(import.stderr.contains(choice), "{}", import.stderr);
    assert!(import.stdout.contains("98.42%"), "{}", import.stdout);
    // The description has another normalization.
    let wrong = format!(
        "import {} --config {} --normalization half --run-name wrong",
        fixture("lenet.pt"),
        fixture("lenet.toml")
    );
    let wrong = work.trainer(&wrong).success();
    assert!(
        wrong.stderr.contains("the weights are far better as 5x5"),
        "{}",
        wrong.stderr
    );
    // A network that is not accurate may be any.
    let error = work
        .trainer(&format!("import {}", fixture("tiny.pt")))
        .error_lines()
        .join("\n");
    assert!(
        error.contains("none is right for 97% of 5000 training images:\n  93"),
        "{error}"
    );
    // Images of which the network knows nothing
    let noise = work.images();
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    for (split, count) in [("train", 40), ("t10k", 10)] {
        let pixels: Vec<u8> = (0..count * 784)
            .map(|pixel| (pixel * 7 % 251) as u8)
            .collect();
        let labels: Vec<u8> = (0..count).map(|image| (image % 10) as u8).collect();
        let images = idx(2051, &[size(&labels), 28, 28], &pixels);
        noise.write(&format!("{split}-images-idx3-ubyte"), &images);
        let labels = idx(2049, &[size(&labels)], &labels);
        noise.write(&format!("{split}-labels-idx1-ubyte"), &labels);
    }
    let error = work
        .trainer(&format!(
            "import {} --data {}",
            fixture("tiny.pt"),
            noise.folder().display()
        ))
        .error_lines()
        .join("\n");
    assert!(
        error.contains("none is right for 97% of 36 training images:")
            && error.contains("choose other images with --data"),
        "{error}"
    );
}

#[test]
fn whole_modules_of_pytorch_describe_themselves() {
    let work = WorkDir::new();
    let import = |name: &str| {
        let flags = format!("--run-name {name} --normalization unit");
        let import = work
            .trainer(&format!("import {} {flags}", fixture(name)))
            .success();
        let size = "the file states no size of images; 28x28 pixels fit the layers";
        assert!(import.stderr.contains(size), "{}", import.stderr);
        work.run_text(name, "evaluation.json")
    };
    let evaluation = import("module.pt");
    assert_eq!(import("module-legacy.pt"), evaluation);
    let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
    assert!(
        evaluation["accuracy"].as_f64().unwrap() > 0.8,
        "{evaluation}"
    );
}

#[test]
fn weights_of_other_networks_are_refused_in_one_sentence() {
    let work = WorkDir::new();
    let file = fixture("tiny.pt");
    let error = work
        .trainer(&format!("import {file} --prefix ema."))
        .error();
    assert_eq!(
        error,
        format!("{file}: no tensor has the prefix ema.; the file holds one network")
    );
    let header = r#"{"images":{"dtype":"U8","shape":[6,4,4],"data_offsets":[0,96]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 96]);
    fs::write(work.path("data.safetensors"), bytes).unwrap();
    assert_eq!(
        work.trainer("import data.safetensors").error(),
        "data.safetensors: the file holds no layer of a network: its largest tensor is images [6, 4, 4]"
    );
}

#[test]
fn exported_weights_can_be_imported_unchanged() {
    let work = WorkDir::new();
    let import = |file: &str, run: &str| {
        work.trainer(&format!("import {file} --preset tiny --run-name {run} -q"))
            .success();
    };
    import(&fixture("tiny.weights.h5"), "first");
    for (format, ending) in [
        ("pytorch-safetensors", "safetensors"),
        ("pytorch", "pt"),
        ("safetensors", "burn.safetensors"),
        ("keras-weights", "weights.h5"),
    ] {
        let export = |run: &str| {
            let path = work
                .trainer(&format!("export {run} --format {format} -q"))
                .success()
                .stdout;
            assert_eq!(
                path,
                format!("artifacts/runs/{run}/export/{run}.{ending}\n")
            );
            fs::read(work.path(path.trim_end())).unwrap()
        };
        let first = export("first");
        let again = format!("again-{format}");
        import(
            &format!("artifacts/runs/first/export/first.{ending}"),
            &again,
        );
        assert!(export(&again) == first, "{format}");
        assert!(
            work.run_file(&again, "model.safetensors")
                == work.run_file("first", "model.safetensors")
        );
    }
    work.trainer("export first --format burnpack --half --to half.bpk")
        .success();
    import("half.bpk", "half");
    assert!(
        work.run_file("half", "model.safetensors").len()
            == work.run_file("first", "model.safetensors").len()
    );
    let size = |file: &str| fs::metadata(work.path(file)).unwrap().len();
    for options in ["", " --half", " --raw-pixels"] {
        work.trainer(&format!("export first --format onnx{options}"))
            .success();
    }
    let folder = "artifacts/runs/first/export/first";
    assert!(size(&format!("{folder}.half.onnx")) < size(&format!("{folder}.onnx")) * 6 / 10);
    assert!(size(&format!("{folder}.raw-pixels.onnx")) > size(&format!("{folder}.onnx")));

    let message = work
        .trainer("export first --format onnx --to half.bpk")
        .error();
    assert_eq!(message, "half.bpk: already exists; choose another --to");
    let message = work
        .trainer("export first --format burnpack --raw-pixels")
        .error();
    assert!(
        message.starts_with("--raw-pixels: only a file of the network"),
        "{message}"
    );
    let message = work.trainer("export first --format keras --half").error();
    assert!(message.starts_with("--half: not for Keras"), "{message}");
}

#[test]
fn exported_networks_describe_themselves() {
    let work = WorkDir::new();
    work.trainer(&format!(
        "import {} --run-name tiny -q",
        fixture("tiny.keras")
    ))
    .success();
    for format in ["onnx", "keras"] {
        for raw in ["", "--raw-pixels"] {
            let (file, run) = (format!("tiny{raw}.{format}"), format!("{format}{raw}"));
            work.trainer(&format!("export tiny --format {format} {raw} --to {file}"))
                .success();
            work.trainer(&format!("import {file} --run-name {run} -q"))
                .success();
            assert!(
                work.run_file(&run, "model.safetensors")
                    == work.run_file("tiny", "model.safetensors"),
                "{file}"
            );
        }
    }
}

#[test]
fn mismatched_weights_are_reported_with_the_fitting_preset() {
    let work = WorkDir::new();
    let message = work
        .trainer(&format!("import {} --preset convnet", fixture("tiny.pt")))
        .error();
    let file = fixture("tiny.pt");
    assert_eq!(
        message,
        format!(
            "{file}: the weights do not fit preset convnet:\n  \
             conv1.weight [8, 1, 3, 3]: expected [32, 1, 3, 3]\n  \
             conv1.bias [8]: expected [32]\n  \
             conv2.weight [64, 32, 3, 3]: missing\n  \
             conv2.bias [64]: missing\n  \
             fc1.weight [10, 1352]: expected [128, 3136]\n  \
             fc1.bias [10]: expected [128]\n  \
             fc2.weight [10, 128]: missing\n  \
             fc2.bias [10]: missing\n\
             the weights fit --preset tiny"
        )
    );
    let odd = "blocks = [{ channels = 8, kernel = 5, padding = 0, pool = false }]";
    fs::write(work.path("odd.toml"), format!("[model]\n{odd}\n")).unwrap();
    let message = work
        .trainer(&format!("import {file} --config odd.toml"))
        .error();
    assert!(
        message.contains("the weights fit --preset tiny"),
        "{message}"
    );
    let message = work.trainer("import .").error();
    assert_eq!(message, ".: a folder, expected a regular file");
    assert!(!work.has_runs());
}

#[test]
fn reports_weights_that_are_not_finite() {
    let work = WorkDir::new();
    let mut bytes = fs::read(fixture("tiny.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(work.path("nan.safetensors"), bytes).unwrap();
    let imported = work
        .trainer("import nan.safetensors --preset tiny")
        .success();
    assert!(
        imported
            .stderr
            .contains("fc1.weight: 1 of 13520 values are not finite"),
        "{}",
        imported.stderr
    );
    assert!(
        work.trainer("evaluate latest -q")
            .error()
            .ends_with("some weights are not finite")
    );
}

#[test]
fn pretrained_network_is_embedded() {
    let work = WorkDir::new();
    let digit = project("tests/handwriting/7-marker.png");
    let predicted = work
        .trainer(&format!("predict pretrained {} -q", digit.display()))
        .success();
    assert!(
        predicted.stdout.contains("7-marker.png  7  "),
        "{}",
        predicted.stdout
    );
    // Prediction writes no file.
    assert!(!work.path("artifacts").exists());
    work.trainer("export pretrained --format onnx").success();
    assert!(
        work.path("artifacts/pretrained/export/pretrained.onnx")
            .exists()
    );
    work.trainer("inspect pretrained").success();
    let figures = work.path("artifacts/pretrained/figures");
    assert_eq!(
        fs::read_to_string(figures.join("confusion.svg")).unwrap(),
        fs::read_to_string(project("artifacts/pretrained/figures/confusion.svg")).unwrap()
    );
    let message = work.trainer("train --resume pretrained").error();
    assert_eq!(
        message,
        "artifacts/pretrained: has weights but no checkpoint to resume from"
    );
}

#[test]
fn a_described_network_may_have_images_of_any_size() {
    let dir = WorkDir::new();
    // Images of 8x8 pixels, while the default size is 28.
    dir.images();
    dir.trainer("--data data --preset tiny --max-steps 1 --run-name small")
        .success();
    let arguments = "import artifacts/runs/small/model.safetensors --config artifacts/runs/small/config.toml --data data \
                     --run-name again";
    dir.trainer(arguments).success();
}
