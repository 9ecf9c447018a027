//! The commands inspect, report, compare and explain.

use std::collections::HashSet;
use std::fs;

use serde_json::Value;

use crate::support::{Output, WorkDir, idx, project};

#[test]
fn inspect_draws_augmented_training_images() {
    let dir = WorkDir::new();
    let error = dir.trainer(&format!("inspect {} --augmentation", dir.shipped()));
    assert_eq!(error.error(), "this run has no augmentation");
    let augmentation = "--rotation 10 --elastic 0.02 --limit-train 3 --validation 0";
    dir.trainer(&format!(
        "--preset tiny --max-steps 1 --run-name r {augmentation}"
    ))
    .success();
    let drawn = dir.trainer("inspect r --augmentation").success().stdout;
    let figure = "artifacts/runs/r/figures/augmentation";
    assert_eq!(drawn, format!("{figure}.svg\n{figure}.png\n"));
    let svg = dir.run_text("r", "figures/augmentation.svg");
    // Three images with eight variants each, all different.
    let pictures: HashSet<&str> = svg
        .split("base64,")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(pictures.len(), 27);
    let all = dir.trainer("inspect r").success().stdout;
    assert!(all.starts_with(&drawn), "{all}");

    // The weights of mixed images are in the figure.
    let mixing = "--flip=alternating --mixup 0.5 --limit-train 3 --validation 0";
    dir.trainer(&format!(
        "--preset tiny --max-steps 1 --run-name mixed {mixing}"
    ))
    .success();
    dir.trainer("inspect mixed --augmentation").success();
    let svg = dir.run_text("mixed", "figures/augmentation.svg");
    assert_eq!(svg.matches("% + ").count(), 8, "{svg}");
}

#[test]
fn inspect_draws_all_figures() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let text = dir.trainer(&format!("inspect {run}")).success().stdout;
    let names = [
        "curves",
        "filters-block1",
        "feature-maps-block1",
        "predictions",
        "mistakes",
        "grad-cam",
        "confusion",
        "classes",
    ];
    let expected: Vec<String> = names
        .iter()
        .flat_map(|name| {
            ["svg", "png"].map(|ending| format!("artifacts/runs/shipped/figures/{name}.{ending}"))
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    for name in names {
        let svg = dir.run_text(run, &format!("figures/{name}.svg"));
        let png =
            image::load_from_memory(&dir.run_file(run, &format!("figures/{name}.png"))).unwrap();
        // Twice the size of the drawing, and not blank.
        let size = format!("viewBox=\"0 0 {} {}\"", png.width() / 2, png.height() / 2);
        assert!(svg.contains(&size), "{name}: {size}");
        let pixels = png.into_rgb8();
        let white = pixels.pixels().filter(|pixel| pixel.0 == [255; 3]).count();
        let part = white as f64 / pixels.pixels().count() as f64;
        assert!(
            (0.1..0.97).contains(&part),
            "{name}: {part} of the pixels are white"
        );
    }
    let words = |name: &str| dir.run_text(run, &format!("figures/{name}.svg"));
    assert_eq!(words("filters-block1").matches("<image ").count(), 32);
    assert_eq!(words("feature-maps-block1").matches("<image ").count(), 9);
    assert!(words("feature-maps-block1").contains("label 7"));
    assert_eq!(words("predictions").matches("<image ").count(), 5);
    assert_eq!(words("mistakes").matches("predicted").count(), 10);
    assert_eq!(words("grad-cam").matches("<image ").count(), 12);
    assert!(words("curves").contains("saved weights: epoch 4"));
    let evaluation: Value = serde_json::from_slice(&dir.run_file(run, "evaluation.json")).unwrap();
    for row in evaluation["confusion"].as_array().unwrap() {
        for count in row.as_array().unwrap().iter().filter(|count| **count != 0) {
            assert!(
                words("confusion").contains(&format!("\n{count}\n")),
                "{count}"
            );
        }
    }
}

#[test]
fn inspect_selects_blocks_maps_channels_and_images() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let mut command = dir.command(&format!(
        "inspect {run} --block 2 --channel 31 --maps 0,63 --count 12 --mistakes 3 --seed 1"
    ));
    command
        .arg("--image")
        .arg(project("tests/handwriting/4-photo-shadow.jpg"));
    Output::of(&mut command).success();
    let words = |name: &str| dir.run_text(run, &format!("figures/{name}.svg"));
    assert_eq!(
        words("filters-block2-channel31").matches("<image ").count(),
        64
    );
    assert!(words("feature-maps-block2").contains("predicted 4"));
    assert!(words("feature-maps-block2").contains("map 63"));
    assert_eq!(words("predictions").matches("<image ").count(), 12);
    assert_eq!(words("mistakes").matches("<image ").count(), 3);

    for (arguments, expected) in [
        ("--block 3", "block 3: this network has blocks 1 to 2"),
        ("--block 0", "block 0: this network has blocks 1 to 2"),
        (
            "--maps 5,32",
            "feature map 32: block 1 has feature maps 0 to 31",
        ),
        (
            "--block 2 --channel 32",
            "channel 32: block 2 has input channels 0 to 31",
        ),
        (
            "--image 10000",
            "test image 10000: the test split has images 0 to 9999",
        ),
    ] {
        let lines = dir
            .trainer(&format!("inspect {run} {arguments}"))
            .error_lines();
        assert_eq!(lines.last().unwrap(), &format!("error: {expected}"));
    }
}

