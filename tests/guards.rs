//! Warnings of trainings that do not learn, and of settings without effect.

use serde_json::Value;

use crate::support::WorkDir;

/// Returns the warnings that a command prints.
fn warnings(dir: &WorkDir, arguments: &str) -> Vec<String> {
    let stderr = dir.trainer(arguments).success().stderr;
    let warnings = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "));
    warnings.map(String::from).collect()
}

#[test]
fn a_training_that_diverges_warns_once_with_the_remedy() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --lr 50 --limit-train 12000 --epochs 2 --progress plain";
    let warnings = warnings(&dir, arguments);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.starts_with("epoch 1, step 100: the loss is "),
        "{warning}"
    );
    let remedy = "try a smaller --learning-rate than 50; `trainer find-lr` suggests one";
    assert!(warning.ends_with(remedy), "{warning}");
    assert!(dir.run_text("tiny-1", "train.log").contains(warning));
    let events = dir.run_text("tiny-1", "metrics.jsonl");
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let logged: Vec<Value> = events.filter(|event| event["event"] == "warning").collect();
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0]["message"], **warning);
    assert_eq!(logged[0]["steps"], 100);
}

#[test]
fn a_network_at_chance_warns_after_an_epoch() {
    let dir = WorkDir::new();
    let sgd =
        "--preset tiny --optimizer sgd --lr 1e-9 --limit-train 6000 --epochs 2 --progress plain";
    for (validation, split) in [("", "validation"), ("--validation 0", "training")] {
        let warnings = warnings(&dir, &format!("{sgd} {validation} --seed 3"));
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(
            warning.contains(&format!(": the {split} accuracy is ")),
            "{warning}"
        );
        assert!(warning.contains("no better than chance, 10.00%; try another --learning-rate"));
    }
}

#[test]
fn settings_without_effect_warn_by_the_name_that_the_user_wrote() {
    let dir = WorkDir::new();
    std::fs::write(dir.path("my.toml"), "training.decay_epochs = 1").unwrap();
    let arguments = "--preset tiny --max-steps 5 --progress plain";
    let found = warnings(
        &dir,
        &format!(
            "{arguments} --config my.toml --warmup-steps 5 --limit-train 70000 --momentum 0.8"
        ),
    );
    assert_eq!(
        found,
        [
            "training.decay_epochs = 1 has no effect: the schedule is constant, not step or plateau",
            "--limit-train 70000 has no effect: the data set has 60000 training images",
            "--momentum 0.8 has no effect: the optimizer is adam, not sgd or muon",
            "--warmup-steps 5 has no effect: the training has 5 steps, so the learning rate never reaches its maximum",
        ]
    );
    let log = dir.run_text("tiny-1", "train.log");
    assert!(found.iter().all(|warning| log.contains(warning)), "{log}");
    // Neither the same training without them, nor its configuration as a file, nor its continuation.
    let config = "artifacts/runs/tiny-1/config.toml";
    for arguments in [
        arguments.to_string(),
        format!("--config {config} --progress plain --warmup-steps 4"),
        "--resume tiny-1 --max-steps 6 --progress plain".into(),
    ] {
        let found = warnings(&dir, &arguments);
        let expected = match arguments.contains("--config") {
            // The file repeats these settings, which the preset does not have.
            true => 3,
            false => 0,
        };
        assert_eq!(found.len(), expected, "{found:?}");
    }
}

#[test]
fn two_averages_of_the_weights_are_an_error() {
    let dir = WorkDir::new();
    assert_eq!(
        dir.trainer("--preset tiny --ema-decay 0.9 --lookahead 5")
            .error(),
        "training.ema_decay = 0.9 and training.lookahead = 5: both replace the weights by an average; set one of \
         them to 0"
    );
    assert!(!dir.has_runs());
}
