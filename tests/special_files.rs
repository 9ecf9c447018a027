//! Files that are no regular files, or are too large: no read waits for them or fills the memory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value;

use crate::serve::Server;
use crate::support::{Output, WorkDir, project};

/// Limit of each command, generous for slow machines.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A short training whose run `r` has all files.
const TRAINING: &str = "--preset tiny --limit-train 100 --max-steps 1 --run-name r";

fn make_pipe(path: &Path) {
    mkfifoat(CWD, path, Mode::RWXU).unwrap();
}

/// Puts a pipe, an endless device, a folder and a huge file in place of a file, one after the other. Calls `check`
/// with the description of each.
fn replaced_by_each_kind(path: &Path, check: impl Fn(&str)) {
    let original = path.with_file_name("original");
    fs::rename(path, &original).unwrap();
    make_pipe(path);
    check("a pipe, expected a regular file");
    fs::remove_file(path).unwrap();
    symlink("/dev/zero", path).unwrap();
    check("a device, expected a regular file");
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    check("a folder, expected a regular file");
    fs::remove_dir(path).unwrap();
    // Occupies no space on the disk.
    File::create(path).unwrap().set_len(1 << 40).unwrap();
    check(" bytes, expected at most ");
    fs::remove_file(path).unwrap();
    fs::rename(&original, path).unwrap();
}