#[test]
fn report_is_self_contained() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let text = dir.trainer(&format!("report {run}")).success().stdout;
    assert_eq!(text, "artifacts/runs/shipped/report.html\n");
    let report = dir.run_text(run, "report.html");
    assert_eq!(report.matches("<svg ").count(), 8);
    assert_eq!(
        report.matches("<svg ").count(),
        report.matches("</svg>").count()
    );
    // No script, style sheet or image is loaded from elsewhere.
    let references = report
        .match_indices("href=\"")
        .chain(report.match_indices("src=\""));
    for (at, _) in references {
        let rest = &report[at..at + 60];
        assert!(rest.starts_with("href=\"data:"), "{rest}");
    }
    for part in ["<script", "@import", "url(", "<link rel=\"stylesheet"] {
        assert!(!report.contains(part), "{part}");
    }
    for part in [
        "<dd>98.99%</dd>",
        "<td>conv2</td>",
        "<td>421642</td>",
        "learning_rate = 0.001",
        "trainer --config artifacts/runs/shipped/config.toml",
        "Burn 0.22.1",
    ] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn compare_uses_the_dense_network_as_baseline() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    dir.trainer("--preset dense --limit-train 6000 --epochs 2")
        .success();
    let text = dir
        .trainer(&format!("compare {run} dense-1"))
        .success()
        .stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("run      parameters  epochs  validation    test"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("shipped      421642       5      98.85%  98.99%  0.0356"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("dense-1      101770       2"),
        "{text}"
    );
    assert!(lines[2].ends_with("+0.00"), "{text}");
    assert!(lines[3].contains("minus that of dense-1"), "{text}");
    let svg = fs::read_to_string(dir.path("artifacts/runs/comparison.svg")).unwrap();
    assert!(svg.contains("dense-1") && svg.contains("shipped"));

    let json = dir
        .trainer(&format!("compare {run} dense-1 --json --figure mine.svg"))
        .success();
    let rows: Value = serde_json::from_str(&json.stdout).unwrap();
    let test = |row: usize| rows[row]["test"]["accuracy"].as_f64().unwrap();
    let gain = rows[0]["gain"].as_f64().unwrap();
    assert!(
        gain > 1.0 && (gain - 100.0 * (test(0) - test(1))).abs() < 1e-9,
        "{rows}"
    );
    assert!(dir.path("mine.png").is_file());

    let error = dir.trainer("compare dense-1 nowhere").error();
    assert!(error.starts_with("nowhere: no run folder"), "{error}");
}

#[test]
fn compare_averages_runs_that_differ_in_their_seeds_only() {
    let dir = WorkDir::new();
    let train = |name: &str, arguments: &str| {
        let settings = "--preset dense -q --run-name";
        dir.trainer(&format!("{settings} {name} {arguments}"))
            .success();
        let evaluation: Value =
            serde_json::from_slice(&dir.run_file(name, "evaluation.json")).unwrap();
        100.0 * evaluation["accuracy"].as_f64().unwrap()
    };
    let a = train("a", "--seed 1 --limit-train 300 --epochs 1");
    let b = train(
        "b",
        "--seed 2 --limit-train 300 --epochs 1 --checkpoint-every 2 --report-test",
    );
    train("more", "--seed 1 --limit-train 600 --epochs 1");
    train("longer", "--seed 1 --limit-train 300 --epochs 2");
    let copy = dir.path("artifacts/runs/copy");
    fs::create_dir(&copy).unwrap();
    for file in ["config.toml", "metrics.jsonl", "evaluation.json"] {
        fs::write(copy.join(file), dir.run_file("a", file)).unwrap();
    }
    let notes = |runs: &str| -> Vec<String> {
        let compared = dir.trainer(&format!("compare {runs}")).success().stdout;
        let lines = compared.lines().filter(|line| line.contains(": "));
        let is_note = |line: &&str| !line.starts_with("gain: ") && !line.starts_with("figure: ");
        lines.filter(is_note).map(String::from).collect()
    };
    let mean = (a + b) / 2.0;
    // Of two numbers: their difference divided by the square root of 2.
    let deviation = (a - b).abs() / 2.0f64.sqrt();
    assert!(deviation > 0.0);
    let statistics =
        format!("2 runs, test accuracy {mean:.3}% on average, standard deviation {deviation:.3}");
    assert_eq!(notes("a b"), [format!("dense: {statistics}")]);
    assert_eq!(
        notes("a artifacts/runs/b artifacts/../artifacts/runs/a b a"),
        [
            "a: given 3 times, counted once".into(),
            "b: given 2 times, counted once".into(),
            format!("dense: {statistics}"),
        ]
    );
    assert_eq!(notes("a a"), ["a: given 2 times, counted once"]);
    assert_eq!(
        notes("more a longer b"),
        [format!(
            "dense (completed epochs = 1, data.limit_train = 300, training.epochs = 1): {statistics}"
        )]
    );
    assert_eq!(notes("a more longer"), [""; 0]);
    assert_eq!(
        notes("a copy"),
        [
            format!("dense: 2 runs, test accuracy {a:.3}% on average, standard deviation 0.000"),
            "dense: a, copy have the same seed 1".into(),
        ]
    );
    let json = dir.trainer("compare a more b a --json").success().stdout;
    let rows: Value = serde_json::from_str(&json).unwrap();
    let column = |name: &str| -> Vec<Value> {
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row[name].clone())
            .collect()
    };
    assert_eq!(column("group"), [0, 1, 0, 0]);
    assert_eq!(column("seed"), [1, 1, 2, 1]);
    assert_eq!(column("duplicate"), [false, false, false, true]);
}

