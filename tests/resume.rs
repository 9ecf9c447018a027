//! Stopping and resuming a training. The result equals that of an undisturbed run, bit for bit.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

#[cfg(unix)]
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, WorkDir};

/// Reads the files that are equal if two trainings had the same result.
fn results(dir: &WorkDir, run: &str) -> [Vec<u8>; 3] {
    ["model.safetensors", "metrics.csv", "evaluation.json"].map(|file| dir.run_file(run, file))
}

/// The file `batch-norm.toml`: a network with batch normalization.
const BATCH_NORM: &str = "model.blocks = [{ channels = 8, padding = 0, norm = true }]";

/// Trains a run `whole` without interruption, and a run `parts` that is stopped by `signal` ten times and
/// resumed. Asserts that the results are equal. `check` is called with the status and standard error of each
/// stopped process.
#[cfg(unix)]
fn assert_resumes_exactly(settings: &str, signal: Signal, check: impl Fn(ExitStatus, &str)) {
    let arguments =
        format!("--preset tiny --limit-train 6000 --epochs 10 --checkpoint-every 5 {settings}");
    let dir = WorkDir::new();
    fs::write(dir.path("batch-norm.toml"), BATCH_NORM).unwrap();
    dir.trainer(&format!("{arguments} --run-name whole --quiet"))
        .success();

    let mut arguments = format!("{arguments} --run-name parts --progress plain");
    let mut newest = None;
    for stop in 0..10 {
        let mut running = Running::start(&dir, &arguments);
        if stop > 0 {
            running.wait_until("another checkpoint", || {
                dir.checkpoints("parts").pop() > newest
            });
        } else {
            let config = dir.path("artifacts/runs/parts/config.toml");
            running.wait_until("the run folder", || config.exists());
        }
        // Varies whether a step, a checkpoint or an evaluation is interrupted.
        std::thread::sleep(Duration::from_micros(stop * 7919 % 20_000));
        running.signal(signal);
        let (status, stderr) = running.wait_for_exit();
        assert!(!stderr.contains("panicked"), "{stderr}");
        check(status, &stderr);
        newest = dir.checkpoints("parts").pop();
        arguments = "--resume parts --progress plain".into();
    }
    dir.trainer(&arguments).success();
    assert!(results(&dir, "whole") == results(&dir, "parts"));

    // Each epoch is logged once, and no temporary file remains.
    let event_log = dir.run_text("parts", "metrics.jsonl");
    let epochs = event_log
        .lines()
        .filter(|line| line.contains(r#""event":"epoch""#));
    assert_eq!(epochs.count(), 10, "{event_log}");
    for path in dir.checkpoints("parts") {
        assert!(
            path.extension()
                .is_some_and(|extension| extension == "checkpoint")
        );
    }
}

#[test]
#[cfg(unix)]
fn killed_run_resumes_to_the_bits_of_an_undisturbed_one() {
    use std::os::unix::process::ExitStatusExt;

    let settings = "--dropout 0.5 --schedule one-cycle --accumulate 2 --gradient-clip 1 \
                    --label-smoothing 0.1 --ema-decay 0.99 --rotation 10 --elastic 0.02 \
                    --erasing 0.2";
    assert_resumes_exactly(settings, Signal::KILL, |status, stderr| {
        assert_eq!(status.signal(), Some(9), "{stderr}");
    });
}

#[test]
#[cfg(unix)]
fn killed_run_with_muon_and_lookahead_resumes_to_the_bits_of_an_undisturbed_one() {
    let settings = "--optimizer muon --learning-rate 0.02 --weight-decay 0.001 --bias-factor 4 --head-factor 0.5 \
                    --decay-biases false --schedule linear --lookahead 7 --config batch-norm.toml";
    assert_resumes_exactly(settings, Signal::KILL, |_, _| {});
}

#[test]
#[cfg(unix)]
fn interrupted_run_resumes_to_the_bits_of_an_undisturbed_one() {
    let settings = "--optimizer sgd --learning-rate 0.02 --weight-decay 0.001 --report-test \
                    --schedule plateau --decay-epochs 1 --warmup-steps 20 --config batch-norm.toml";
    assert_resumes_exactly(settings, Signal::INT, |status, stderr| {
        assert_eq!(status.code(), Some(130), "{stderr}");
        assert!(
            stderr.contains("resume with: trainer --resume artifacts/runs/parts"),
            "{stderr}"
        );
    });
}

#[test]
#[cfg(unix)]
fn terminated_run_saves_a_checkpoint_and_prints_the_resume_command() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --epochs 10000 --progress plain --run-name r";
    let mut running = Running::start(&dir, arguments);
    let event_log = dir.path("artifacts/runs/r/metrics.jsonl");
    running.wait_until("the event log", || event_log.exists());
    running.signal(Signal::TERM);
    let (status, stderr) = running.wait_for_exit();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("resume with"), "{stderr}");
    assert_eq!(dir.checkpoints("r").len(), 1);
    let events = fs::read_to_string(event_log).unwrap();
    assert!(events.ends_with("{\"event\":\"end\",\"state\":\"interrupted\"}\n"));
}

