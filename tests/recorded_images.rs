//! Whatever happens to the images after a run was created, it is evaluated on the test images that it recorded,
//! and resumes only with the images that it began with.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::support::{WorkDir, idx, project};

/// Classes of the pictures.
const CLASSES: usize = 16;
const TRAIN: &str = "--preset dense --data noise --image-size 8 --batch-size 16 --validation 0";

/// Writes a picture of random pixels, which depend on the seed.
fn noise(path: &Path, seed: usize) {
    let mut state = seed as u64 * 2 + 1;
    let picture = GrayImage::from_fn(8, 8, |_, _| {
        // Marsaglia 2003, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Luma([(state >> 24) as u8])
    });
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(path).unwrap();
}

/// Writes pictures `numbers` of each class to the folder `noise`. Nothing but memory tells their classes.
fn add_pictures(dir: &WorkDir, numbers: std::ops::Range<usize>) {
    for class in 0..CLASSES {
        for number in numbers.clone() {
            let path = dir.path(&format!("noise/class{class}/{number}.png"));
            noise(&path, 1 + class * 1000 + number);
        }
    }
}

/// Trains on pictures of random noise until the training images are memorized, and returns the evaluation.
fn train_on_noise(dir: &WorkDir) -> Value {
    add_pictures(dir, 0..20);
    dir.trainer(&format!("{TRAIN} --epochs 60 -q")).success();
    evaluation_of(&dir.run_text("dense-1", "evaluation.json"))
}

fn evaluation_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Evaluates the run with further arguments, and returns the result and the messages.
fn evaluate(dir: &WorkDir, arguments: &str) -> (Value, String) {
    let output = dir
        .trainer(&format!("evaluate {arguments} --json"))
        .success();
    (evaluation_of(&output.stdout), output.stderr)
}

#[test]
fn added_pictures_are_never_test_images() {
    let dir = WorkDir::new();
    let trained = train_on_noise(&dir);
    let accuracy = trained["accuracy"].as_f64().unwrap();
    assert!(accuracy < 0.25, "chance is 1/16: {accuracy}");
    assert_eq!(evaluate(&dir, "dense-1").0, trained);

    // One more picture of each class, another class in front of the others, and half as many pictures more.
    add_pictures(&dir, 20..21);
    assert_eq!(evaluate(&dir, "dense-1").0, trained);
    noise(&dir.path("noise/a/1.png"), 7);
    add_pictures(&dir, 21..30);
    let (evaluation, messages) = evaluate(&dir, "dense-1");
    assert_eq!(evaluation, trained);
    assert!(!messages.contains("warning"), "{messages}");
    // The same folder by its name, and a copy of it, contain the images of the run.
    assert_eq!(evaluate(&dir, "dense-1 --data noise").0, trained);
    copy(&dir.path("noise"), &dir.path("copy"));
    let (evaluation, messages) = evaluate(&dir, "dense-1 --data copy");
    assert_eq!(evaluation, trained);
    assert!(
        messages.contains("copy contains the images of the run"),
        "{messages}"
    );

    // All other commands use these images, too.
    dir.trainer("report dense-1 -q").success();
    let report = dir.run_text("dense-1", "report.html");
    let percent = format!("{:.2}%", 100.0 * accuracy);
    assert!(report.contains(&percent), "no {percent} in the report");
    let ensemble = dir
        .trainer("ensemble dense-1 dense-1 --json")
        .success()
        .stdout;
    assert_eq!(
        evaluation_of(&ensemble)["ensemble"]["confusion"],
        trained["confusion"]
    );
    let examples = trained["examples"].as_u64().unwrap();
    let error = dir
        .trainer(&format!("predict dense-1 -q --test-index {examples}"))
        .error();
    assert!(
        error.ends_with(&format!("expected an index below {examples}")),
        "{error}"
    );
    dir.trainer("inspect dense-1 -q").success();
}

