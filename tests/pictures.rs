//! Training and evaluation on folders of pictures.

use std::fs;

use data::digest::sha256_hex;
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::support::{Output, WorkDir, project};

/// Writes a folder `mine` of two classes with 30 pictures each, of a horizontal or an upright bar in two colors,
/// and a file that is not a picture.
fn bars(dir: &WorkDir) {
    for (class, is_upright) in [("lying", false), ("up & <right>", true)] {
        fs::create_dir_all(dir.path("mine").join(class)).unwrap();
        for number in 0..30u32 {
            let shade = (number * 8) as u8;
            let at = 20 + number % 7;
            let picture = RgbImage::from_fn(60, 60, |x, y| {
                let across = if is_upright { x } else { y };
                match (at..at + 16).contains(&across) {
                    true => Rgb([255, shade, 0]),
                    false => Rgb([0, shade / 2, 90]),
                }
            });
            let ending = ["png", "bmp", "gif", "jpg", "webp"][number as usize % 5];
            let name = format!("{number}.{ending}");
            picture
                .save(dir.path("mine").join(class).join(name))
                .unwrap();
        }
    }
    fs::write(dir.path("mine/lying/broken.png"), "no picture").unwrap();
}

const TRAIN: &str = "--data mine --image-size 16 --preset tiny --epochs 12 --batch-size 8";

#[test]
fn a_preset_is_chosen_for_pictures_and_can_be_overruled() {
    let dir = WorkDir::new();
    bars(&dir);
    let chosen = "preset pictures at 64x64, 100 epochs for some 1000 steps; --preset or --config choose others";
    let trained = dir.trainer("--data mine --max-steps 1").success();
    assert!(trained.stderr.contains(chosen), "{}", trained.stderr);
    assert!(
        dir.run_text("pictures-1", "config.toml")
            .contains("\nimage_size = 64\n")
    );
    // A flag overrules one setting, a preset all of them.
    let trained = dir.trainer("--data mine --image-size 32 --epochs 2 --max-steps 1");
    let trained = trained.success();
    assert!(trained.stderr.contains(chosen), "{}", trained.stderr);
    let config = dir.run_text("pictures-2", "config.toml");
    assert!(config.contains("\nimage_size = 32\n") && config.contains("\nepochs = 2\n"));
    let trained = dir
        .trainer("--data mine --preset tiny --max-steps 1")
        .success();
    assert!(!trained.stderr.contains("choose others"));

    let errors = dir.trainer("--data mine --preset best").error_lines();
    assert_eq!(
        errors.last().unwrap(),
        "error: model.channels = 1: the network is for gray images, but mine has color images; choose another --preset or \
         data set, or convert the images with --channels 1"
    );
    let errors = dir.trainer("--data mine --channels 2").error_lines();
    assert_eq!(
        errors.last().unwrap(),
        "error: data.channels = 2: expected 1 for gray or 3 for RGB"
    );
}

#[test]
fn trains_on_a_folder_of_pictures_with_its_class_names() {
    let dir = WorkDir::new();
    bars(&dir);
    let trained = dir.trainer(TRAIN).success();
    for part in [
        "reading 61 pictures",
        "warning: skipped ",
        "broken.png: not a picture",
        "mine: 44 training, 5 validation, 11 test images of 16x16, 2 classes",
        "images [8, 3, 16, 16]",
    ] {
        assert!(trained.stderr.contains(part), "{part}: {trained:#?}");
    }
    assert!(trained.stdout.contains("test        "), "{trained:#?}");

    let evaluation = dir.trainer("evaluate latest --json").success().stdout;
    let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
    assert_eq!(evaluation["classes"][1]["class"], "up & <right>");
    assert_eq!(evaluation["accuracy"], 1.0);

    let predicted = dir.trainer("predict latest mine --json").code_and_lines();
    assert_eq!(predicted.0, Some(1));
    assert_eq!(predicted.1.len(), 60);
    for line in predicted.1 {
        let prediction: Value = serde_json::from_str(&line).unwrap();
        let class = prediction["class"].as_str().unwrap();
        assert!(
            prediction["path"].as_str().unwrap().contains(class),
            "{prediction}"
        );
    }

    dir.trainer("report latest").success();
    let report = dir.run_text("tiny-1", "report.html");
    assert!(report.contains("<td>up &#38; &#60;right&#62;</td>"));
    assert!(!report.contains("up & <right>"));
}

