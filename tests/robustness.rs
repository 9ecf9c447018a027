//! The accuracy under corruptions and attacks: `evaluate --corruptions --adversarial`, and the figures.

use data::Dataset;
use serde_json::Value;

use crate::support::{WorkDir, idx};

const NAMES: [&str; 9] = [
    "shift",
    "rotation",
    "scale",
    "blur",
    "noise",
    "contrast",
    "stroke-width",
    "occlusion",
    "jpeg",
];

/// Writes the folder `data` with the first 100 test images of MNIST in both splits.
fn write_digits(dir: &WorkDir) {
    let images = dir.images();
    let test = Dataset::embedded_mnist().unwrap().test;
    let pixels = (0..100).map(|index| test.pixels(index).unwrap().into_owned());
    let pixels: Vec<u8> = pixels.flatten().collect();
    let labels: Vec<u8> = test.labels().take(100).collect();
    for prefix in ["train", "t10k"] {
        let pixels = idx(0x803, &[100, 28, 28], &pixels);
        images.write(&format!("{prefix}-images-idx3-ubyte"), &pixels);
        let labels = idx(0x801, &[100], &labels);
        images.write(&format!("{prefix}-labels-idx1-ubyte"), &labels);
    }
}

#[test]
fn evaluate_measures_the_accuracy_under_corruptions_and_attacks() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    write_digits(&dir);
    let flags = "--data data --corruptions --adversarial 0.2,0.05 --limit 60";
    let json = dir
        .trainer(&format!("evaluate {run} {flags} --json"))
        .success();
    let mut report: Value = serde_json::from_str(&json.stdout).unwrap();
    let report = report.as_object_mut().unwrap();
    let corruptions = report.remove("corruptions").unwrap();
    let adversarial = report.remove("adversarial").unwrap();
    // All other fields are those of an evaluation without the flags.
    let plain = dir
        .trainer(&format!("evaluate {run} --data data --json"))
        .success();
    let plain: Value = serde_json::from_str(&plain.stdout).unwrap();
    assert_eq!(*report, *plain.as_object().unwrap());

    assert_eq!(corruptions["images"], 60);
    let number = |value: &Value| value.as_f64().unwrap();
    let clean = number(&corruptions["clean_accuracy"]);
    assert!(clean > 0.95, "{clean}");
    let rows = corruptions["corruptions"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["corruption"].as_str())
        .collect();
    assert_eq!(names, NAMES);
    let mut sum = 0.0;
    for row in rows {
        let accuracy: Vec<f64> = row["accuracy"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect();
        assert_eq!(accuracy.len(), 5);
        assert!(accuracy[0] > 0.8, "{row}");
        let mean = accuracy.iter().sum::<f64>() / 5.0;
        assert!((number(&row["mean_accuracy"]) - mean).abs() < 1e-9, "{row}");
        sum += mean;
    }
    assert!((number(&corruptions["mean_accuracy"]) - sum / 9.0).abs() < 1e-9);
    // Shifts by a fifth of the side are hard for this network.
    assert!(number(&rows[0]["accuracy"][4]) < 0.6, "{}", rows[0]);

    assert_eq!(adversarial["norm"], "L-infinity");
    assert_eq!(adversarial["images"], 60);
    let rows = adversarial["epsilons"].as_array().unwrap();
    assert_eq!([&rows[0]["epsilon"], &rows[1]["epsilon"]], [0.05, 0.2]);
    for row in rows {
        assert!(number(&row["pgd"]) <= number(&row["fgsm"]), "{row}");
        assert!(number(&row["fgsm"]) <= clean, "{row}");
    }
    for figure in ["corruptions", "adversarial"] {
        let svg = dir.run_text(run, &format!("figures/{figure}.svg"));
        assert!(svg.contains("Accuracy "), "{svg}");
        image::load_from_memory(&dir.run_file(run, &format!("figures/{figure}.png"))).unwrap();
    }

    // The same seed gives the same text.
    let text = |_| {
        dir.trainer(&format!("evaluate {run} {flags}"))
            .success()
            .stdout
    };
    let [first, second] = [0, 1].map(text);
    assert_eq!(first, second);
    assert!(first.contains("stroke-width"), "{first}");
    assert!(first.contains("mean over all corruptions (mCA)"), "{first}");
    assert!(first.contains("PGD, 20 steps"), "{first}");
}

#[test]
fn inspect_draws_the_corruptions_of_an_image() {
    let dir = WorkDir::new();
    let drawn = dir.trainer(&format!(
        "inspect {} --corruptions --image 7",
        dir.shipped()
    ));
    let path = "artifacts/runs/shipped/figures/corruption-examples";
    assert_eq!(drawn.success().stdout, format!("{path}.svg\n{path}.png\n"));
    let svg = dir.run_text("shipped", "figures/corruption-examples.svg");
    assert_eq!(svg.matches("base64,").count(), 9 * 6);
    assert!(
        NAMES
            .iter()
            .all(|name| svg.contains(&format!("\n{name}\n"))),
        "{svg}"
    );
}

#[test]
fn robustness_flags_are_checked() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let error = |flags: &str| dir.trainer(&format!("evaluate {run} {flags}")).error();
    for epsilons in ["0", "-0.1", "1.5", "nan", "x", "0.1,,0.2", "0.1,"] {
        let error = error(&format!("--adversarial {epsilons}"));
        let expected = "expected a number above 0 and at most 1, such as 0.1";
        assert!(error.contains(expected), "{epsilons}: {error}");
    }
    assert!(error("--adversarial=").contains("--adversarial"));
    assert!(error("--corruptions --tta flip").contains("cannot be used with"));
    assert!(error("--adversarial 0.1 --tta 2").contains("cannot be used with"));
    assert!(error("--corruptions --limit 0").contains("0 is not in 1.."));
    assert!(error("--limit 5").contains("--corruptions"));
}

#[test]
fn small_images_have_no_corruptions_but_attacks() {
    let dir = WorkDir::new();
    let images = dir.images();
    for (prefix, count) in [("train", 60u8), ("t10k", 30)] {
        let pixels: Vec<u8> = (0..count).flat_map(|i| [100 * (i % 3); 4]).collect();
        let file = idx(0x803, &[count.into(), 2, 2], &pixels);
        images.write(&format!("{prefix}-images-idx3-ubyte"), &file);
    }
    let flags = "--preset dense --max-steps 1 --run-name small --quiet";
    dir.trainer(&format!("--data data {flags}")).success();
    assert_eq!(
        dir.trainer("evaluate small --corruptions --quiet").error(),
        "corruptions of images of 2x2 pixels: expected at least 8x8"
    );
    let attacked = dir.trainer("evaluate small --adversarial 0.1 --json --quiet");
    let report: Value = serde_json::from_str(&attacked.success().stdout).unwrap();
    assert_eq!(report["adversarial"]["images"], 30);
}