#[test]
fn missing_and_changed_test_pictures_are_reported_and_left_out() {
    let dir = WorkDir::new();
    let trained = train_on_noise(&dir);
    let record: Value = serde_json::from_str(&dir.run_text("dense-1", "images.json")).unwrap();
    let path = |split: &str, at: usize| record[split][at]["path"].as_str().unwrap().to_string();
    let (missing, changed) = (path("test", 0), path("test", 2));
    fs::remove_file(dir.path("noise").join(&missing)).unwrap();
    // A picture that the network was trained on takes the place of a test picture.
    fs::copy(
        dir.path("noise").join(path("train", 0)),
        dir.path("noise").join(&changed),
    )
    .unwrap();
    let (evaluation, messages) = evaluate(&dir, "dense-1");
    let examples = trained["examples"].as_u64().unwrap();
    assert_eq!(evaluation["examples"], examples - 2);
    let expected = format!(
        "2 of {examples} recorded pictures are missing or changed, and left out: {missing} (missing), \
         {changed} (changed)"
    );
    assert!(messages.contains(&expected), "{messages}");

    // Files that exchange their names are changed, too.
    let [first, second] =
        [path("test", 4), path("train", 1)].map(|path| dir.path("noise").join(path));
    fs::rename(&first, dir.path("noise/third")).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(dir.path("noise/third"), &second).unwrap();
    assert_eq!(evaluate(&dir, "dense-1").0["examples"], examples - 3);

    fs::remove_dir_all(dir.path("noise")).unwrap();
    add_pictures(&dir, 100..102);
    let error = dir.trainer("evaluate dense-1 -q").error();
    assert!(
        error.contains(&format!(
            "all {examples} recorded pictures are missing or changed: "
        )),
        "{error}"
    );
    fs::remove_dir_all(dir.path("noise")).unwrap();
    let error = dir.trainer("evaluate dense-1 -q").error();
    assert!(error.contains("cannot open the data folder"), "{error}");
    assert!(
        error.contains("evaluate can use others, with --data"),
        "{error}"
    );
}

#[test]
fn training_pictures_in_another_folder_are_counted() {
    let dir = WorkDir::new();
    train_on_noise(&dir);
    let record: Value = serde_json::from_str(&dir.run_text("dense-1", "images.json")).unwrap();
    for (at, picture) in record["train"]
        .as_array()
        .unwrap()
        .iter()
        .take(7)
        .enumerate()
    {
        let class = picture["class"].as_str().unwrap();
        let to = dir.path(&format!("other/{class}/renamed{at}.png"));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(
            dir.path("noise").join(picture["path"].as_str().unwrap()),
            to,
        )
        .unwrap();
    }
    for class in 0..2 {
        for at in 0..4 {
            noise(
                &dir.path(&format!("other/class{class}/{at}.png")),
                50_000 + class * 10 + at,
            );
        }
    }
    let (evaluation, messages) = evaluate(&dir, "dense-1 --data other");
    assert_eq!(evaluation["examples"], 15);
    assert!(
        messages.contains("7 of the 15 images are training or validation images of dense-1"),
        "{messages}"
    );
}