/// A training whose first epoch is the best: later steps are too small to change a weight.
const BEST_FIRST: &str = "--preset tiny --limit-train 6000 --batch-size 100 --run-name r \
     --optimizer sgd --learning-rate 0.00001 --schedule step --decay-epochs 1 --decay 0.000001";

#[test]
fn keeps_the_newest_checkpoints_and_that_of_the_best_epoch() {
    let dir = WorkDir::new();
    dir.trainer(&format!("{BEST_FIRST} --epochs 5")).success();
    let file_names = |steps: [u32; 3]| steps.map(|steps| format!("step-{steps:08}.checkpoint"));
    let names: Vec<_> = dir
        .checkpoints("r")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let csv = dir.run_text("r", "metrics.csv");
    assert_eq!(names, file_names([54, 216, 270]), "{csv}");
}

#[test]
fn early_stopping_waits_for_a_better_epoch_and_can_be_resumed() {
    let dir = WorkDir::new();
    let stopped = dir
        .trainer(&format!("{BEST_FIRST} --epochs 9 --early-stopping 2"))
        .success();
    assert!(
        stopped
            .stdout
            .contains("best epoch  1 of 3, by validation accuracy, ended by --early-stopping"),
        "{}",
        stopped.stdout
    );
    let again = dir.trainer("--resume r").success();
    assert_eq!(again.stdout, stopped.stdout);
    let further = dir.trainer("--resume r --early-stopping 3").success();
    assert!(
        further.stdout.contains("best epoch  1 of 4"),
        "{}",
        further.stdout
    );
    let error = dir
        .trainer("--preset tiny --validation 0 --early-stopping 2")
        .error();
    assert_eq!(
        error,
        "training.early_stopping needs a validation split, but data.validation = 0"
    );
}

/// Trains a run `r` for three epochs.
fn three_epochs() -> WorkDir {
    let dir = WorkDir::new();
    dir.trainer("--preset tiny --limit-train 640 --epochs 3 --run-name r")
        .success();
    dir
}

/// Returns the prefix of an error if the last valid checkpoint is the one after `steps` steps.
fn error_prefix(steps: u32) -> String {
    format!(
        "run artifacts/runs/r (last valid checkpoint \
         artifacts/runs/r/checkpoint/step-{steps:08}.checkpoint): "
    )
}

#[test]
fn rejects_damaged_checkpoints_and_names_the_last_valid_one() {
    let dir = three_epochs();
    let newest = dir.checkpoints("r").pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    let other_version = [b"trainer checkpoint 9", &bytes[20..]].concat();
    let damaged = "the checkpoint is damaged: truncated, or modified after it was written";
    for (contents, reason) in [
        (&bytes[..bytes.len() / 2], damaged),
        (&flipped, damaged),
        (
            &other_version,
            "a checkpoint of version 9; this program reads version 1",
        ),
        (b"".as_slice(), "not a checkpoint"),
    ] {
        fs::write(&newest, contents).unwrap();
        let error = dir.trainer("--resume r").error();
        let expected = format!(
            "{}artifacts/runs/r/checkpoint/step-00000027.checkpoint: cannot resume from it; \
             remove it to resume from the previous one: {reason}",
            error_prefix(18)
        );
        assert_eq!(error, expected);
    }

    let before = results(&dir, "r");
    fs::remove_file(newest).unwrap();
    dir.trainer("--resume r").success();
    assert!(results(&dir, "r") == before);
}

#[test]
fn rejects_resuming_with_changed_settings() {
    let dir = three_epochs();
    let path = dir.path("artifacts/runs/r/config.toml");
    let config = fs::read_to_string(&path).unwrap();

    fs::write(&path, config.replace("channels = 8", "channels = 9")).unwrap();
    let error = dir.trainer("--resume r").error();
    let expected = format!(
        "{}artifacts/runs/r/config.toml: edited since the run began: model.blocks = ",
        error_prefix(27)
    );
    assert!(error.starts_with(&expected), "{error}");

    fs::write(&path, &config).unwrap();
    let reason =
        "command line, while a run is resumed: training.seed = 7, but the run began with 42";
    let error = dir.trainer("--resume r --seed 7").error();
    assert_eq!(error, format!("{}{reason}", error_prefix(27)));

    // The number of epochs may change.
    dir.trainer("--resume r --epochs 4").success();
    assert_eq!(dir.run_text("r", "metrics.csv").lines().count(), 5);
    assert!(dir.run_text("r", "config.toml").contains("epochs = 4"));
}

