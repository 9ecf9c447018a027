//! Training and evaluation, from the command line to the files of a run.

use std::fs;

use serde_json::Value;

use crate::serve::Server;
use crate::support::WorkDir;

/// A short training on MNIST.
const QUICK: &str = "--preset dense --limit-train 6000 --epochs 1";

/// The bound of docs/kernels.md.
#[test]
fn the_evaluation_batch_changes_metrics_by_less_than_1e_5() {
    let dir = WorkDir::new();
    for preset in ["tiny", "dense"] {
        let metrics = |eval_batch_size: u32| -> Vec<Vec<f64>> {
            let run = format!("{preset}-{eval_batch_size}");
            let flags = "--limit-train 2000 --epochs 2 --report-test --quiet";
            dir.trainer(&format!(
                "--preset {preset} {flags} --eval-batch-size {eval_batch_size} --run-name {run}"
            ))
            .success();
            let evaluation = dir.run_file(&run, "evaluation.json");
            let evaluation: Value = serde_json::from_slice(&evaluation).unwrap();
            let number = |key: &str| evaluation[key].as_f64().unwrap();
            let csv = dir.run_text(&run, "metrics.csv");
            let rows = csv.lines().skip(1);
            let rows = rows.map(|row| row.split(',').map(|value| value.parse().unwrap()).collect());
            rows.chain([vec![number("loss"), number("accuracy")]])
                .collect()
        };
        let expected = metrics(250);
        assert_eq!((expected.len(), expected[0].len()), (3, 9));
        for size in [7, 64, 1000] {
            let found = metrics(size);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (found - expected).abs();
                    assert!(difference < 1e-5, "{preset} {size}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn run_folder_is_enough_to_evaluate_the_run() {
    let dir = WorkDir::new();
    let trained = dir.trainer(QUICK).success();
    assert!(
        trained
            .stdout
            .contains("saved in    artifacts/runs/dense-1"),
        "{trained:#?}"
    );
    assert!(
        trained.stderr.contains("epoch 1/1  train loss"),
        "{trained:#?}"
    );

    let evaluated = dir.trainer("evaluate dense-1 --json").success();
    let evaluation: Value = serde_json::from_str(&evaluated.stdout).unwrap();
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.85, "accuracy {accuracy}");
    assert_eq!(evaluation["examples"], 10_000);
    assert_eq!(evaluation["classes"][3]["class"], "3");
    assert_eq!(evaluation["classes"][3]["support"], 1010);

    // The training printed the same accuracy and saved the same evaluation.
    let test = trained
        .stdout
        .lines()
        .find(|line| line.starts_with("test"))
        .unwrap();
    assert!(
        test.ends_with(&format!("{:.2}%", 100.0 * accuracy)),
        "{test}"
    );
    let stored = dir.run_file("dense-1", "evaluation.json");
    assert_eq!(
        serde_json::from_slice::<Value>(&stored).unwrap(),
        evaluation
    );

    let hits: u64 = (0..10)
        .map(|i| evaluation["confusion"][i][i].as_u64().unwrap())
        .sum();
    assert_eq!(accuracy, hits as f64 / 10_000.0);

    let text = dir.trainer("evaluate latest").success().stdout;
    assert!(
        text.starts_with(&format!("accuracy {:.2}%", 100.0 * accuracy)),
        "{text}"
    );
    assert!(text.contains("confusion matrix"), "{text}");
}

#[test]
fn equal_seeds_give_equal_weights_and_other_seeds_do_not() {
    let dir = WorkDir::new();
    let weights = |name: &str, seed: u32| {
        let arguments = format!(
            "--limit-train 200 --max-steps 3 --dropout 0.5 --seed {seed} --run-name {name}"
        );
        dir.trainer(&format!("--preset tiny {arguments}")).success();
        dir.run_file(name, "model.safetensors")
    };
    let first = weights("a", 7);
    assert!(first == weights("b", 7), "equal seeds, different weights");
    assert!(first != weights("c", 8), "different seeds, equal weights");
}

#[test]
fn the_latest_run_is_the_one_that_was_created_last() {
    let dir = WorkDir::new();
    let train = "--preset tiny --limit-train 100 --max-steps 1 --run-name";
    dir.trainer(&format!("{train} first")).success();
    dir.trainer(&format!("{train} second")).success();
    let runs = dir.path("artifacts/runs");
    // Later changes of the first run, and a copy with new times.
    dir.trainer("--resume first --max-steps 2").success();
    let config = runs.join("first/config.toml");
    fs::write(&config, fs::read(&config).unwrap()).unwrap();
    fs::create_dir(runs.join("copy")).unwrap();
    for file in [
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "evaluation.json",
    ] {
        fs::copy(runs.join("first").join(file), runs.join("copy").join(file)).unwrap();
    }
    let evaluated = dir.trainer("evaluate latest").success();
    let chosen = "latest: artifacts/runs/second\n";
    assert!(evaluated.stderr.starts_with(chosen), "{}", evaluated.stderr);
    let resumed = dir.trainer("--resume latest --max-steps 2").success();
    assert!(resumed.stderr.starts_with(chosen), "{}", resumed.stderr);
    if cfg!(feature = "serve") {
        let server = Server::start(&dir, "");
        assert_eq!(server.get("/api/model").json()["run"], "second");
        let list = server.get("/api/runs").json();
        let names = list
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["id"].as_str());
        let names: Vec<_> = names.take(3).collect();
        assert_eq!(names, [Some("second"), Some("copy"), Some("first")]);
    }
    // Created, but killed before its training began.
    let events = dir.run_text("second", "metrics.jsonl");
    let creation = events.lines().next().unwrap();
    assert!(
        creation.starts_with("{\"event\":\"creation\",\"time\":\"2"),
        "{creation}"
    );
    fs::create_dir(runs.join("third")).unwrap();
    fs::copy(&config, runs.join("third/config.toml")).unwrap();
    let later = creation.replace("\"time\":\"2", "\"time\":\"3") + "\n";
    fs::write(runs.join("third/metrics.jsonl"), later).unwrap();
    let error = dir.trainer("evaluate latest -q").error();
    assert!(
        error.starts_with("artifacts/runs/third/model.safetensors: no weights yet"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn what_killed_processes_left_is_removed() {
    use std::fs::File;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    let dir = WorkDir::new();
    let train = "--preset tiny --limit-train 100 --max-steps 1 --run-name";
    dir.trainer(&format!("{train} r")).success();
    let root = dir.path("artifacts/runs");
    let make_old = |path: &Path| {
        let time = SystemTime::now() - Duration::from_secs(120);
        File::open(path).unwrap().set_modified(time).unwrap();
    };
    let leave = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "half").unwrap();
        make_old(path);
    };
    // A run in the middle of its creation, whose process lives: this one holds its lock.
    let [alive, dead] = ["alive", "dead"].map(|name| root.join(format!(".unfinished-{name}")));
    for folder in [&alive, &dead] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("config.toml"), "").unwrap();
        File::create(folder.join(".lock")).unwrap();
        make_old(folder);
    }
    let lock = File::open(alive.join(".lock")).unwrap();
    lock.try_lock().unwrap();
    dir.trainer(&format!("{train} s")).success();
    assert!(alive.exists() && !dead.exists());
    drop(lock);
    dir.trainer(&format!("{train} t")).success();
    assert!(!alive.exists());

    let files = ["", "checkpoint", "figures", "figures/seen", "export"];
    let files = files.map(|folder| root.join("r").join(folder).join(".unfinished-x"));
    files.iter().for_each(|path| leave(path));
    dir.trainer("--resume r").success();
    for path in files {
        assert!(!path.exists(), "{}", path.display());
    }
    let beside = ["a", "b"].map(|folder| dir.path(folder).join(".unfinished-x"));
    beside.iter().for_each(|path| leave(path));
    dir.trainer("export r --format onnx --to a/r.onnx")
        .success();
    dir.trainer("compare r s --figure b/figure").success();
    assert!(beside.iter().all(|path| !path.exists()));
}