/// Runs of versions that had one number for all channels are evaluated with it. A configuration of such a run starts a
/// run with one number for each.
#[test]
fn color_runs_have_statistics_of_each_channel() {
    let dir = WorkDir::new();
    bars(&dir);
    dir.trainer(&format!("{TRAIN} --normalization mean-std --max-steps 3"))
        .success();
    let config = dir.run_text("tiny-1", "config.toml");
    let mut config: toml::Table = config.parse().unwrap();
    for key in ["mean", "std"] {
        let numbers = config["images"][key].as_array().unwrap();
        assert_eq!(numbers.len(), 3);
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2]);
    }
    let loss = || {
        let evaluation = dir.trainer("evaluate tiny-1 --json").success().stdout;
        let evaluation: Value = serde_json::from_str(&evaluation).unwrap();
        evaluation["loss"].as_f64().unwrap()
    };
    let each = loss();
    let images = config["images"].as_table_mut().unwrap();
    images.insert("mean".into(), 0.3.into());
    images.insert("std".into(), 0.4.into());
    let path = dir.path("artifacts/runs/tiny-1/config.toml");
    fs::write(&path, config.to_string()).unwrap();
    assert!(loss() != each);
    dir.trainer("export tiny-1 --format onnx --raw-pixels")
        .success();
    fs::write(dir.path("older.toml"), config.to_string()).unwrap();
    dir.trainer("--config older.toml --run-name new --max-steps 1")
        .success();
    let config: toml::Table = dir.run_text("new", "config.toml").parse().unwrap();
    assert!(config["images"]["mean"].is_array());
}

#[test]
fn channels_can_be_converted() {
    let dir = WorkDir::new();
    bars(&dir);
    let number = |run: &str, table: &str, key: &str| {
        let config: toml::Table = dir.run_text(run, "config.toml").parse().unwrap();
        config[table][key].as_integer().unwrap()
    };
    // Color pictures in gray.
    let trained = dir.trainer(&format!("{TRAIN} --channels 1")).success();
    assert!(
        trained.stderr.contains("images [8, 1, 16, 16]"),
        "{trained:#?}"
    );
    dir.trainer("evaluate tiny-1").success();
    assert_eq!(number("tiny-1", "images", "channels"), 1);
    // Gray digits in RGB, with all commands that read them.
    let digit = project("tests/handwriting/7-marker.png");
    dir.trainer(
        "--preset tiny --channels 3 --limit-train 2000 --epochs 1 --max-steps 20 --run-name rgb",
    )
    .success();
    assert_eq!(number("rgb", "model", "channels"), 3);
    let recorded = dir.run_text("rgb", "evaluation.json");
    dir.trainer("evaluate rgb").success();
    assert_eq!(dir.run_text("rgb", "evaluation.json"), recorded);
    dir.trainer("--resume rgb --max-steps 30").success();
    dir.trainer("evaluate rgb --data mnist").success();
    dir.trainer(&format!("predict rgb {}", digit.display()))
        .success();
    dir.trainer("inspect rgb").success();
}

