//! Training on other devices, on several devices, and on devices of other processes.

use crate::support::WorkDir;

/// A training on 1,000 images, without dropout, because each device has its own random generator.
const TRAINING: &str = "--preset tiny --limit-train 1000 --optimizer sgd --lr 0.1";

/// Reads the training and validation losses of each epoch of a run.
fn losses(dir: &WorkDir, run: &str) -> Vec<f64> {
    let table = dir.run_text(run, "metrics.csv");
    let mut lines = table
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let is_loss: Vec<bool> = names.iter().map(|name| name.ends_with("loss")).collect();
    let rows = lines.flat_map(|row| {
        let losses = row
            .into_iter()
            .zip(&is_loss)
            .filter(|(_, is_loss)| **is_loss);
        let losses = losses.filter_map(|(loss, _)| loss.parse().ok());
        losses.collect::<Vec<f64>>()
    });
    rows.collect()
}

/// Asserts that the losses of two epochs agree with a relative tolerance of 1e-4.
#[track_caller]
fn assert_near(losses: &[f64], expected: &[f64]) {
    assert_eq!(losses.len(), expected.len());
    assert_eq!(expected.len(), 4, "the losses of two epochs");
    for (loss, expected) in losses.iter().zip(expected) {
        let error = (loss - expected).abs() / expected;
        assert!(error < 1e-4, "loss {loss}, expected {expected}");
    }
}

#[test]
fn check_compares_devices_with_the_reference() {
    let dir = WorkDir::new();
    for (name, is_compiled_in) in [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
    ] {
        let check = dir.trainer(&format!("devices --check {name}"));
        if !is_compiled_in {
            assert!(check.error().contains("not compiled in"));
            continue;
        }
        let lines = check.success().stdout;
        let precisions = match name {
            "flex" => 3,
            _ => 1,
        };
        assert_eq!(lines.lines().count(), precisions, "{lines}");
        for line in lines.lines() {
            let is_reference = line.contains("is the reference (");
            assert!(line.starts_with(name), "{line}");
            assert!(is_reference || line.contains("agrees: images "), "{line}");
        }
    }
    assert_eq!(
        dir.trainer("devices --check cuda:99").code,
        Some(1),
        "cuda:99 does not exist"
    );
}

#[test]
fn several_devices_train_the_same_network_as_one() {
    let dir = WorkDir::new();
    dir.trainer(&format!(
        "{TRAINING} --epochs 2 --device cpu --run-name one"
    ))
    .success();
    let stderr = dir
        .trainer(&format!(
            "{TRAINING} --epochs 2 --device cpu,cpu,cpu --run-name three"
        ))
        .success()
        .stderr;
    let mut lines = stderr.lines();
    let device = lines.find(|line| line.contains("device: ")).unwrap();
    assert_eq!(device.matches("CPU").count(), 3, "{device}");
    let one = losses(&dir, "one");
    assert_near(&losses(&dir, "three"), &one);
    // A run can be resumed on other devices.
    dir.trainer(&format!(
        "{TRAINING} --device cpu,cpu --epochs 1 --run-name parts"
    ))
    .success();
    dir.trainer("--resume parts --epochs 2 --device cpu")
        .success();
    assert_near(&losses(&dir, "parts"), &one);
}

#[test]
#[cfg(feature = "flex")]
fn run_in_16_bits_resumes_in_32_bits() {
    let dir = WorkDir::new();
    let train = |flags: &str| dir.trainer(&format!("{TRAINING} --epochs 2 {flags}"));
    train("--device flex --run-name r").success();
    let single = losses(&dir, "r");
    for precision in ["bf16", "f16"] {
        train(&format!(
            "--device flex --precision {precision} --run-name {precision}"
        ))
        .success();
        let half = losses(&dir, precision);
        for (half, single) in half.iter().zip(&single) {
            let error = (half - single).abs() / single;
            assert!(error > 0.0 && error < 3e-2, "{half}, in 32 bits {single}");
        }
    }
    // The weights have 32 bits, so another device can resume the run.
    let other = match cfg!(feature = "ndarray") {
        true => "ndarray",
        false => "flex",
    };
    dir.trainer(&format!(
        "--resume f16 --epochs 3 --precision f32 --device {other}"
    ))
    .success();
    let losses = losses(&dir, "f16");
    // There are two losses per epoch. The third training loss is below the second.
    assert!(losses[4] < losses[2], "{losses:?}");
    let config = dir.run_text("f16", "config.toml");
    assert!(config.contains("precision = \"f32\""), "{config}");
}

#[test]
#[cfg(feature = "ndarray")]
fn rejects_unsupported_precision_before_writing_anything() {
    let dir = WorkDir::new();
    let flags = "--device ndarray --precision bf16";
    assert_eq!(
        dir.trainer(&format!("{TRAINING} {flags}")).error(),
        "device ndarray: cannot compute in bf16; it supports f32"
    );
    assert!(!dir.has_runs());
    dir.trainer(&format!("{TRAINING} --epochs 1 --run-name r --device cpu"))
        .success();
    let before = dir.run_file("r", "config.toml");
    let message = dir.trainer(&format!("--resume r {flags}")).error();
    assert!(message.contains("cannot compute in bf16"), "{message}");
    assert_eq!(dir.run_file("r", "config.toml"), before);
}

#[cfg(all(feature = "remote", unix))]
mod remote {
    use std::fs;
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use super::{TRAINING, assert_near, losses};
    use crate::support::{Running, WorkDir};