#[test]
fn max_steps_ends_training_and_the_shapes_of_the_first_batch_are_logged() {
    let dir = WorkDir::new();
    let trained = dir
        .trainer("train --preset tiny --max-steps 1 --limit-train 640")
        .success();
    let shapes = "first batch: images [64, 1, 28, 28], logits [64, 10]";
    assert!(trained.stderr.contains(shapes), "{}", trained.stderr);
    assert!(
        trained.stdout.contains("ended by --max-steps"),
        "{}",
        trained.stdout
    );
    let csv = dir.run_text("tiny-1", "metrics.csv");
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 2, "{csv}");
    assert!(rows[1].starts_with("1,1,"), "{csv}");
}

#[test]
fn image_size_classes_and_normalization_come_from_the_data_set() {
    let dir = WorkDir::new();
    dir.images();
    let trained = dir
        .trainer("--data data --preset tiny --normalization mean-std --epochs 40 --batch-size 6")
        .success();
    assert!(trained.stdout.contains("100.00%"), "{}", trained.stdout);
    let config = dir.run_text("tiny-1", "config.toml");
    // Images have 0, 1 or 2 white rows of 8, so the pixels and their squares have mean 1/8.
    for line in [
        "name = \"data\"",
        "classes = [\"0\", \"1\", \"2\"]",
        "normalization = \"mean-std\"",
        "mean = 0.125",
        "std = 0.33071891388307384",
        "input = [8, 8]",
        "classes = 3",
    ] {
        assert!(config.contains(line), "no {line} in {config}");
    }
    // The images are moved to another folder.
    fs::rename(dir.path("data"), dir.path("moved")).unwrap();
    let error = dir.trainer("evaluate latest -q").error();
    assert!(
        error.contains("evaluate can use others, with --data"),
        "{error}"
    );
    let text = dir.trainer("evaluate latest --data moved").success().stdout;
    assert!(text.starts_with("accuracy 100.00%"), "{text}");
}