#[test]
fn decoded_pictures_are_cached() {
    let dir = WorkDir::new();
    bars(&dir);
    let first = dir.trainer(TRAIN).success();
    let second = dir.trainer(TRAIN).success();
    assert!(!second.stderr.contains("reading"), "{second:#?}");
    // Skipped pictures are reported again.
    assert!(
        second.stderr.contains("broken.png: not a picture"),
        "{second:#?}"
    );
    let weights = |run| dir.run_file(run, "model.safetensors");
    assert_eq!(weights("tiny-1"), weights("tiny-2"));
    assert_eq!(
        first.stdout.replace("tiny-1", ""),
        second.stdout.replace("tiny-2", "")
    );

    // Evaluation uses the cache, too, from any working directory.
    let mut command = dir.command("evaluate . --json");
    let evaluated = Output::of(command.current_dir(dir.path("artifacts/runs/tiny-1"))).success();
    assert!(!evaluated.stderr.contains("reading"), "{evaluated:#?}");

    // A damaged cache is rebuilt.
    let caches = dir.path("artifacts/runs/.pictures");
    let cache = fs::read_dir(&caches)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::write(cache.join("pixels"), "cut").unwrap();
    assert!(dir.trainer(TRAIN).success().stderr.contains("reading 61"));
    assert_eq!(weights("tiny-1"), weights("tiny-3"));
    // So is a cache whose pixels have changed.
    let mut bytes = fs::read(cache.join("pixels")).unwrap();
    *bytes.last_mut().unwrap() ^= 255;
    fs::write(cache.join("pixels"), bytes).unwrap();
    assert!(dir.trainer(TRAIN).success().stderr.contains("reading 61"));
    assert_eq!(weights("tiny-1"), weights("tiny-4"));
    // Only pictures that are new or have changed are read again.
    fs::copy(dir.path("mine/lying/0.png"), dir.path("mine/lying/new.png")).unwrap();
    let fifth = dir.trainer(TRAIN).success();
    assert!(fifth.stderr.contains("reading 1 picture\n"), "{fifth:#?}");
    fs::remove_file(dir.path("mine/lying/broken.png")).unwrap();
    let sixth = dir.trainer(TRAIN).success();
    assert!(!sixth.stderr.contains("reading"), "{sixth:#?}");
    assert!(!sixth.stderr.contains("skipped"), "{sixth:#?}");
}

#[test]
fn find_lr_shares_the_cache_of_decoded_pictures() {
    let dir = WorkDir::new();
    bars(&dir);
    let pictures = "--data mine --image-size 16 --preset tiny --out runs";
    // Ten steps may not suffice for a suggestion.
    let range_test = dir.trainer(&format!("find-lr {pictures} --steps 10 --json"));
    assert!(range_test.stderr.contains("reading 61"), "{range_test:#?}");
    let trained = dir.trainer(&format!("{pictures} --max-steps 1")).success();
    assert!(!trained.stderr.contains("reading"), "{trained:#?}");
}

#[test]
fn trains_without_a_cache_if_it_cannot_be_written() {
    let dir = WorkDir::new();
    bars(&dir);
    fs::create_dir_all(dir.path("artifacts/runs")).unwrap();
    // A file in the place of the folder of caches.
    fs::write(dir.path("artifacts/runs/.pictures"), "").unwrap();
    let uncached = dir.trainer(TRAIN).success();
    assert!(
        uncached
            .stderr
            .contains(": cannot cache the decoded pictures: "),
        "{uncached:#?}"
    );
    fs::remove_file(dir.path("artifacts/runs/.pictures")).unwrap();
    let cached = dir.trainer(TRAIN).success();
    assert!(!cached.stderr.contains("cannot cache"), "{cached:#?}");
    let weights = |run| dir.run_file(run, "model.safetensors");
    assert_eq!(weights("tiny-1"), weights("tiny-2"));
}