#[test]
fn test_pictures_with_the_content_of_training_pictures_are_reported() {
    let dir = WorkDir::new();
    for (path, seed) in [
        ("train/a/1", 1),
        ("train/b/1", 2),
        ("test/a/1", 1),
        ("test/b/1", 4),
    ] {
        noise(&dir.path(&format!("noise/{path}.png")), seed);
    }
    let messages = dir
        .trainer(&format!("{TRAIN} --max-steps 1"))
        .success()
        .stderr;
    assert!(
        messages.contains(
            "1 test pictures have the content of training pictures, such as test/a/1.png and train/a/1.png"
        ),
        "{messages}"
    );
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

/// Copies a run that a version without records made of the pictures 0 to 19 of each class.
fn unrecorded_run(dir: &WorkDir) -> Value {
    let run = dir.path("artifacts/runs/older");
    copy(&project("tests/unrecorded"), &run);
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    let folder = dir.path("noise").canonicalize().unwrap();
    let config = config.replace("\"noise\"", &format!("{:?}", folder.display().to_string()));
    fs::write(run.join("config.toml"), config).unwrap();
    evaluation_of(&dir.run_text("older", "evaluation.json"))
}

#[test]
fn runs_without_a_record_still_evaluate_and_say_so() {
    const LINE: &str = "has no record of its images; they are read from";
    let dir = WorkDir::new();
    add_pictures(&dir, 0..20);
    let trained = unrecorded_run(&dir);
    let (evaluation, messages) = evaluate(&dir, "older");
    assert_eq!(evaluation["confusion"], trained["confusion"]);
    assert!(messages.contains(LINE), "{messages}");
    assert!(!messages.contains("warning"), "{messages}");

    // The folder has changed, so that other pictures are test pictures now.
    add_pictures(&dir, 20..21);
    let (_, messages) = evaluate(&dir, "older");
    assert!(messages.contains(LINE), "{messages}");
    assert!(
        messages.contains(
            "changed since the run began; the test images may include images that the run was trained on"
        ),
        "{messages}"
    );

    // The test images of IDX files are in files of their own.
    let shipped = dir.shipped();
    let record = dir.path("artifacts/runs").join(shipped).join("images.json");
    fs::remove_file(record).unwrap();
    let (evaluation, messages) = evaluate(&dir, shipped);
    let trained = evaluation_of(&dir.run_text(shipped, "evaluation.json"));
    assert_eq!(evaluation["confusion"], trained["confusion"]);
    assert!(messages.contains(LINE), "{messages}");
    assert!(!messages.contains("warning"), "{messages}");
}

/// Trains two epochs on the folder `data` of IDX files, with a checkpoint after the first.
fn train_on_idx(dir: &WorkDir) {
    dir.images();
    let arguments = "--data data --preset tiny --batch-size 6 --epochs 1 --run-name run -q";
    dir.trainer(arguments).success();
}

#[test]
fn resuming_needs_the_images_and_labels_of_the_run() {
    let dir = WorkDir::new();
    train_on_idx(&dir);
    let file = |name: &str| dir.path("data").join(name);
    let images = fs::read(file("train-images-idx3-ubyte")).unwrap();
    let labels = fs::read(file("train-labels-idx1-ubyte")).unwrap();
    let refused = |split: &str| {
        let error = dir.trainer("--resume run --epochs 2 -q").error();
        let expected = format!(
            "data: the {split} images or their labels are not those that the run began with"
        );
        assert!(error.contains(&expected), "{error}");
    };

    // Every label l becomes (l + 1) % 3: the same number of images, classes, mean and deviation.
    let shifted: Vec<u8> = labels[8..].iter().map(|label| (label + 1) % 3).collect();
    fs::write(file("train-labels-idx1-ubyte"), idx(0x801, &[60], &shifted)).unwrap();
    refused("training");
    fs::write(file("train-labels-idx1-ubyte"), &labels).unwrap();

    // The first two images change their places.
    let mut swapped = images.clone();
    let (first, second) = swapped[16..144].split_at_mut(64);
    first.swap_with_slice(second);
    fs::write(file("train-images-idx3-ubyte"), swapped).unwrap();
    refused("training");
    fs::write(file("train-images-idx3-ubyte"), &images).unwrap();

    // The test labels change.
    let test_labels = fs::read(file("t10k-labels-idx1-ubyte")).unwrap();
    fs::write(file("t10k-labels-idx1-ubyte"), idx(0x801, &[30], &[1; 30])).unwrap();
    refused("test");
    let error = dir.trainer("evaluate run -q").error();
    assert!(
        error.contains("the test images or their labels are not those"),
        "{error}"
    );
    fs::write(file("t10k-labels-idx1-ubyte"), test_labels).unwrap();

    dir.trainer("--resume run --epochs 2 -q").success();
}

#[test]
fn a_moved_folder_resumes_to_the_same_bits() {
    let dir = WorkDir::new();
    train_on_idx(&dir);
    add_pictures(&dir, 0..10);
    dir.trainer(&format!("{TRAIN} --epochs 1 --run-name pictures -q"))
        .success();
    for (run, folder) in [("run", "data"), ("pictures", "noise")] {
        let runs = dir.path("artifacts/runs");
        copy(&runs.join(run), &runs.join("undisturbed"));
        dir.trainer("--resume undisturbed --epochs 2 -q").success();

        fs::rename(dir.path(folder), dir.path("moved elsewhere")).unwrap();
        let error = dir
            .trainer(&format!("--resume {run} --epochs 2 -q"))
            .error();
        assert!(
            error.contains("if they have moved, name their folder with --data"),
            "{error}"
        );
        if run == "pictures" {
            // A new picture is no image of this run.
            noise(&dir.path("moved elsewhere/class3/new.png"), 9);
        }
        let mut command = dir.command(&format!("--resume {run} --epochs 2 -q --data"));
        let resumed = command.arg("moved elsewhere").output().unwrap();
        assert!(resumed.status.success(), "{resumed:?}");
        for file in ["model.safetensors", "metrics.csv", "evaluation.json"] {
            assert!(
                dir.run_file(run, file) == dir.run_file("undisturbed", file),
                "{run} {file}"
            );
        }
        let config = dir.run_text(run, "config.toml");
        assert!(config.contains("moved elsewhere"), "{config}");
        dir.trainer(&format!("evaluate {run}")).success();
        fs::remove_dir_all(runs.join("undisturbed")).unwrap();
        fs::remove_dir_all(dir.path("moved elsewhere")).unwrap();
    }
}

#[test]
fn resuming_needs_all_training_pictures() {
    let dir = WorkDir::new();
    add_pictures(&dir, 0..10);
    dir.trainer(&format!("{TRAIN} --epochs 1 -q")).success();
    let record: Value = serde_json::from_str(&dir.run_text("dense-1", "images.json")).unwrap();
    let path = record["train"][3]["path"].as_str().unwrap();
    fs::write(dir.path("noise").join(path), "no picture").unwrap();
    let error = dir.trainer("--resume dense-1 --epochs 2 -q").error();
    let count = record["train"].as_array().unwrap().len();
    let expected =
        format!("1 of {count} pictures that the run began with are missing or changed: {path} (");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn an_ensemble_needs_the_same_test_images() {
    let dir = WorkDir::new();
    add_pictures(&dir, 0..10);
    for seed in [1, 2] {
        dir.trainer(&format!("{TRAIN} --epochs 1 --seed {seed} -q"))
            .success();
    }
    dir.trainer("ensemble dense-1 dense-2 -q").success();
    // The same labels, but other pictures.
    let record: Value = serde_json::from_str(&dir.run_text("dense-1", "images.json")).unwrap();
    for picture in record["test"].as_array().unwrap() {
        noise(
            &dir.path("noise").join(picture["path"].as_str().unwrap()),
            77,
        );
    }
    dir.trainer(&format!("{TRAIN} --epochs 1 -q")).success();
    let error = dir.trainer("ensemble dense-3 dense-1 -q").error();
    assert!(
        error.contains("recorded pictures are missing or changed"),
        "{error}"
    );
}

#[test]
fn swapped_folders_of_equal_files_get_their_new_labels() {
    let dir = WorkDir::new();
    // BMP files of one shape have one size.
    for (class, shade) in [("dark", 20), ("light", 230)] {
        fs::create_dir_all(dir.path("shades").join(class)).unwrap();
        for number in 0..10u8 {
            let picture = GrayImage::from_pixel(8, 8, Luma([shade + number]));
            let path = dir.path(&format!("shades/{class}/{number}.bmp"));
            picture.save(&path).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            file.set_modified(time).unwrap();
        }
    }
    let train =
        "--preset dense --data shades --image-size 8 --epochs 20 --batch-size 4 -q --run-name";
    dir.trainer(&format!("{train} first")).success();
    for (from, to) in [("dark", "other"), ("light", "dark"), ("other", "light")] {
        fs::rename(dir.path("shades").join(from), dir.path("shades").join(to)).unwrap();
    }
    dir.trainer(&format!("{train} second")).success();
    // Each network calls a light picture by the name that its folder had.
    for (run, class) in [("first", "light"), ("second", "dark")] {
        let predicted = dir
            .trainer(&format!("predict {run} shades/dark/3.bmp --json"))
            .success();
        assert_eq!(evaluation_of(&predicted.stdout)["class"], class, "{run}");
    }
}
