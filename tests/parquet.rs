//! Data in Parquet files, with the cargo feature `parquet` and without it. `tests/parquet/make.py` wrote the files.

use std::fs;

use crate::support::{WorkDir, project};

/// Copies the Parquet files to the folder `digits`.
fn digits() -> WorkDir {
    let work = WorkDir::new();
    fs::create_dir(work.path("digits")).unwrap();
    for entry in fs::read_dir(project("tests/parquet/digits")).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, work.path("digits").join(file.file_name().unwrap())).unwrap();
    }
    work
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_so() {
    let work = digits();
    for path in ["digits", "digits/train-00000-of-00002.parquet"] {
        let message = work.trainer(&format!("--data {path} -q")).error();
        let expected = "Parquet needs a build with `--features parquet`; or save the pictures as files, a folder per class";
        assert!(message.contains(expected), "{message}");
    }
}

#[cfg(feature = "parquet")]
mod with_feature {
    use data::{Dataset, ImageDataset};
    use serde_json::Value;

    use super::*;

    const NAMES: [&str; 10] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];

    /// Returns the unpacked pictures of a split as pixels with the names of their classes, in their order.
    fn unpacked(work: &WorkDir, split: &str) -> Vec<(String, Vec<u8>)> {
        let archives = fs::read_dir(work.path("artifacts/runs/.archives")).unwrap();
        let archive = archives.last().unwrap().unwrap().path().join("digits");
        let mut pictures = Vec::new();
        for class in fs::read_dir(archive.join(split)).unwrap() {
            let class = class.unwrap();
            for file in fs::read_dir(class.path()).unwrap() {
                let file = file.unwrap();
                let pixels = image::open(file.path()).unwrap().into_luma8().into_raw();
                let class = class.file_name().into_string().unwrap();
                pictures.push((file.file_name(), class, pixels));
            }
        }
        pictures.sort();
        pictures
            .into_iter()
            .map(|(_, class, pixels)| (class, pixels))
            .collect()
    }

    fn expected(images: &ImageDataset, count: usize) -> Vec<(String, Vec<u8>)> {
        let image = |at| {
            let name = NAMES[usize::from(images.label(at))].to_string();
            (name, images.pixels(at).unwrap().into_owned())
        };
        (0..count).map(image).collect()
    }

    #[test]
    fn pictures_labels_and_names_of_classes_are_read() {
        let work = digits();
        let report = work.trainer("data digits --json").success().stdout;
        let report: Value = serde_json::from_str(&report).unwrap();
        assert!(report.to_string().contains("\"seven\""), "{report}");
        let mnist = Dataset::embedded_mnist().unwrap();
        assert_eq!(unpacked(&work, "train"), expected(&mnist.train, 80));
        assert_eq!(unpacked(&work, "test"), expected(&mnist.test, 20));
        work.trainer("--data digits --preset tiny --epochs 1 --run-name run -q")
            .success();
        assert!(work.run_text("run", "config.toml").contains("\"eight\""));
    }

    #[test]
    fn wrong_files_are_described() {
        let work = digits();
        let whole = fs::read(work.path("digits/train-00000-of-00002.parquet")).unwrap();
        for (name, bytes, expected) in [
            (
                "truncated",
                whole[..whole.len() / 2].to_vec(),
                "a damaged Parquet file",
            ),
            ("empty", b"PAR1".to_vec(), "a damaged Parquet file"),
        ] {
            let file = format!("{name}.parquet");
            fs::write(work.path(&file), bytes).unwrap();
            let message = work.trainer(&format!("--data {file} -q")).error();
            assert!(
                message.contains(&file) && message.contains(expected),
                "{message}"
            );
        }
        fs::create_dir(work.path("digits/more")).unwrap();
        fs::write(work.path("digits/more/train.parquet"), whole).unwrap();
        let message = work.trainer("--data digits -q").error();
        assert!(
            message.contains("found Parquet files in several folders; choose one"),
            "{message}"
        );
    }
}