#[test]
fn a_cache_of_an_earlier_version_is_written_again() {
    let dir = WorkDir::new();
    bars(&dir);
    let train = format!("{TRAIN} --max-steps 1");
    dir.trainer(&train).success();
    let caches = fs::read_dir(dir.path("artifacts/runs/.pictures")).unwrap();
    let cache = caches.map(|entry| entry.unwrap().path()).next().unwrap();
    // The checksum was that of the index and the pixels.
    let pixels = fs::read(cache.join("pixels")).unwrap();
    let index =
        br#"{"channels":3,"height":16,"width":16,"images":[],"unreadable":[],"versions":{}}"#;
    let checksum = sha256_hex([index.as_slice(), &pixels]);
    fs::write(cache.join("pictures.json"), index).unwrap();
    fs::write(cache.join("sha256.txt"), checksum).unwrap();
    assert!(dir.trainer(&train).success().stderr.contains("reading 61"));
    assert!(!dir.trainer(&train).success().stderr.contains("reading"));
    // The checksum of the index is right, but it has other fields.
    fs::write(cache.join("pictures.json"), index).unwrap();
    fs::write(cache.join("sha256.txt"), sha256_hex([index])).unwrap();
    assert!(dir.trainer(&train).success().stderr.contains("reading 61"));
}

#[test]
fn caches_contain_no_temporary_files_and_have_no_locks() {
    let dir = WorkDir::new();
    bars(&dir);
    dir.trainer(&format!("{TRAIN} --max-steps 1")).success();
    let caches = fs::read_dir(dir.path("artifacts/runs/.pictures")).unwrap();
    let cache = caches.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut names: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["pictures.json", "pixels", "sha256.txt"]);
    // 60 color images of 16x16 pixels.
    assert_eq!(fs::metadata(cache.join("pixels")).unwrap().len(), 60 * 768);
}

#[test]
fn rejects_pictures_of_unknown_classes() {
    let dir = WorkDir::new();
    bars(&dir);
    dir.trainer(&format!("{TRAIN} --max-steps 1")).success();
    // Skipped pictures are also reported in the log file of the run.
    assert!(
        dir.run_text("tiny-1", "train.log")
            .contains("broken.png: not a picture")
    );
    for class in ["another", "lying"] {
        fs::create_dir_all(dir.path("other").join(class)).unwrap();
        for number in 0..2 {
            let picture = RgbImage::from_pixel(20, 20, Rgb([number, 2, 3]));
            let name = format!("{number}.png");
            picture
                .save(dir.path("other").join(class).join(name))
                .unwrap();
        }
    }
    let error = dir.trainer("evaluate tiny-1 --data other -q").error();
    let expected = "other: found a class another, expected one of lying, up & <right>";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn limit_train_selects_pictures_of_all_classes() {
    let dir = WorkDir::new();
    bars(&dir);
    // Without shuffling, the first 24 pictures would be of one class.
    let trained = dir.trainer(&format!("{TRAIN} --limit-train 24 --validation-split last"));
    let text = trained.success().stdout;
    let test = text.lines().find(|line| line.starts_with("test")).unwrap();
    assert!(test.ends_with("100.00%"), "{text}");
}

#[test]
fn evaluate_agrees_with_predict_on_a_folder_of_handwriting() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    // Without a folder `test`, all pictures are evaluated. Classes may be missing.
    for file in fs::read_dir(project("tests/handwriting")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let class = dir.path("written").join(&name[..1]);
        if !name.starts_with('0') {
            fs::create_dir_all(&class).unwrap();
            fs::copy(&path, class.join(name)).unwrap();
        }
    }
    let evaluation = dir
        .trainer(&format!("evaluate {run} --data written --json"))
        .success();
    let evaluation: Value = serde_json::from_str(&evaluation.stdout).unwrap();
    let predicted = dir
        .trainer(&format!("predict {run} written --json"))
        .success();
    let right = predicted.stdout.lines().filter(|line| {
        let prediction: Value = serde_json::from_str(line).unwrap();
        let folder = format!("/{}/", prediction["class"].as_str().unwrap());
        prediction["path"].as_str().unwrap().contains(&folder)
    });
    let accuracy = right.count() as f64 / 54.0;
    assert_eq!(evaluation["examples"], 54);
    assert_eq!(evaluation["classes"][1]["support"], 6);
    assert_eq!(evaluation["accuracy"], accuracy);
    assert!(accuracy > 0.9, "{accuracy}");
}
