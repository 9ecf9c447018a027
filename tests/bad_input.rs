//! Wrong input gets one clear error message, and creates no run.

use std::fs;
use std::io::Write;

use crate::support::{WorkDir, idx};

/// Trains on images that `damage` has changed, and returns the error.
#[track_caller]
fn data_error(damage: impl FnOnce(&crate::support::Images)) -> String {
    let dir = WorkDir::new();
    let images = dir.images();
    damage(&images);
    let error = dir.trainer("--data data --preset dense").error();
    assert!(!dir.has_runs());
    let folder = fs::canonicalize(images.folder()).unwrap();
    error.replace(&format!("{}", folder.display()), "data")
}

/// Runs `trainer` in an empty folder, and returns the error.
#[track_caller]
fn error(arguments: &str) -> String {
    let dir = WorkDir::new();
    let error = dir.trainer(arguments).error();
    assert!(!dir.has_runs());
    error
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn rejects_missing_files() {
    assert_eq!(
        data_error(|images| fs::remove_file(images.file("t10k-labels-idx1-ubyte")).unwrap()),
        "data: found no t10k-labels-idx1-ubyte (nor t10k-labels-idx1-ubyte.gz); expected \
         train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
         t10k-labels-idx1-ubyte, gzipped or not, or a sub-folder of pictures per class"
    );
    assert_eq!(
        error("--data nowhere"),
        "nowhere: cannot open the data: No such file or directory (os error 2)"
    );
}

#[test]
fn rejects_damaged_files() {
    let name = "train-images-idx3-ubyte";
    let error_of = |bytes: &[u8]| data_error(|images| images.write(name, bytes));
    assert_eq!(
        error_of(b""),
        "data/train-images-idx3-ubyte: found 0 bytes, expected an IDX header of 16"
    );
    assert_eq!(
        error_of(&idx(0x803, &[60, 8, 8], &[0; 100])),
        "data/train-images-idx3-ubyte: truncated: the header announces 3840 bytes, found 100"
    );
    assert_eq!(
        error_of(b"<html>404: not found</html>"),
        "data/train-images-idx3-ubyte: found magic number 0x3c68746d, expected 0x00000803: \
         not an IDX file of u8"
    );
    assert_eq!(
        error_of(&idx(0x803, &[u32::MAX; 3], &[0; 100])),
        "data/train-images-idx3-ubyte: the header announces \
         [4294967295, 4294967295, 4294967295]: more than this machine can address"
    );
    let compressed = gzip(&idx(0x803, &[60, 8, 8], &[0; 3840]));
    let truncated = error_of(&compressed[..compressed.len() - 4]);
    assert!(
        truncated.starts_with("data/train-images-idx3-ubyte: damaged or truncated gzip data"),
        "{truncated}"
    );
}

#[test]
fn gzip_is_detected_by_content_not_by_name() {
    let error = data_error(|images| {
        fs::remove_file(images.file("train-labels-idx1-ubyte")).unwrap();
        images.write("train-labels-idx1-ubyte.gz", b"no gzip at all");
    });
    assert!(
        error.starts_with("data/train-labels-idx1-ubyte.gz: found magic number"),
        "{error}"
    );
}

#[test]
fn rejects_inconsistent_files() {
    assert_eq!(
        data_error(|images| {
            let labels = images.file("train-labels-idx1-ubyte");
            let pixels = images.file("train-images-idx3-ubyte");
            fs::rename(&labels, images.file("swap")).unwrap();
            fs::rename(&pixels, &labels).unwrap();
            fs::rename(images.file("swap"), &pixels).unwrap();
        }),
        "data/train-images-idx3-ubyte: found labels, expected images: are two files swapped?"
    );
    assert_eq!(
        data_error(|images| images.write("train-labels-idx1-ubyte", &idx(0x801, &[59], &[0; 59]))),
        "data/train-images-idx3-ubyte: 60 images, but 59 labels in data/train-labels-idx1-ubyte"
    );
    assert_eq!(
        data_error(|images| {
            let mut labels = [0; 30];
            labels[4] = 3;
            images.write("t10k-labels-idx1-ubyte", &idx(0x801, &[30], &labels));
        }),
        "data/t10k-labels-idx1-ubyte: label 3 of image 4, expected 0 to 2 \
         (the largest training label)"
    );
    assert_eq!(
        data_error(|images| images.write(
            "t10k-images-idx3-ubyte",
            &idx(0x803, &[30, 4, 8], &[0; 960])
        )),
        "data: training images are 8x8 pixels, test images 4x8"
    );
}

#[test]
fn rejects_unknown_settings_and_values_out_of_range() {
    for value in ["0", "-5", "99999999", "1.5", "many"] {
        let message = error(&format!("--batch-size {value}"));
        assert!(
            message.starts_with("command line: training.batch_size = ")
                && message.ends_with(": expected an integer from 1 to 65536"),
            "{message}"
        );
    }
    assert_eq!(
        error("--validation 1"),
        "command line: data.validation = 1: expected a number from 0 to 0.9"
    );
    assert_eq!(
        error("--optimizer adagrad"),
        "command line: training.optimizer = \"adagrad\": expected adam or adamw or sgd or muon"
    );
    assert_eq!(
        error("--normalization 0.5,0"),
        "command line: data.normalization = \"0.5,0\": expected unit, half, mean-std, \
         MEAN,STD such as 0.1307,0.3081, or for RGB images three means and three standard deviations, which are above 0"
    );
    assert_eq!(
        error("--normalization 0.485,0.456,0.406,0.229,0.224,0.225"),
        "data.normalization = \"0.485,0.456,0.406,0.229,0.224,0.225\" is for color images, but mnist has gray \
         images: expected one mean and one standard deviation"
    );
    for (flag, expected) in [
        (
            "--crop 28",
            "augmentation.crop = 28, but the images of mnist have 28x28 pixels: expected less than 28",
        ),
        (
            "--cutout 29",
            "augmentation.cutout = 29, but the images of mnist have 28x28 pixels: expected at most 28",
        ),
        (
            "--hue 0.1",
            "augmentation.hue = 0.1, but the images of mnist are gray: expected 0",
        ),
        (
            "--flip=odd",
            "command line: augmentation.flip = \"odd\": expected true or false or alternating",
        ),
        (
            "--cutmix -1",
            "command line: augmentation.cutmix = -1: expected a number from 0 to 100",
        ),
    ] {
        assert_eq!(error(flag), expected);
    }
    assert_eq!(
        error("--preset convet"),
        "unknown preset convet (did you mean convnet?); expected one of convnet, dropout, \
         dropout-meanstd, half-norm, single-pool, tiny, three-block, kernel5, dense, sprint, best, \
         vgg, resnet9, cifar-sprint, cifar, pictures"
    );
    assert_eq!(
        error("--limit-train 1"),
        "validation fraction 0.1 of 1 images leaves none for training"
    );
}

#[test]
fn rejects_invalid_config_files() {
    let dir = WorkDir::new();
    let error = |text: &str| {
        fs::write(dir.path("my.toml"), text).unwrap();
        let error = dir.trainer("--config my.toml").error();
        assert!(!dir.has_runs());
        error
    };
    assert_eq!(
        error("[training]\nbatchsize = 32"),
        "my.toml: unknown key training.batchsize (did you mean training.batch_size?)"
    );
    assert_eq!(
        error("preset = \"tinny\""),
        "my.toml: unknown preset tinny (did you mean tiny?); expected one of convnet, dropout, \
         dropout-meanstd, half-norm, single-pool, tiny, three-block, kernel5, dense, sprint, best, \
         vgg, resnet9, cifar-sprint, cifar, pictures"
    );
    assert_eq!(
        error("preset = \"cifar\""),
        "model.channels = 3: the network is for color images, but mnist has gray images; \
         choose another --preset or data set, or convert the images with --channels 3"
    );
    assert_eq!(
        error(
            "[model]\nblocks = [{}, { residual = [{ channels = 32 }, { stride = 3, padding = 2 }] }]"
        ),
        "model.blocks[1]: the residual group turns [32, 14, 14] into [32, 6, 6], and no 1x1 convolution \
         with a stride does the same: the shapes cannot be added"
    );
    assert_eq!(
        error("[model]\nblocks = [{ residual = [{ kernal = 3 }] }]"),
        "my.toml: unknown key model.blocks[].residual[].kernal (did you mean model.blocks[].kernel?)"
    );
    assert_eq!(
        error("[model]\nblocks = [{ pool = \"mean\" }]"),
        "my.toml: model.blocks[].pool = \"mean\": expected true or false or max or average or global-max \
         or global-average"
    );
    assert_eq!(
        error("[model]\nblocks = [{}, { pool = false, pool_size = 3 }]"),
        "model.blocks[1].pool_size = 3: the block has no pooling"
    );
    assert_eq!(
        error(
            "[data]\nlimit_train = 2\nvalidation = 0\n[model]\n\
             blocks = [{ channels = 1152, kernel = 24, padding = 0, whitening = true, pool = false }]"
        ),
        "whitening needs at least as many patches as a patch has values, 576, but the training images have 50"
    );
    assert_eq!(
        error("[model]\nblocks = [{}, {}, {}, {}, {}]"),
        "model.blocks[4] (pool5): the 2x2 pool is larger than its 1x1 input: use fewer pools"
    );
    assert_eq!(
        error("[model]\nblocks = [{ channels = 65536 }, { channels = 65536 }]"),
        "the network has more than 268435456 parameters: \
         use fewer channels or outputs, or more pools"
    );
    assert_eq!(
        error("[model]\nclasses = 5"),
        "model.classes = 5, but mnist has 10"
    );
    assert!(error("[training").starts_with("my.toml: not a TOML file: "));
    fs::write(dir.path("my.toml"), "preset = \"dense\"").unwrap();
    assert_eq!(
        dir.trainer("--config my.toml --preset tiny").error(),
        "my.toml has preset = \"dense\", but --preset is tiny: remove one of them"
    );
    assert_eq!(
        dir.trainer("--config none.toml").error(),
        "none.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn rejects_unusable_run_folders() {
    let dir = WorkDir::new();
    fs::write(dir.path("file"), "mine").unwrap();
    let error = dir.trainer("--out file/runs").error();
    assert!(
        error.starts_with("file/runs: cannot create the folder of runs: "),
        "{error}"
    );
    assert_eq!(fs::read(dir.path("file")).unwrap(), b"mine");

    let taken = dir.path("artifacts/runs/taken");
    fs::create_dir_all(&taken).unwrap();
    fs::write(taken.join("config.toml"), "mine").unwrap();
    assert_eq!(
        dir.trainer("--run-name taken").error(),
        "artifacts/runs/taken: this run exists already; choose another --run-name"
    );
    assert_eq!(fs::read(taken.join("config.toml")).unwrap(), b"mine");
    assert_eq!(
        dir.trainer("--run-name latest").error(),
        "run name \"latest\": reserved; choose another --run-name"
    );
    assert_eq!(
        dir.trainer("evaluate takn").error(),
        "takn: no run folder (with a config.toml) here or in artifacts/runs \
         (did you mean taken?)"
    );
}

#[test]
fn rejects_missing_devices() {
    if !cfg!(feature = "rocm") {
        let message = error("--device rocm");
        assert!(
            message.starts_with(
                "device rocm: not compiled in; build with `--features rocm` (this build has "
            ),
            "{message}"
        );
    }
    let cpu = if cfg!(feature = "flex") {
        "flex"
    } else {
        "ndarray"
    };
    assert_eq!(
        error(&format!("--device {cpu}:1")),
        format!("device {cpu}:1: there are 1, numbered from 0")
    );
    let message = error("--device gpu");
    assert!(
        message.contains("unknown device (did you mean wgpu?); there are auto, cpu, cuda, rocm"),
        "{message}"
    );
}

#[test]
fn rejects_damaged_runs() {
    let dir = WorkDir::new();
    dir.trainer("--preset tiny --limit-train 100 --max-steps 1 --run-name run")
        .success();
    let run = dir.path("artifacts/runs/run");
    let weights = fs::read(run.join("model.safetensors")).unwrap();
    fs::write(run.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let error = dir.trainer("evaluate run").error();
    assert!(
        error.starts_with("artifacts/runs/run/model.safetensors: "),
        "{error}"
    );
    fs::remove_file(run.join("model.safetensors")).unwrap();
    assert_eq!(
        dir.trainer("evaluate run").error(),
        "artifacts/runs/run/model.safetensors: no weights yet: they are written after the \
         first epoch"
    );
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    let error_with = |line: &str, replacement: &str| {
        assert!(config.contains(line), "{config}");
        fs::write(run.join("config.toml"), config.replace(line, replacement)).unwrap();
        dir.trainer("evaluate run").error()
    };
    assert_eq!(
        error_with("classes = 10\n", "classes = 9\n"),
        "artifacts/runs/run/config.toml: model.classes = 9, but mnist has 10"
    );
    assert_eq!(
        error_with("[images]", "[data.images]"),
        "artifacts/runs/run/config.toml: unknown key data.images (did you mean data.image_size?)"
    );
    fs::write(run.join("config.toml"), "[training]\nepochs = 0").unwrap();
    assert_eq!(
        dir.trainer("evaluate run").error(),
        "artifacts/runs/run/config.toml: training.epochs = 0: \
         expected an integer from 1 to 100000"
    );
}

#[test]
fn reports_diverged_training() {
    let dir = WorkDir::new();
    let arguments = "--preset dense --optimizer sgd --learning-rate 100 --checkpoint-every 1";
    let error = dir.trainer(&format!("{arguments} --quiet")).error();
    let rest = error.strip_prefix(
        "run artifacts/runs/dense-1 (last valid checkpoint \
         artifacts/runs/dense-1/checkpoint/step-",
    );
    let (steps, rest) = rest.unwrap().split_once(".checkpoint): ").unwrap();
    let next = steps.parse::<u32>().unwrap() + 1;
    let expected =
        format!("training diverged in epoch 1, at step {next}, with learning rate 100: the ");
    assert!(rest.starts_with(&expected), "{error}");
    let event_log = dir.run_text("dense-1", "metrics.jsonl");
    let end = event_log.lines().last().unwrap();
    assert!(
        end.starts_with(r#"{"event":"end","state":"failed","error":"run "#),
        "{end}"
    );
    let log = dir.run_text("dense-1", "train.log");
    assert!(log.trim_end().ends_with(&format!("ERROR {error}")), "{log}");
}

#[test]
fn a_dashboard_needs_a_terminal() {
    assert_eq!(error("--progress tui"), "--progress tui: not on a terminal");
}