#[test]
fn run_resumes_within_an_epoch_after_max_steps() {
    let dir = three_epochs();
    let arguments = "--preset tiny --limit-train 640 --epochs 3 --run-name limited";
    for (steps, epochs) in [(3, 1), (12, 2)] {
        let limit = format!("--max-steps {steps}");
        let limited = match epochs {
            1 => dir.trainer(&format!("{arguments} {limit}")).success(),
            _ => dir.trainer(&format!("--resume limited {limit}")).success(),
        };
        let end = format!("{epochs} of {epochs}, by validation accuracy, ended by --max-steps");
        assert!(limited.stdout.contains(&end), "{}", limited.stdout);
        // Resuming with the same limit changes nothing.
        let before = results(&dir, "limited");
        let again = dir.trainer("--resume limited").success();
        assert_eq!(again.stdout, limited.stdout);
        assert!(results(&dir, "limited") == before);
    }
    dir.trainer("--resume limited --max-steps 1000").success();
    assert!(results(&dir, "r") == results(&dir, "limited"));
}

#[test]
fn mixed_batches_resume_within_an_epoch() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --limit-train 640 --epochs 2 --flip=alternating --crop 2 --mixup 0.2 --cutmix 1";
    dir.trainer(&format!("{arguments} --run-name r")).success();
    dir.trainer(&format!("{arguments} --run-name limited --max-steps 3"))
        .success();
    dir.trainer("--resume limited --max-steps 1000").success();
    assert!(results(&dir, "r") == results(&dir, "limited"));
}

/// Whitening filters are computed from the training images when a run begins, and their bias is trained in the first
/// epoch only.
#[test]
fn residual_network_with_whitening_resumes_within_an_epoch() {
    let dir = WorkDir::new();
    let network = r#"
        training.whitening_bias_epochs = 1
        model.dense = []
        model.logit_scale = 0.25
        model.blocks = [
            { channels = 8, kernel = 2, padding = 0, whitening = true, activation = "gelu", pool = false },
            { channels = 8, norm = true, activation = "gelu" },
            { residual = [
                { channels = 16, stride = 2, norm = true, norm_scale = true },
                { channels = 16, norm = true, norm_scale = true, activation = "none" },
            ], activation = "relu", pool = "global-average" },
        ]
    "#;
    fs::write(dir.path("network.toml"), network).unwrap();
    let arguments = "--preset tiny --config network.toml --limit-train 640 --epochs 2 --optimizer sgd --bias-factor 8 \
                     --learning-rate 0.1 --weight-decay 0.01 --ema-decay 0.9";
    let train = |name: &str, flags: &str| {
        dir.trainer(&format!("{arguments} --run-name {name} {flags}"))
            .success();
    };
    train("r", "");
    // Nine steps in each epoch.
    for steps in [3, 12] {
        let name = format!("limited-{steps}");
        train(&name, &format!("--max-steps {steps}"));
        dir.trainer(&format!("--resume {name} --max-steps 1000"))
            .success();
        assert!(results(&dir, "r") == results(&dir, &name), "{steps}");
    }
    // Two devices leave the filters frozen, too.
    train("one", "--device cpu --max-steps 1");
    train("several", "--device cpu,cpu");
    let filters = |name: &str| {
        let file = dir.run_file(name, "model.safetensors");
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let entries: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
        let at = |index: usize| {
            let offset = entries["conv1.weight"]["data_offsets"][index]
                .as_u64()
                .unwrap();
            8 + header + offset as usize
        };
        file[at(0)..at(1)].to_vec()
    };
    assert!(filters("several") == filters("one"));
}

#[test]
fn run_resumes_before_a_merged_batch() {
    let dir = WorkDir::new();
    fs::write(dir.path("batch-norm.toml"), BATCH_NORM).unwrap();
    // Five batches of 64 images and one of 65, in three steps.
    let arguments = "--preset tiny --config batch-norm.toml --limit-train 385 --validation 0 --epochs 3 \
                     --accumulate 2 --schedule one-cycle --checkpoint-every 1";
    dir.trainer(&format!("{arguments} --run-name r")).success();
    let event_log = dir.run_text("r", "metrics.jsonl");
    let numbers = r#""steps_total":9,"epochs":3,"batches_per_epoch":6"#;
    assert!(event_log.contains(numbers), "{event_log}");
    let before = results(&dir, "r");
    // The last checkpoint but one is that before the last step.
    fs::remove_file(dir.checkpoints("r").pop().unwrap()).unwrap();
    dir.trainer("--resume r").success();
    assert!(results(&dir, "r") == before);
}