#[test]
fn best_epoch_is_chosen_on_validation_not_on_test() {
    let dir = WorkDir::new();
    let arguments = "--preset dense --limit-train 400 --epochs 4 --report-test";
    let trained = dir.trainer(arguments).success();
    let csv = dir.run_text("dense-1", "metrics.csv");
    let rows: Vec<Vec<f64>> = csv
        .lines()
        .skip(1)
        .map(|row| row.split(',').map(|value| value.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len(), 4);
    let by_validation =
        |a: &&Vec<f64>, b: &&Vec<f64>| (a[5], -a[4]).partial_cmp(&(b[5], -b[4])).unwrap();
    let best = rows.iter().max_by(by_validation).unwrap();
    let line = format!("best epoch  {} of 4, by validation accuracy", best[0]);
    assert!(trained.stdout.contains(&line), "{}{csv}", trained.stdout);
    // The saved weights are those of the best epoch: they reproduce its test accuracy.
    let evaluated = dir.trainer("evaluate latest --json").success();
    let evaluation: Value = serde_json::from_str(&evaluated.stdout).unwrap();
    assert_eq!(evaluation["accuracy"].as_f64().unwrap(), best[7]);
}

#[test]
fn run_is_reproducible_from_its_config_file() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --limit-train 300 --max-steps 2 --seed 5 --learning-rate 0.01";
    dir.trainer(&format!("{arguments} --run-name first"))
        .success();
    let config = "artifacts/runs/first/config.toml";
    dir.trainer(&format!("--config {config} --run-name second"))
        .success();
    for file in ["config.toml", "model.safetensors"] {
        assert!(
            dir.run_file("first", file) == dir.run_file("second", file),
            "{file} differs"
        );
    }
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() {
    let dir = WorkDir::new();
    let weights = |threads: &str| {
        let arguments = format!("--limit-train 1000 --max-steps 3 --run-name threads-{threads}");
        let output = dir
            .command(&format!(
                "--preset tiny --dropout 0.5 {arguments} --out runs"
            ))
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(output.status.success());
        let run = dir.path("runs").join(format!("threads-{threads}"));
        fs::read(run.join("model.safetensors")).unwrap()
    };
    assert!(weights("1") == weights("3"));
}

#[test]
fn closed_pipe_on_stderr_does_not_end_training() {
    use std::process::Stdio;

    let dir = WorkDir::new();
    let mut child = dir
        .command(QUICK)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("saved in")
    );
    dir.run_file("dense-1", "evaluation.json");
}