#[test]
fn compare_requires_an_evaluated_baseline() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    dir.trainer("--preset dense --limit-train 600 --epochs 1")
        .success();
    dir.trainer("--preset dense --limit-train 600 --epochs 1")
        .success();
    fs::remove_file(dir.path("artifacts/runs/dense-1/evaluation.json")).unwrap();
    let text = dir
        .trainer(&format!("compare dense-1 {run} dense-2"))
        .success()
        .stdout;
    assert!(text.contains("minus that of dense-2"), "{text}");
    let text = dir
        .trainer(&format!("compare dense-1 {run}"))
        .success()
        .stdout;
    assert!(
        text.contains("gain: needs an evaluated dense network"),
        "{text}"
    );
    let error = dir
        .trainer(&format!("compare {run} {run} --baseline dense-1"))
        .error();
    assert!(
        error.starts_with("dense-1: not evaluated on the test split"),
        "{error}"
    );
}

#[test]
fn figures_keep_the_aspect_ratio_of_images() {
    let dir = WorkDir::new();
    let images = dir.images();
    // The pixels of 8x8 images, as images of 4x16.
    for (prefix, count) in [("train", 60u32), ("t10k", 30)] {
        let name = format!("{prefix}-images-idx3-ubyte");
        let bytes = fs::read(images.file(&name)).unwrap();
        images.write(&name, &idx(0x803, &[count, 4, 16], &bytes[16..]));
    }
    dir.trainer("--data data --preset tiny --epochs 1 --out here --run-name one")
        .success();
    dir.trainer("inspect here/one").success();
    let svg = fs::read_to_string(dir.path("here/one/figures/predictions.svg")).unwrap();
    let sizes: Vec<&str> = svg
        .lines()
        .filter(|line| line.starts_with("<image "))
        .map(|line| &line[line.find("height=").unwrap()..][..11])
        .collect();
    assert_eq!(sizes, ["height=\"28\""; 5]);
    let curves = fs::read_to_string(dir.path("here/one/figures/curves.svg")).unwrap();
    assert!(
        !curves.contains("\n2\n"),
        "tick for an epoch that does not exist"
    );
}

#[test]
fn inspect_draws_no_filters_of_a_dense_network() {
    let dir = WorkDir::new();
    dir.trainer("--preset dense --limit-train 600 --epochs 1")
        .success();
    let text = dir.trainer("inspect latest").success().stdout;
    assert!(
        text.contains("figures/confusion.svg") && !text.contains("filters"),
        "{text}"
    );
    let lines = dir.trainer("inspect latest --block 1").error_lines();
    assert_eq!(
        lines.last().unwrap(),
        "error: block 1: this network has no convolution blocks, only dense layers"
    );
}

#[test]
fn explain_prints_every_calculation() {
    let dir = WorkDir::new();
    let text = dir.trainer("explain").success().stdout;
    for part in [
        "  row 0, column 1: 2·1 + 0·0 + 1·0 + 3·1 = 5\n",
        "Feature map\n  2 5 1\n  2 2 3\n  2 3 4\n",
        "  row 0, column 0: max(2, 5, 2, 2) = 5\n\nAfter max-pooling\n  5\n",
        "  row 1, column 1: max(5, 2, 3, 9) = 9\n\nAfter max-pooling\n  3 4\n  4 9\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        text.matches("layers of the network compute the same result on")
            .count(),
        2
    );

    let edge = dir
        .trainer("explain --kernel edge --image 1,1,1;1,5,1;1,1,1")
        .success()
        .stdout;
    assert!(edge.contains("1·(-1) + 5·8 + 1·(-1)"), "{edge}");
    assert!(
        edge.contains("Feature map\n  32\n") && edge.contains("no 2x2 window fits"),
        "{edge}"
    );

    let error = dir.trainer("explain --kernel edge --image 1,2;3,4").error();
    assert_eq!(error, "--kernel: 3x3 is larger than the image of 2x2");
    let error = dir.trainer("explain --image 1,2;3").error();
    assert!(
        error.contains("row 1 has 1 numbers, expected 2 as in row 0"),
        "{error}"
    );
}
