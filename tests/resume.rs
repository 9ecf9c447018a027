//! Trainings that are stopped in any way, and go on as if nothing had happened.

use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

#[cfg(unix)]
use rustix::process::Signal;

use crate::support::{Running, WorkDir};

/// What has to be the same in the end.
fn results(dir: &WorkDir, run: &str) -> [Vec<u8>; 3] {
    ["model.safetensors", "metrics.csv", "evaluation.json"].map(|file| dir.run_file(run, file))
}

/// A network with batch normalization, for `--config normed.toml`.
const NORMED: &str = "model.blocks = [{ channels = 8, padding = 0, norm = true }]";

/// Trains undisturbed as `whole`, and again as `parts`: stopped by `signal` at ten moments, and
/// resumed to its end.
#[cfg(unix)]
fn stop_ten_times(settings: &str, signal: Signal, check: impl Fn(ExitStatus, &str)) {
    let arguments =
        format!("--preset tiny --limit-train 6000 --epochs 10 --checkpoint-every 5 {settings}");
    let dir = WorkDir::new();
    fs::write(dir.path("normed.toml"), NORMED).unwrap();
    dir.trainer(&format!("{arguments} --run-name whole --quiet"))
        .success();

    let mut arguments = format!("{arguments} --run-name parts --progress plain");
    let mut reached = None;
    for moment in 0..10 {
        let mut running = Running::start(&dir, &arguments);
        if moment > 0 {
            running.wait("a further checkpoint", || {
                dir.checkpoints("parts").pop() > reached
            });
        } else {
            let config = dir.path("artifacts/runs/parts/config.toml");
            running.wait("a run folder", || config.exists());
        }
        // Anywhere in the steps, checkpoints and epochs that follow.
        std::thread::sleep(Duration::from_micros(moment * 7919 % 20_000));
        running.signal(signal);
        let (status, said) = running.end();
        assert!(!said.contains("panicked"), "{said}");
        check(status, &said);
        reached = dir.checkpoints("parts").pop();
        arguments = "--resume parts --progress plain".into();
    }
    dir.trainer(&arguments).success();
    assert!(results(&dir, "whole") == results(&dir, "parts"));

    // Each epoch is told of once, and nothing half written stays.
    let journal = dir.run_text("parts", "metrics.jsonl");
    let epochs = journal
        .lines()
        .filter(|line| line.contains(r#""event":"epoch""#));
    assert_eq!(epochs.count(), 10, "{journal}");
    for path in dir.checkpoints("parts") {
        assert!(
            path.extension()
                .is_some_and(|extension| extension == "checkpoint")
        );
    }
}

#[test]
#[cfg(unix)]
fn a_killed_training_goes_on_to_the_same_bits() {
    use std::os::unix::process::ExitStatusExt;

    let settings = "--dropout 0.5 --schedule one-cycle --accumulate 2 --gradient-clip 1 \
                    --label-smoothing 0.1 --ema-decay 0.99 --rotation 10 --elastic 0.02 \
                    --erasing 0.2";
    stop_ten_times(settings, Signal::KILL, |status, said| {
        assert_eq!(status.signal(), Some(9), "{said}");
    });
}

#[test]
#[cfg(unix)]
fn an_interrupted_training_goes_on_to_the_same_bits() {
    let settings = "--optimizer sgd --learning-rate 0.02 --weight-decay 0.001 --report-test \
                    --schedule plateau --decay-epochs 1 --warmup-steps 20 --config normed.toml";
    stop_ten_times(settings, Signal::INT, |status, said| {
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(
            said.contains("resume with: trainer --resume artifacts/runs/parts"),
            "{said}"
        );
    });
}

#[test]
#[cfg(unix)]
fn a_terminated_training_saves_and_says_how_to_go_on() {
    let dir = WorkDir::new();
    let arguments = "--preset tiny --epochs 10000 --progress plain --run-name r";
    let mut running = Running::start(&dir, arguments);
    let journal = dir.path("artifacts/runs/r/metrics.jsonl");
    running.wait("metrics", || journal.exists());
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("resume with"), "{said}");
    assert_eq!(dir.checkpoints("r").len(), 1);
    let told = fs::read_to_string(journal).unwrap();
    assert!(told.ends_with("{\"event\":\"end\",\"state\":\"interrupted\"}\n"));
}

/// A training whose steps are too small to change a weight after its first epoch.
const BEST_FIRST: &str = "--preset tiny --limit-train 6000 --batch-size 100 --run-name r \
     --optimizer sgd --learning-rate 0.00001 --schedule step --decay-epochs 1 --decay 0.000001";

#[test]
fn the_newest_checkpoints_and_the_best_one_are_kept() {
    let dir = WorkDir::new();
    dir.trainer(&format!("{BEST_FIRST} --epochs 5")).success();
    let kept = |steps: [u32; 3]| steps.map(|steps| format!("step-{steps:08}.checkpoint"));
    let names: Vec<_> = dir
        .checkpoints("r")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let csv = dir.run_text("r", "metrics.csv");
    assert_eq!(names, kept([54, 216, 270]), "{csv}");
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

/// A run `r` of three epochs.
fn three_epochs() -> WorkDir {
    let dir = WorkDir::new();
    dir.trainer("--preset tiny --limit-train 640 --epochs 3 --run-name r")
        .success();
    dir
}

/// How an error begins where the checkpoint after so many steps is the last good one.
fn saved(steps: u32) -> String {
    format!(
        "run artifacts/runs/r (last valid checkpoint \
         artifacts/runs/r/checkpoint/step-{steps:08}.checkpoint): "
    )
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_it_named() {
    let dir = three_epochs();
    let newest = dir.checkpoints("r").pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    let other_version = [b"trainer checkpoint 9", &bytes[20..]].concat();
    let damaged = "the checkpoint is damaged: truncated, or modified after it was written";
    for (spoiled, what) in [
        (&bytes[..bytes.len() / 2], damaged),
        (&flipped, damaged),
        (
            &other_version,
            "a checkpoint of version 9; this program reads version 1",
        ),
        (b"".as_slice(), "not a checkpoint"),
    ] {
        fs::write(&newest, spoiled).unwrap();
        let error = dir.trainer("--resume r").error();
        let expected = format!(
            "{}artifacts/runs/r/checkpoint/step-00000027.checkpoint: cannot resume from it; \
             remove it to resume from the previous one: {what}",
            saved(18)
        );
        assert_eq!(error, expected);
    }

    let before = results(&dir, "r");
    fs::remove_file(newest).unwrap();
    dir.trainer("--resume r").success();
    assert!(results(&dir, "r") == before);
}

#[test]
fn a_run_whose_configuration_was_edited_is_not_resumed() {
    let dir = three_epochs();
    let path = dir.path("artifacts/runs/r/config.toml");
    let config = fs::read_to_string(&path).unwrap();

    fs::write(&path, config.replace("channels = 8", "channels = 9")).unwrap();
    let error = dir.trainer("--resume r").error();
    let expected = format!(
        "{}artifacts/runs/r/config.toml: edited since the run began: model.blocks = ",
        saved(27)
    );
    assert!(error.starts_with(&expected), "{error}");

    fs::write(&path, &config).unwrap();
    let refused =
        "command line, while a run is resumed: training.seed = 7, but the run began with 42";
    let error = dir.trainer("--resume r --seed 7").error();
    assert_eq!(error, format!("{}{refused}", saved(27)));

    // How long it trains may change.
    dir.trainer("--resume r --epochs 4").success();
    assert_eq!(dir.run_text("r", "metrics.csv").lines().count(), 5);
    assert!(dir.run_text("r", "config.toml").contains("epochs = 4"));
}

#[test]
fn a_training_that_reached_its_limit_goes_on_within_the_epoch() {
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
        // As often as it is asked, it comes to the same.
        let before = results(&dir, "limited");
        let again = dir.trainer("--resume limited").success();
        assert_eq!(again.stdout, limited.stdout);
        assert!(results(&dir, "limited") == before);
    }
    dir.trainer("--resume limited --max-steps 1000").success();
    assert!(results(&dir, "r") == results(&dir, "limited"));
}

#[test]
fn a_training_ends_with_its_time() {
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
fn a_full_disk_leaves_the_last_checkpoint() {
    let dir = three_epochs();
    let whole = results(&dir, "r");
    dir.trainer("--preset tiny --limit-train 640 --epochs 2 --run-name full")
        .success();
    // Weights of 54 kB fit, a checkpoint of 220 kB does not.
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
            saved(18)
        )
        .replace("runs/r", "runs/full")
    );
    dir.trainer("--resume full").success();
    assert!(results(&dir, "full") == whole);
}

#[test]
fn a_run_without_its_checkpoints_is_not_begun_again() {
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
fn a_folder_that_cannot_be_written_to_is_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let dir = three_epochs();
    let before = results(&dir, "r");
    let run = dir.path("artifacts/runs/r");
    let readable = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    readable(&run, 0o555);
    readable(&run.join("lock"), 0o444);
    // The superuser may write anywhere, and others may not enter the folders of the build.
    let program = dir.path("trainer");
    fs::copy(env!("CARGO_BIN_EXE_trainer"), &program).unwrap();
    readable(&dir.path(""), 0o755);
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
            saved(27)
        )
    );
    assert!(results(&dir, "r") == before);
    // So that it can be removed.
    readable(&run, 0o755);
}

#[test]
#[cfg(unix)]
fn a_run_is_written_by_one_process() {
    let dir = WorkDir::new();
    let mut running = Running::start(&dir, "--preset tiny --epochs 10000 --run-name r");
    running.wait("a checkpoint", || !dir.checkpoints("r").is_empty());
    let error = dir.trainer("--resume r").error();
    let process = running.process();
    let expected = format!("process {process} is writing to it");
    assert!(error.ends_with(&expected), "{error}");

    running.signal(Signal::KILL);
    running.end();
    let resumed = dir.trainer("--resume r --max-time 1ms").success();
    let note = format!("process {process} exited without finishing this run");
    assert!(resumed.stderr.contains(&note), "{}", resumed.stderr);
    assert!(dir.run_text("r", "train.log").contains(&note));
    // Given back, it is nobody's.
    let again = dir.trainer("--resume r").success();
    assert!(
        !again.stderr.contains("without finishing"),
        "{}",
        again.stderr
    );
}
