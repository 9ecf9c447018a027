//! Ensembles, test-time augmentation and the learning rate range test.

use serde_json::Value;

use crate::support::WorkDir;

/// Trains two small runs with augmentation, `a` and `b`.
fn two_runs() -> WorkDir {
    let dir = WorkDir::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        let settings = "--preset tiny --limit-train 2000 --epochs 1 --rotation 15";
        dir.trainer(&format!("{settings} --seed {seed} --run-name {name}"))
            .success();
    }
    dir
}

fn json(dir: &WorkDir, arguments: &str) -> Value {
    let text = dir.trainer(arguments).success().stdout;
    serde_json::from_str(&text).unwrap()
}

fn loss(metrics: &Value) -> f64 {
    metrics["loss"].as_f64().unwrap()
}

#[test]
fn ensemble_averages_the_probabilities() {
    let dir = two_runs();
    let report = json(&dir, "ensemble a b --json");
    for (index, run) in ["a", "b"].into_iter().enumerate() {
        let member = &report["runs"][index];
        let alone = json(&dir, &format!("evaluate {run} --json"));
        assert_eq!(member["run"], run);
        assert_eq!(member["accuracy"], alone["accuracy"]);
        assert!((loss(member) - loss(&alone)).abs() < 1e-5);
    }
    let ensemble = &report["ensemble"];
    assert_eq!(ensemble["examples"], 10_000);
    // By Jensen's inequality, the loss of the mean probabilities is below the mean loss.
    let mean = (loss(&report["runs"][0]) + loss(&report["runs"][1])) / 2.0;
    assert!(loss(ensemble) < mean, "{ensemble}");
    // An ensemble of one network predicts as that network does.
    let same = json(&dir, "ensemble a a --json");
    assert_eq!(
        same["ensemble"]["confusion"],
        json(&dir, "evaluate a --json")["confusion"]
    );

    let text = dir.trainer("ensemble a b").success().stdout;
    assert!(
        text.contains("\nensemble, by the mean of the probabilities\naccuracy "),
        "{text}"
    );
    let compared = dir.trainer("compare a b").success().stdout;
    assert!(
        compared.contains("\ntiny: 2 runs, test accuracy "),
        "{compared}"
    );
}

#[test]
fn test_time_augmentation_averages_several_views() {
    let dir = two_runs();
    let plain = json(&dir, "evaluate a --json");
    let augmented = json(&dir, "evaluate a --tta 3 --json");
    assert_eq!(augmented["examples"], 10_000);
    assert!((loss(&augmented) - loss(&plain)).abs() > 1e-4);
    assert_eq!(augmented, json(&dir, "evaluate a --tta 3 --json"));
    assert_ne!(augmented, json(&dir, "evaluate a --tta 2 --json"));
    let ensemble = json(&dir, "ensemble a b --tta 3 --json");
    assert_eq!(ensemble["runs"][0]["accuracy"], augmented["accuracy"]);
}

#[test]
fn test_time_augmentation_by_flips_and_shifts_needs_no_augmentation_in_training() {
    let dir = WorkDir::new();
    let evaluate = |tta: &str| json(&dir, &format!("evaluate pretrained {tta} --json"));
    let [plain, flip, shift] = ["", "--tta flip", "--tta flip-shift"].map(evaluate);
    assert_eq!(flip["examples"], plain["examples"]);
    // A mirrored digit is another one, so the views cost accuracy.
    for views in [&flip, &shift] {
        let accuracy = views["accuracy"].as_f64().unwrap();
        assert!((0.5..0.99).contains(&accuracy), "{accuracy}");
    }
    assert_ne!(flip, shift);
    assert_eq!(plain, evaluate("--tta 0"));
    let ensemble = json(
        &dir,
        "ensemble pretrained pretrained --tta flip-shift --json",
    );
    assert_eq!(ensemble["runs"][1]["accuracy"], shift["accuracy"]);
    let usage = dir.trainer("evaluate pretrained --tta flips");
    assert_eq!(usage.code, Some(2));
    assert!(
        usage
            .stderr
            .contains("expected a number from 0 to 1000, flip or flip-shift"),
        "{}",
        usage.stderr
    );
}

#[test]
fn rejects_ensembles_of_different_classes_and_tta_without_augmentation() {
    let dir = WorkDir::new();
    let images = dir.images();
    dir.trainer(&format!(
        "--preset tiny --epochs 1 --data {} --run-name other",
        images.folder().display()
    ))
    .success();
    let error = dir.trainer("ensemble pretrained other").error();
    assert!(
        error.starts_with("pretrained was trained on the classes 0, 1, "),
        "{error}"
    );
    let end = "other on 0, 1, 2: an ensemble needs the same classes";
    assert!(error.ends_with(end), "{error}");
    let error = dir.trainer("ensemble pretrained nothing").error();
    assert!(error.contains("nothing"), "{error}");
    assert_eq!(dir.trainer("ensemble pretrained").code, Some(2));
    let error = dir.trainer("evaluate pretrained --tta 2").error_lines();
    assert_eq!(
        error.last().unwrap(),
        "error: --tta needs the augmentation of the training, but this run was trained without"
    );
    assert_eq!(dir.trainer("evaluate pretrained --tta -1").code, Some(2));
}

#[test]
fn find_lr_suggests_a_learning_rate() {
    let dir = WorkDir::new();
    let range_test = "find-lr --preset tiny --steps 100 --limit-train 6400";
    let report = json(&dir, &format!("{range_test} --json"));
    let suggested = report["suggestion"].as_f64().unwrap();
    assert!((1e-4..0.1).contains(&suggested), "{suggested}");
    assert!(report["points"].as_array().unwrap().len() > 50, "{report}");
    assert!(!dir.has_runs());

    let text = dir
        .trainer(&format!("{range_test} --figure rates.png"))
        .success()
        .stdout;
    assert!(
        text.contains(&format!("--learning-rate {suggested:.1e}")),
        "{text}"
    );
    assert!(
        text.ends_with("figure: rates.svg and rates.png\n"),
        "{text}"
    );
    let svg = std::fs::read_to_string(dir.path("rates.svg")).unwrap();
    assert!(svg.contains("suggested: "), "{svg}");
    image::open(dir.path("rates.png")).unwrap();

    let error = dir.trainer("find-lr --from 1 --to 0.1").error();
    assert_eq!(error, "--from 1 --to 0.1: expected 0 < FROM < TO");
    let error = dir
        .trainer(&format!("{range_test} --to 1e-5"))
        .error_lines();
    assert_eq!(
        error.last().unwrap(),
        "error: the loss did not diverge up to learning rate 1.0e-5: try a larger --to"
    );
    assert_eq!(dir.trainer("find-lr --steps 0").code, Some(2));
}