/// Runs a command, and kills it and fails if it does not exit in time.
#[track_caller]
fn output_in_time(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_exit(&mut child, command);
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn wait_for_exit(child: &mut Child, command: &Command) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > TIMEOUT {
            child.kill().unwrap();
            panic!("still running: {command:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn commands_reject_special_files_of_a_run() {
    let dir = WorkDir::new();
    dir.trainer(TRAINING).success();
    let run = dir.path("artifacts/runs/r");
    let checkpoint = dir.checkpoints("r").pop().unwrap();
    let checkpoint = checkpoint.strip_prefix(&run).unwrap().to_str().unwrap();
    for (file, commands) in [
        ("evaluation.json", vec!["compare r pretrained"]),
        (
            "metrics.jsonl",
            vec![
                "compare r pretrained",
                "inspect r",
                "report r",
                "--resume r",
            ],
        ),
        (
            "model.safetensors",
            vec!["evaluate r", "inspect r", "predict r -"],
        ),
        (checkpoint, vec!["--resume r"]),
    ] {
        replaced_by_each_kind(&run.join(file), |expected| {
            for command in &commands {
                let mut trainer = dir.command(&format!("{command} -q"));
                let error = output_in_time(trainer.stdin(Stdio::null())).error();
                assert!(
                    error.contains(&format!("artifacts/runs/r/{file}")) && error.contains(expected),
                    "{command}: {error}"
                );
            }
        });
    }
    // Files that are only written to.
    for file in ["lock", "train.log"] {
        replaced_by_each_kind(&run.join(file), |expected| {
            if expected.contains("regular file") {
                let error = output_in_time(&mut dir.command("--resume r -q")).error();
                assert!(
                    error.contains(&format!("artifacts/runs/r/{file}")) && error.contains(expected),
                    "{error}"
                );
            }
        });
    }
    // A folder is a run if its configuration is a file.
    replaced_by_each_kind(&run.join("config.toml"), |expected| {
        let error = output_in_time(&mut dir.command("evaluate r")).error();
        let no_run = "r: no run folder (with a config.toml) here or in artifacts/runs";
        assert!(error == no_run || error.contains(expected), "{error}");
    });
    output_in_time(&mut dir.command("--resume r --max-steps 2")).success();
}

#[test]
fn a_long_line_of_an_event_log_is_skipped() {
    let dir = WorkDir::new();
    dir.shipped();
    let path = dir.path("artifacts/runs/shipped/metrics.jsonl");
    let events = fs::read(&path).unwrap();
    let server = Server::start(&dir, "shipped");
    let expected = server.get("/api/runs/shipped/metrics").json();
    let long = [b" ".repeat(2 << 20), b"{\"event\":\"epoch\"}\n".to_vec()].concat();
    fs::write(&path, [long, events].concat()).unwrap();
    assert_eq!(server.get("/api/runs/shipped/metrics").json(), expected);
    let compare = output_in_time(&mut dir.command("compare shipped pretrained")).success();
    let rows = compare.stdout.lines().skip(1).take(2);
    let rows = rows.map(|row| row.split_whitespace().skip(1).collect::<Vec<_>>());
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[0][1], "5");
}

#[test]
fn special_files_of_data_sets_are_rejected() {
    let dir = WorkDir::new();
    let images = dir.images();
    replaced_by_each_kind(&images.file("t10k-labels-idx1-ubyte"), |expected| {
        let error = output_in_time(&mut dir.command("--data data --preset dense")).error();
        assert!(
            error.contains("t10k-labels-idx1-ubyte") && error.contains(expected),
            "{error}"
        );
    });
    // Pictures are listed by name; other files than regular ones are not.
    fs::create_dir_all(dir.path("pictures/a")).unwrap();
    make_pipe(&dir.path("pictures/a/pipe.png"));
    symlink("/dev/zero", dir.path("pictures/a/device.png")).unwrap();
    let error = output_in_time(&mut dir.command("predict pretrained pictures -q")).error();
    assert!(
        error.starts_with("pictures: no pictures in this folder"),
        "{error}"
    );
    replaced_by_each_kind(&dir.path("data/train-images-idx3-ubyte"), |expected| {
        let mut import = dir.command("import data/train-images-idx3-ubyte");
        let error = output_in_time(&mut import).error();
        assert!(error.contains(expected), "{error}");
    });
}

#[test]
fn the_shell_may_substitute_files_that_the_user_names() {
    let dir = WorkDir::new();
    let digit = project("tests/handwriting/7-marker.png");
    let shell = |line: &str| {
        let mut command = Command::new("bash");
        command.env("TRAINER", env!("CARGO_BIN_EXE_trainer"));
        command.args(["-c", line]).current_dir(dir.path(""));
        output_in_time(&mut command)
    };
    let settings = "<(echo 'preset = \"tiny\"; training.epochs = 3' | tr ';' '\\n')";
    let summary = shell(&format!("\"$TRAINER\" summary --config {settings}")).success();
    assert!(summary.stdout.contains("13610"), "{}", summary.stdout);
    let digit = digit.display();
    let predicted = shell(&format!(
        "\"$TRAINER\" predict pretrained <(cat {digit}) --top 1 -q"
    ));
    let predicted = predicted.success().stdout;
    assert!(predicted.contains("  7  "), "{predicted}");
    // Bounded.
    let error = shell("\"$TRAINER\" summary --config /dev/zero").error();
    assert_eq!(
        error,
        "/dev/zero: more than 16777216 bytes, expected at most 16777216"
    );
    let error = shell("\"$TRAINER\" predict pretrained /dev/zero -q").error();
    assert_eq!(error, "/dev/zero: larger than 128 MB");
}

#[test]
fn the_server_answers_beside_runs_with_special_files() {
    let dir = WorkDir::new();
    dir.shipped();
    let runs = dir.path("artifacts/runs");
    for (name, file) in [
        ("log", "metrics.jsonl"),
        ("evaluation", "evaluation.json"),
        ("lock", "lock"),
        ("weights", "model.safetensors"),
    ] {
        let run = runs.join(name);
        fs::create_dir(&run).unwrap();
        fs::copy(runs.join("shipped/config.toml"), run.join("config.toml")).unwrap();
        fs::copy(
            runs.join("shipped/metrics.jsonl"),
            run.join("metrics.jsonl"),
        )
        .unwrap();
        let _ = fs::remove_file(run.join(file));
        match name {
            "evaluation" => symlink("/dev/zero", run.join(file)).unwrap(),
            _ => make_pipe(&run.join(file)),
        }
    }
    let server = Server::start(&dir, "shipped");
    // More requests than threads for blocking work.
    let streams: Vec<_> = (0..40)
        .map(|_| server.open("/api/runs/log/events"))
        .collect();
    for _ in 0..3 {
        let list: Value = server.get("/api/runs").json();
        let names = list.as_array().unwrap().iter().map(|run| &run["id"]);
        let mut names: Vec<&str> = names.filter_map(Value::as_str).collect();
        names.sort_unstable();
        // Damaged runs are left out.
        assert_eq!(
            names,
            [
                "lock",
                "pretrained",
                "pretrained-best",
                "pretrained-cifar",
                "shipped",
                "weights"
            ]
        );
        for path in ["log/metrics", "evaluation", "log"] {
            server.get(&format!("/api/runs/{path}")).problem(500);
        }
        server.get("/runs/weights/report").problem(500);
        assert_eq!(server.get("/api/runs/shipped/metrics").status, 200);
    }
    drop(streams);
}