#[test]
fn max_time_ends_training() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --epochs 10000 --max-time";
    let timed = dir.trainer(&format!("{arguments} 300ms")).success();
    assert!(
        timed.stdout.contains("ended by --max-time"),
        "{}",
        timed.stdout
    );
    assert_eq!(
        dir.trainer(&format!("{arguments} 0s")).error(),
        "command line: training.max_time = \"0s\": expected a time such as 90s, 10m or 1h30m"
    );
}

#[test]
#[cfg(unix)]
fn full_disk_leaves_the_last_checkpoint_valid() {
    let dir = three_epochs();
    let whole = results(&dir, "r");
    dir.trainer("--preset tiny --limit-train 640 --epochs 2 --run-name full")
        .success();
    // The limit of 100 kB permits the weights of 54 kB, but not a checkpoint of 220 kB.
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 200; exec \"$0\" --resume full --epochs 3 --quiet",
        ])
        .arg(env!("CARGO_BIN_EXE_trainer"))
        .current_dir(dir.path(""));
    let error = crate::support::Output::of(&mut limited).error();
    assert_eq!(
        error,
        format!(
            "{}artifacts/runs/r/checkpoint/step-00000027.checkpoint: cannot write: \
             File too large (os error 27)",
            error_prefix(18)
        )
        .replace("runs/r", "runs/full")
    );
    dir.trainer("--resume full").success();
    assert!(results(&dir, "full") == whole);
}

#[test]
#[cfg(unix)]
fn run_whose_first_checkpoint_failed_can_be_resumed() {
    let dir = three_epochs();
    // The limit permits the weights of 54 kB, but not a checkpoint of 220 kB.
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 200; exec \"$0\" --preset tiny --limit-train 640 --epochs 3 \
             --run-name full --quiet",
        ])
        .arg(env!("CARGO_BIN_EXE_trainer"))
        .current_dir(dir.path(""));
    let error = crate::support::Output::of(&mut limited).error();
    assert!(
        error.ends_with("cannot write: File too large (os error 27)"),
        "{error}"
    );
    dir.trainer("--resume full").success();
    assert!(results(&dir, "full") == results(&dir, "r"));
}

#[test]
fn run_without_checkpoints_is_not_restarted() {
    let dir = three_epochs();
    let before = results(&dir, "r");
    for checkpoint in dir.checkpoints("r") {
        fs::remove_file(checkpoint).unwrap();
    }
    assert_eq!(
        dir.trainer("--resume r --epochs 4").error(),
        "run artifacts/runs/r (no valid checkpoint): has weights but no checkpoint to resume from"
    );
    assert!(results(&dir, "r") == before);
}

#[test]
#[cfg(unix)]
fn read_only_run_folder_is_left_unchanged() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let dir = three_epochs();
    let before = results(&dir, "r");
    let run = dir.path("artifacts/runs/r");
    let set_mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&run, 0o555);
    set_mode(&run.join("lock"), 0o444);
    // Root can write to any folder, so the binary runs as another user, from a copy which that user can read.
    let program = dir.path("trainer");
    fs::copy(env!("CARGO_BIN_EXE_trainer"), &program).unwrap();
    set_mode(&dir.path(""), 0o755);
    let mut command = Command::new(&program);
    command
        .args(["--resume", "r", "--epochs", "4"])
        .current_dir(dir.path(""));
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65534;
        command.uid(NOBODY).gid(NOBODY);
    }
    let error = crate::support::Output::of(&mut command).error();
    assert_eq!(
        error,
        format!(
            "{}artifacts/runs/r/lock: Permission denied (os error 13)",
            error_prefix(27)
        )
    );
    assert!(results(&dir, "r") == before);
    // Otherwise the temporary folder cannot be removed.
    set_mode(&run, 0o755);
}

#[test]
#[cfg(unix)]
fn run_of_a_running_process_is_locked() {
    let dir = WorkDir::new();
    let mut running = Running::start(&dir, "--preset tiny --epochs 10000 --run-name r");
    running.wait_until("a checkpoint", || !dir.checkpoints("r").is_empty());
    let error = dir.trainer("--resume r").error();
    let process = running.process_id();
    let expected = format!("process {process} is writing to it");
    assert!(error.ends_with(&expected), "{error}");

    running.signal(Signal::KILL);
    running.wait_for_exit();
    let resumed = dir.trainer("--resume r --max-time 1ms").success();
    let note = format!("process {process} exited without finishing this run");
    assert!(resumed.stderr.contains(&note), "{}", resumed.stderr);
    assert!(dir.run_text("r", "train.log").contains(&note));
    // That process released the lock when it exited.
    let again = dir.trainer("--resume r").success();
    assert!(
        !again.stderr.contains("without finishing"),
        "{}",
        again.stderr
    );
}
