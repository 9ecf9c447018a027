//! What is said of accuracy beyond one run: several networks, several views, several rates.

use serde_json::Value;

use crate::support::WorkDir;

/// Two small runs on the same digits, `a` and `b`, which were changed meanwhile.
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

fn loss(figures: &Value) -> f64 {
    figures["loss"].as_f64().unwrap()
}

#[test]
fn an_ensemble_has_the_mean_of_the_probabilities() {
    let dir = two_runs();
    let report = json(&dir, "ensemble a b --json");
    for (place, run) in ["a", "b"].into_iter().enumerate() {
        let member = &report["runs"][place];
        let alone = json(&dir, &format!("evaluate {run} --json"));
        assert_eq!(member["run"], run);
        assert_eq!(member["accuracy"], alone["accuracy"]);
        assert!((loss(member) - loss(&alone)).abs() < 1e-5);
    }
    let together = &report["ensemble"];
    assert_eq!(together["examples"], 10_000);
    // The mean of probabilities costs less than the mean of costs; Jensen's inequality.
    let mean = (loss(&report["runs"][0]) + loss(&report["runs"][1])) / 2.0;
    assert!(loss(together) < mean, "{together}");
    // A network agrees with itself.
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
    let as_they_are = json(&dir, "evaluate a --json");
    let changed = json(&dir, "evaluate a --tta 3 --json");
    assert_eq!(changed["examples"], 10_000);
    assert!((loss(&changed) - loss(&as_they_are)).abs() > 1e-4);
    assert_eq!(changed, json(&dir, "evaluate a --tta 3 --json"));
    assert_ne!(changed, json(&dir, "evaluate a --tta 2 --json"));
    let together = json(&dir, "ensemble a b --tta 3 --json");
    assert_eq!(together["runs"][0]["accuracy"], changed["accuracy"]);
}

#[test]
fn rejects_ensembles_of_other_classes_and_tta_without_augmentation() {
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
    assert!(error.contains("other on 0, 1, 2 of /"), "{error}");
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
fn a_learning_rate_is_suggested() {
    let dir = WorkDir::new();
    let tried = "find-lr --preset tiny --steps 100 --limit-train 6400";
    let report = json(&dir, &format!("{tried} --json"));
    let suggested = report["suggestion"].as_f64().unwrap();
    assert!((1e-4..0.1).contains(&suggested), "{suggested}");
    assert!(report["points"].as_array().unwrap().len() > 50, "{report}");
    assert!(!dir.has_runs());

    let text = dir
        .trainer(&format!("{tried} --figure rates.png"))
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
    let error = dir.trainer(&format!("{tried} --to 1e-5")).error_lines();
    assert_eq!(
        error.last().unwrap(),
        "error: the loss did not diverge up to learning rate 1.0e-5: try a larger --to"
    );
    assert_eq!(dir.trainer("find-lr --steps 0").code, Some(2));
}