#[test]
fn adamw_and_sgd_train_and_the_running_loss_is_logged() {
    let dir = WorkDir::new();
    for (optimizer, rate) in [("adamw", "0.001"), ("sgd", "0.01")] {
        let arguments = format!("--optimizer {optimizer} --learning-rate {rate} --max-steps 120");
        let trained = dir
            .trainer(&format!(
                "--preset dense {arguments} --limit-train 9000 --seed 1"
            ))
            .success();
        assert!(
            trained
                .stderr
                .contains("epoch 1/5  batch  100/127  running loss "),
            "{}",
            trained.stderr
        );
        let test = trained
            .stdout
            .lines()
            .find(|line| line.starts_with("test"))
            .unwrap();
        let accuracy = test
            .split_whitespace()
            .last()
            .unwrap()
            .trim_end_matches('%');
        assert!(
            accuracy.parse::<f64>().unwrap() > 80.0,
            "{optimizer}: {test}"
        );
    }
}

#[test]
fn without_validation_the_last_epoch_is_saved() {
    let dir = WorkDir::new();
    let arguments = "--preset dense --validation 0 --report-test --limit-train 300 --epochs 3";
    let trained = dir.trainer(arguments).success();
    let line = "best epoch  3 of 3, the last: there is no validation split";
    assert!(trained.stdout.contains(line), "{}", trained.stdout);
    let csv = dir.run_text("dense-1", "metrics.csv");
    let last: Vec<&str> = csv.lines().last().unwrap().split(',').collect();
    assert_eq!(last[4..6], ["", ""], "{csv}");
    let evaluated = dir.trainer("evaluate latest --json").success();
    let evaluation: Value = serde_json::from_str(&evaluated.stdout).unwrap();
    assert_eq!(
        evaluation["accuracy"].as_f64().unwrap(),
        last[7].parse::<f64>().unwrap()
    );
}

#[test]
fn config_file_finds_its_images_and_adapts_to_another_data_set() {
    let dir = WorkDir::new();
    dir.images();
    let mine = "preset = \"dense\"\ndata.source = \"data\"\ntraining.epochs = 1";
    fs::write(dir.path("mine.toml"), mine).unwrap();
    dir.trainer("--config mine.toml").success();
    let elsewhere = tempfile::tempdir().unwrap();
    let run = dir.path("artifacts/runs/dense-1");
    let evaluated = dir
        .command("evaluate")
        .arg(run)
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert!(evaluated.status.success(), "{evaluated:?}");

    // The same settings with MNIST.
    let config = "--config artifacts/runs/dense-1/config.toml --data mnist --max-steps 1";
    dir.trainer(&format!("{config} --limit-train 100"))
        .success();
    let config = dir.run_text("dense-2", "config.toml");
    for line in [
        "name = \"mnist\"",
        "classes = 10",
        "mean = 0.1307",
        "height = 28",
    ] {
        assert!(config.contains(line), "no {line} in {config}");
    }
}

#[cfg(unix)]
#[test]
fn run_files_have_default_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let dir = WorkDir::new();
    dir.trainer("--preset tiny --limit-train 100 --max-steps 1")
        .success();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    let other = dir.path("other");
    fs::write(&other, "").unwrap();
    let model = dir.path("artifacts/runs/tiny-1/model.safetensors");
    assert_eq!(mode(model), mode(other));
}