    /// Starts a worker on this machine, and returns it with its name for `--device`.
    fn worker(dir: &WorkDir) -> (Running, String) {
        let mut worker = Running::start(
            dir,
            "worker --listen 127.0.0.1:0 --token-file token --device cpu",
        );
        let line = worker.first_line();
        let address = line.strip_prefix("worker on ").expect("the worker listens");
        let name = format!("remote:{address}");
        (worker, name)
    }

    #[test]
    fn remote_devices_train_the_same_network_as_one_local_device() {
        let dir = WorkDir::new();
        dir.trainer(&format!(
            "{TRAINING} --epochs 2 --device cpu --run-name one"
        ))
        .success();
        let one = losses(&dir, "one");
        let ((first, a), (second, b)) = (worker(&dir), worker(&dir));
        for (run, devices) in [
            ("alone", a.clone()),
            ("two", format!("{a},{b}")),
            ("mixed", format!("cpu,{a}:0,{b}")),
        ] {
            let flags = format!("--token-file token --device {devices} --run-name {run}");
            dir.trainer(&format!("{TRAINING} --epochs 2 {flags}"))
                .success();
            assert_near(&losses(&dir, run), &one);
        }
        // A single worker runs the same fused operations, so the weights are equal, bit for bit.
        let [here, there] = [("here", "cpu"), ("there", a.as_str())].map(|(run, device)| {
            let flags = format!("--token-file token --device {device} --run-name {run}");
            dir.trainer(&format!(
                "--preset tiny --limit-train 1000 --epochs 2 {flags}"
            ))
            .success();
            dir.run_file(run, "model.safetensors")
        });
        assert!(here == there);
        // Each stage of a training agrees with the reference, in each precision.
        let check = dir.trainer(&format!("devices --check {a} --token-file token"));
        let lines = check.success().stdout;
        let precisions = if cfg!(feature = "flex") { 3 } else { 1 };
        assert_eq!(
            lines.matches(" agrees: images ").count(),
            precisions,
            "{lines}"
        );
        for worker in [first, second] {
            worker.signal(Signal::TERM);
            let (status, stderr) = worker.wait_for_exit();
            assert!(status.success(), "{stderr}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_of_workers_does_not_grow_with_steps() {
        let dir = WorkDir::new();
        let ((first, a), (_second, b)) = (worker(&dir), worker(&dir));
        let resident_megabytes = || {
            let pages = fs::read_to_string(format!("/proc/{}/statm", first.process_id())).unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / 1_000_000
        };
        let train = |steps: u32| {
            let flags =
                format!("--max-steps {steps} --validation 0 --batch-size 16 --device {a},{b}");
            dir.trainer(&format!(
                "--preset convnet --limit-train 4800 --token-file token {flags}"
            ))
            .success();
            resident_megabytes()
        };
        let before = train(50);
        // The weights have 1.7 MB. Caches may hold those of 100 steps, but not those of all 250 further steps.
        let after = train(300);
        assert!(after < before + 170, "{before} MB, {after} MB");
    }

    #[test]
    fn reports_unusable_workers() {
        let dir = WorkDir::new();
        let (_worker, name) = worker(&dir);
        let train = |flags: &str| dir.trainer(&format!("{TRAINING} {flags}")).error();
        let address = name.strip_prefix("remote:").unwrap();

        let message = train(&format!("--device {name}"));
        assert_eq!(
            message,
            format!("remote:{address}:0: needs the worker's token file, --token-file FILE")
        );
        let message = train(&format!("--device {name}:7 --token-file token"));
        assert_eq!(
            message,
            format!("remote:{address}:7: there are 1, numbered from 0")
        );
        fs::write(
            dir.path("other"),
            "a token of 32 or more characters, of another worker\n",
        )
        .unwrap();
        let message = train(&format!("--device {name} --token-file other"));
        assert_eq!(
            message,
            format!("remote:{address}:0: the worker at {address} has another token")
        );
        let message = train("--device remote:127.0.0.1:1 --token-file token");
        assert!(
            message.starts_with("remote:127.0.0.1:1:0: cannot reach a worker at 127.0.0.1:1: "),
            "{message}"
        );
        let message = train("--device remote:localhost --token-file token");
        assert!(message.contains("expected remote:HOST:PORT"), "{message}");
        assert!(!dir.has_runs());
    }

    #[test]
    fn killed_worker_fails_the_training_and_the_run_resumes() {
        let dir = WorkDir::new();
        let settings = "--preset tiny --limit-train 6000 --epochs 3 --checkpoint-every 5";
        dir.trainer(&format!("{settings} --device cpu --run-name whole"))
            .success();
        let (worker, name) = worker(&dir);
        let flags = format!("--token-file token --device cpu,{name} --run-name parts");
        let mut training = Running::start(&dir, &format!("{settings} {flags} --progress plain"));
        training.wait_until("a checkpoint", || !dir.checkpoints("parts").is_empty());
        worker.signal(Signal::KILL);
        let killed = Instant::now();
        let (status, stderr) = training.wait_for_exit();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let message = stderr.lines().last().unwrap();
        assert!(message.contains("last valid checkpoint"), "{message}");
        assert!(
            message.contains(&format!("device {name}:0 failed: ")),
            "{message}"
        );
        assert!(killed.elapsed() < Duration::from_secs(60), "{stderr}");

        dir.trainer("--resume parts --device cpu").success();
        let [whole, parts] = ["whole", "parts"].map(|run| dir.run_text(run, "metrics.csv"));
        let last_validation_accuracy = |table: &str| {
            table
                .lines()
                .last()
                .unwrap()
                .split(',')
                .nth(5)
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        assert!(
            (last_validation_accuracy(&whole) - last_validation_accuracy(&parts)).abs() < 0.02,
            "{whole}\n{parts}"
        );
    }
}
