//! The commands summary, presets, bench and devices.

use crate::support::{Output, WorkDir};

#[test]
fn summary_prints_the_layer_table() {
    let text = WorkDir::new()
        .trainer("summary --preset tiny")
        .success()
        .stdout;
    let expected = "\
tiny: one small convolution, to see shapes with --max-steps 1
layer    operation               output       receptive field  multiply-adds  parameters
input    gray image              [1, 28, 28]              1x1              0           0
conv1    3x3 convolution + ReLU  [8, 26, 26]              3x3          48672          80
pool1    2x2 max-pooling         [8, 13, 13]              4x4              0           0
flatten  reshape                 [1352]                 28x28              0           0
fc1      dense, logits           [10]                   28x28          13520       13530
total                                                                  62192       13610
";
    assert_eq!(text, expected);
}

#[test]
fn every_preset_is_listed_and_works_as_a_config_file() {
    let dir = WorkDir::new();
    let list = dir.trainer("presets").success().stdout;
    assert_eq!(list.lines().count(), 16, "{list}");
    for line in list.lines() {
        let name = line.split_whitespace().next().unwrap();
        if ["vgg", "resnet9", "cifar-sprint", "cifar"].contains(&name) {
            let error = dir.trainer(&format!("summary --preset {name}")).error();
            assert!(error.contains("the network is for color images"), "{error}");
            continue;
        }
        let file = dir
            .trainer(&format!("presets show {name}"))
            .success()
            .stdout;
        std::fs::write(dir.path("preset.toml"), file).unwrap();
        let from_file = dir.trainer("summary --config preset.toml").success().stdout;
        let from_name = dir
            .trainer(&format!("summary --preset {name}"))
            .success()
            .stdout;
        assert_eq!(from_file, from_name);
    }
}

#[test]
fn bench_measures_the_requested_batch_sizes() {
    let dir = WorkDir::new();
    let text = dir
        .trainer("bench --preset tiny --train 16 --inference 1,4 --runs 1 --json")
        .success()
        .stdout;
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["preset"], "tiny");
    assert!(report["threads"].as_u64().unwrap() > 0);
    assert!(report["matmul_gflops"].as_f64().unwrap() > 0.0);
    for (kind, batches) in [("train", vec![16]), ("inference", vec![1, 4])] {
        let speeds = report[kind].as_array().unwrap();
        let measured: Vec<u64> = speeds
            .iter()
            .map(|s| s["batch"].as_u64().unwrap())
            .collect();
        assert_eq!(measured, batches);
        for speed in speeds {
            assert!(
                speed["images_per_second"].as_f64().unwrap() > 0.0,
                "{speed}"
            );
            assert!(speed["matmul_share"].as_f64().unwrap() > 0.0, "{speed}");
            // 62,192 multiply-adds in inference; those of the gradients, except the images', in training.
            let flops = match kind {
                "inference" => 2.0 * 62_192.0,
                _ => 2.0 * (3.0 * 62_192.0 - 48_672.0),
            };
            let gflops = speed["images_per_second"].as_f64().unwrap() * flops / 1e9;
            let difference = speed["gflops"].as_f64().unwrap() / gflops - 1.0;
            assert!(difference.abs() < 1e-9, "{speed}");
            if cfg!(target_os = "linux") {
                // The binary and the images have more.
                assert!(speed["peak_memory_bytes"].as_u64().unwrap() > 10 << 20);
            }
        }
    }
    let percentiles = ["p50", "p90", "p99"].map(|name| report["latency"][name].as_f64().unwrap());
    assert!(0.0 < percentiles[0] && percentiles.is_sorted(), "{report}");
    // The run folders of the benchmark are temporary.
    assert_eq!(std::fs::read_dir(dir.path(".")).unwrap().count(), 0);
}

#[test]
fn bench_does_not_warn_of_a_training_that_does_not_learn() {
    let dir = WorkDir::new();
    let config = "preset = \"tiny\"\ndata.image_size = 8\nmodel.channels = 1\n\
                  training.optimizer = \"sgd\"\ntraining.learning_rate = 1e-9\n\
                  training.max_steps = 1\ntraining.max_time = \"1s\"\ntraining.early_stopping = 1\n";
    std::fs::write(dir.path("noise.toml"), config).unwrap();
    let arguments = "bench --config noise.toml --train 64 --inference 8 --runs 1";
    let output = dir.trainer(arguments).success();
    assert!(
        output.stderr.contains("measuring on noise of 8x8 pixels"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("warning"), "{}", output.stderr);
    // Without batches of one image, there is no latency of one.
    assert!(!output.stdout.contains("latency"), "{}", output.stdout);
    let mut lines = output.stdout.lines();
    let title = lines.next().unwrap();
    assert!(title.starts_with("tiny on "), "{title}");
    let header = "batch  images/s  GFLOP/s  of the peak  peak memory";
    assert_eq!(lines.next().unwrap().trim_start(), header);
    assert!(lines.next().unwrap().starts_with("train         64  "));
    assert!(lines.next().unwrap().starts_with("inference      8  "));
}

#[test]
fn the_instruction_set_is_chosen_by_the_environment() {
    const VARIABLE: &str = "KERNELS_INSTRUCTION_SET";
    let dir = WorkDir::new();
    let arguments = "bench --preset tiny --device cpu --train 16 --inference 1 --runs 1 --json";
    let output = Output::of(dir.command(arguments).env(VARIABLE, "portable")).success();
    let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["instruction_set"], "portable");

    let error = Output::of(dir.command("presets").env(VARIABLE, "avx\n3")).error();
    let expected =
        "KERNELS_INSTRUCTION_SET is \"avx\\n3\", expected an instruction set of this processor: ";
    assert!(error.starts_with(expected), "{error}");
    assert!(
        error.ends_with("portable") && error.lines().count() == 1,
        "{error}"
    );
    Output::of(dir.command("presets").env(VARIABLE, "")).success();
}

#[test]
fn devices_lists_all_backends_with_remedies() {
    let text = WorkDir::new().trainer("devices").success().stdout;
    for (backend, is_compiled_in) in [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("cuda", cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
    ] {
        let line = text.lines().find(|line| line.starts_with(backend)).unwrap();
        let missing = line.contains(&format!(
            "not compiled in: build with `--features {backend}`"
        ));
        assert_eq!(missing, !is_compiled_in, "{line}");
    }
    assert!(text.contains("\nauto selects "), "{text}");
}

#[test]
fn closed_pipe_on_stdout_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let dir = WorkDir::new();
    let output = dir.command("presets").stdout(writer).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
