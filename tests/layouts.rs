//! Data as people have them: layouts of folders, names of IDX files, tables, arrays and archives, made from MNIST. Each is read
//! correctly, or ends with one error that says what to do; none is labeled wrongly.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use data::{Dataset, ImageDataset};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::{Output, WorkDir, idx};

/// Images of each digit in a layout.
const TRAIN: usize = 12;
const TEST: usize = 6;

/// Labeled digits, which the pretrained network was not trained on.
struct Digits {
    images: ImageDataset,
    train: Vec<usize>,
    test: Vec<usize>,
}

impl Digits {
    fn new() -> Self {
        let images = Dataset::embedded_mnist().unwrap().test;
        let mut seen = [0; 10];
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for index in 0..images.len() {
            let count = &mut seen[usize::from(images.label(index))];
            *count += 1;
            match *count {
                ..=TRAIN => train.push(index),
                count if count <= TRAIN + TEST => test.push(index),
                _ => {}
            }
        }
        Self {
            images,
            train,
            test,
        }
    }

    fn label(&self, index: usize) -> u8 {
        self.images.label(index)
    }

    fn pixels(&self, index: usize) -> Vec<u8> {
        self.images.pixels(index).unwrap().into_owned()
    }

    fn picture(&self, index: usize) -> GrayImage {
        GrayImage::from_raw(28, 28, self.pixels(index)).unwrap()
    }

    /// Saves digits as pictures; `path` names the file of a label and an index.
    fn save(&self, indices: &[usize], path: impl Fn(u8, usize) -> std::path::PathBuf) {
        for &index in indices {
            let path = path(self.label(index), index);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            self.picture(index)
                .save_with_format(path, ImageFormat::Png)
                .unwrap();
        }
    }

    /// Returns the IDX files of images and labels.
    fn idx(&self, indices: &[usize], is_transposed: bool) -> [Vec<u8>; 2] {
        let mut pixels = Vec::new();
        for &index in indices {
            let image = self.pixels(index);
            match is_transposed {
                false => pixels.extend(image),
                true => pixels.extend((0..784).map(|at| image[at % 28 * 28 + at / 28])),
            }
        }
        let labels: Vec<u8> = indices.iter().map(|&index| self.label(index)).collect();
        let count = indices.len() as u32;
        [
            idx(0x803, &[count, 28, 28], &pixels),
            idx(0x801, &[count], &labels),
        ]
    }

    /// Returns the rows of a table, the label first.
    fn rows(&self, indices: &[usize]) -> String {
        let row = |&index: &usize| {
            let pixels = self
                .pixels(index)
                .into_iter()
                .map(|pixel| pixel.to_string());
            format!(
                "{},{}\n",
                self.label(index),
                pixels.collect::<Vec<_>>().join(",")
            )
        };
        indices.iter().map(row).collect()
    }

    /// Returns the file of an array of images, and that of their labels.
    fn npy(&self, indices: &[usize]) -> [Vec<u8>; 2] {
        let count = indices.len();
        let pixels: Vec<u8> = indices
            .iter()
            .flat_map(|&index| self.pixels(index))
            .collect();
        let labels = indices
            .iter()
            .flat_map(|&index| i64::from(self.label(index)).to_le_bytes());
        [
            npy("|u1", &format!("({count}, 28, 28)"), &pixels),
            npy("<i8", &format!("({count},)"), &labels.collect::<Vec<u8>>()),
        ]
    }
}

fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), elements].concat()
}

fn zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive
            .start_file(name, SimpleFileOptions::default())
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn tar_gz(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Returns the numbers of training, validation and test images of each class, with the names of the classes.
#[track_caller]
fn counts(dir: &WorkDir, arguments: &str) -> Vec<(String, [u64; 3])> {
    let output = dir.trainer(&format!("data {arguments} --json")).success();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let class = |class: &Value| {
        let counts = ["train", "validation", "test"].map(|split| class[split].as_u64().unwrap());
        (class["class"].as_str().unwrap().to_string(), counts)
    };
    report["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(class)
        .collect()
}

/// Asserts that a data set has the ten digits with these numbers of images each, and that the pretrained network recognizes the
/// test images: their labels are right.
#[track_caller]
fn expect_digits(dir: &WorkDir, arguments: &str, expected: [usize; 3]) {
    let found = counts(dir, arguments);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "{arguments}"
    );
    for (class, counts) in &found {
        assert_eq!(
            *counts,
            expected.map(|count| count as u64),
            "{arguments}: class {class}"
        );
    }
    expect_recognized(dir, arguments);
}

#[track_caller]
fn expect_recognized(dir: &WorkDir, arguments: &str) {
    let run = dir.shipped();
    let output = dir
        .trainer(&format!("evaluate {run} --json --data {arguments}"))
        .success();
    let evaluation: Value = serde_json::from_str(&output.stdout).unwrap();
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.95, "{arguments}: {accuracy}");
}

/// Asserts that the digits of a data set without a test split are divided, and their labels are right.
#[track_caller]
fn expect_divided_digits(dir: &WorkDir, arguments: &str, total: usize) {
    let found = counts(dir, arguments);
    assert_eq!(found.len(), 10, "{arguments}");
    for (class, [train, validation, test]) in found {
        assert_eq!(train + test, total as u64, "{arguments}: class {class}");
        assert!(test > 0 && validation == 0, "{arguments}: class {class}");
    }
}

#[test]
fn splits_may_have_any_usual_name() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    for [train, test] in [
        ["Train", "Test"],
        ["training", "testing"],
        ["a/trainingSet", "a/testSet"],
    ] {
        let root = dir.path(&format!("of-{}", train.replace('/', "-")));
        digits.save(&digits.train, |label, index| {
            root.join(format!("{train}/{label}/{index}.png"))
        });
        digits.save(&digits.test, |label, index| {
            root.join(format!("{test}/{label}/{index}.png"))
        });
        expect_digits(&dir, root.to_str().unwrap(), [TRAIN, 0, TEST]);
    }
    let (train, validation): (Vec<usize>, Vec<usize>) =
        digits.train.iter().partition(|index| *index % 3 > 0);
    let [trained, validated] = [train.len(), validation.len()];
    digits.save(&train, |label, index| {
        dir.path(&format!("three/train/{label}/{index}.png"))
    });
    digits.save(&validation, |label, index| {
        dir.path(&format!("three/val/{label}/{index}.png"))
    });
    digits.save(&digits.test, |label, index| {
        dir.path(&format!("three/test/{label}/{index}.png"))
    });
    let found = counts(&dir, "three");
    let sum = |split: usize| found.iter().map(|(_, counts)| counts[split]).sum::<u64>();
    let expected = [trained, validated, 10 * TEST].map(|count| count as u64);
    assert_eq!([sum(0), sum(1), sum(2)], expected);
    expect_recognized(&dir, "three");
}

#[test]
fn an_unclear_level_of_classes_is_an_error() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    for set in ["trainingSet", "trainingSample"] {
        digits.save(&digits.train, |label, index| {
            dir.path(&format!("kaggle/{set}/{set}/{label}/{index}.jpg"))
        });
    }
    digits.save(&digits.test, |_, index| {
        dir.path(&format!("kaggle/testSet/testSet/img_{index}.jpg"))
    });
    let error = dir.trainer("--data kaggle --max-steps 1").error();
    assert!(error.ends_with("choose one of them with --data"), "{error}");
    expect_divided_digits(&dir, "kaggle/trainingSet", TRAIN);
    for writer in ["ann", "bob"] {
        digits.save(&digits.train, |label, index| {
            dir.path(&format!("writers/{writer}/{label}/{index}.png"))
        });
    }
    let error = dir.trainer("--data writers --max-steps 1").error();
    assert!(
        error.contains("if those are the classes, choose one folder, such as --data"),
        "{error}"
    );
}

#[test]
fn pictures_may_have_any_extension() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    for (at, &index) in digits.train.iter().enumerate() {
        let (extension, format) = [
            ("jfif", ImageFormat::Jpeg),
            ("tif", ImageFormat::Tiff),
            ("PNG", ImageFormat::Png),
            ("data", ImageFormat::Png),
        ][at % 4];
        let path = dir.path(&format!(
            "mixed/{}/{index}.{extension}",
            digits.label(index)
        ));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        digits
            .picture(index)
            .save_with_format(path, format)
            .unwrap();
    }
    for name in [
        ".DS_Store",
        "3/Thumbs.db",
        "3/.ipynb_checkpoints/1.png",
        "3/notes.txt",
        "3/movie.mp4",
    ] {
        write(&dir.path("mixed").join(name), "junk");
    }
    fs::create_dir(dir.path("mixed/empty")).unwrap();
    expect_divided_digits(&dir, "mixed", TRAIN);
    let trained = dir.trainer("--data mixed --max-steps 1").success();
    for expected in [
        "mixed/empty: no pictures, and so no class",
        "2 files have no extension of a picture and are not used: 1 .mp4, 1 .txt",
    ] {
        assert!(
            trained.stderr.contains(expected),
            "{expected}: {}",
            trained.stderr
        );
    }
}

#[test]
fn one_color_picture_among_gray_ones_is_reported() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    digits.save(&digits.train, |label, index| {
        dir.path(&format!("few/{label}/{index}.png"))
    });
    let red = RgbImage::from_pixel(28, 28, Rgb([200, 0, 0]));
    red.save(dir.path("few/3/red.png")).unwrap();
    let trained = dir
        .trainer("--data few --preset tiny --max-steps 1")
        .success();
    let expected = "1 of the 99 training pictures has color, so all become RGB images; --channels 1 makes them gray";
    assert!(trained.stderr.contains(expected), "{}", trained.stderr);
    let trained = dir
        .trainer("--data few --preset tiny --max-steps 1 --channels 1")
        .success();
    assert!(!trained.stderr.contains("become RGB"), "{}", trained.stderr);
}

#[test]
fn names_of_classes_are_compared_in_one_form() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    for (split, name) in [("train", "caf\u{e9}"), ("test", "cafe\u{301}")] {
        digits.save(&digits.train[..20], |_, index| {
            dir.path(&format!("accents/{split}/{name}/{index}.png"))
        });
        digits.save(&digits.train[20..40], |_, index| {
            dir.path(&format!("accents/{split}/tea/{index}.png"))
        });
    }
    let found = counts(&dir, "accents");
    assert_eq!(
        found,
        [
            ("caf\u{e9}".to_string(), [20, 0, 20]),
            ("tea".to_string(), [20, 0, 20])
        ]
    );
}

#[test]
fn labels_may_be_in_a_table_or_in_names() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    let mut table = "label,path,split\n".to_string();
    for (split, indices) in [("train", &digits.train), ("test", &digits.test)] {
        digits.save(indices, |label, index| {
            dir.path(&format!("flat/{label}_{index}.png"))
        });
        for &index in indices {
            let label = digits.label(index);
            table.push_str(&format!("{label},{label}_{index}.png,{split}\n"));
        }
    }
    let error = dir.trainer("--data flat --max-steps 1").error();
    assert!(
        error.contains("--labels") && error.contains("--label-pattern"),
        "{error}"
    );
    write(&dir.path("my-labels.csv"), &table);
    assert_eq!(
        counts(&dir, "flat --labels my-labels.csv")[3].1,
        [TRAIN as u64, 0, TEST as u64]
    );
    let found = counts(&dir, "flat --label-pattern {label}_*");
    assert_eq!(
        (found.len(), found[0].1[0] + found[0].1[2]),
        (10, (TRAIN + TEST) as u64)
    );
    // A table in the folder is found.
    write(&dir.path("flat/labels.csv"), &table);
    expect_digits(&dir, "flat", [TRAIN, 0, TEST]);
    // The recorded test images are found again.
    let trained =
        dir.trainer("--data flat --labels my-labels.csv --preset tiny --max-steps 2 --run-name t");
    trained.success();
    dir.trainer("evaluate t").success();

    write(
        &dir.path("my-labels.csv"),
        format!("{table}7,missing.png,train\n"),
    );
    assert_eq!(
        dir.trainer("--data flat --labels my-labels.csv --max-steps 1")
            .error()
            .rsplit('/')
            .next()
            .unwrap(),
        "my-labels.csv: line 182: no picture missing.png in the folder (1 of 181 rows name none)"
    );
    let error = dir
        .trainer("--data flat --label-pattern *_ --max-steps 1")
        .error();
    assert!(
        error.contains("expected a pattern with {label} once"),
        "{error}"
    );
}

/// The names of the four files of MNIST.
const MNIST: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

#[test]
fn idx_files_may_have_any_usual_name() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    let files = [
        digits.idx(&digits.train, false),
        digits.idx(&digits.test, false),
    ]
    .concat();
    type Rename = fn(&str) -> String;
    let rename: [(&str, Rename); 4] = [
        ("dotted", |name| name.replace("-idx", ".idx")),
        ("in-folders", |name| {
            format!("{name}/{}", name.replace("-idx", ".idx"))
        }),
        ("torchvision", |name| format!("MNIST/raw/{name}")),
        ("raw", |name| format!("raw/{name}")),
    ];
    for (folder, rename) in rename {
        for (name, bytes) in MNIST.into_iter().zip(&files) {
            write(&dir.path(folder).join(rename(name)), bytes);
        }
        expect_digits(&dir, folder, [TRAIN, 0, TEST]);
    }
    // Files beside folders of their names.
    for (name, bytes) in MNIST.into_iter().zip(&files) {
        write(&dir.path("both").join(name.replace("-idx", ".idx")), bytes);
        write(&dir.path("both").join(name).join(name), bytes);
    }
    expect_digits(&dir, "both", [TRAIN, 0, TEST]);
    // QMNIST has rows of labels.
    let rows = |indices: &[usize]| {
        let rows = indices
            .iter()
            .flat_map(|&index| [i32::from(digits.label(index)), 4, 2149, 0]);
        idx(
            0xC02,
            &[indices.len() as u32, 4],
            &rows.flat_map(i32::to_be_bytes).collect::<Vec<u8>>(),
        )
    };
    for (name, bytes) in [
        ("qmnist-train-images-idx3-ubyte", files[0].clone()),
        ("qmnist-train-labels-idx2-int", rows(&digits.train)),
        ("qmnist-test-images-idx3-ubyte", files[2].clone()),
        ("qmnist-test-labels-idx2-int", rows(&digits.test)),
    ] {
        write(&dir.path("qmnist").join(name), bytes);
    }
    expect_digits(&dir, "qmnist", [TRAIN, 0, TEST]);
    let error = dir
        .trainer("--data qmnist/qmnist-train-labels-idx2-int --max-steps 1")
        .error();
    assert!(
        error.ends_with("choose its folder, which has the files of images and of labels"),
        "{error}"
    );
}

#[test]
fn emnist_is_upright_with_named_classes() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    let files = [
        digits.idx(&digits.train, true),
        digits.idx(&digits.test, true),
    ]
    .concat();
    for set in ["digits", "mnist"] {
        for (name, bytes) in MNIST.into_iter().zip(&files) {
            let name = name.replace("t10k", "test");
            write(&dir.path(&format!("gzip/emnist-{set}-{name}")), bytes);
        }
    }
    let error = dir.trainer("--data gzip --max-steps 1").error();
    assert!(
        error.contains("found several datasets; choose one with --data"),
        "{error}"
    );
    expect_digits(&dir, "gzip/emnist-digits", [TRAIN, 0, TEST]);
    // Letters are numbered from 1, and their mapping names them.
    for (name, bytes) in MNIST.into_iter().zip(&files) {
        let mut bytes = bytes.clone();
        if name.contains("labels") {
            bytes[8..].iter_mut().for_each(|label| *label += 1);
        }
        write(
            &dir.path(&format!(
                "letters/emnist-letters-{}",
                name.replace("t10k", "test")
            )),
            bytes,
        );
    }
    let mapping: String = (1..=26)
        .map(|label| format!("{label} {} {}\n", 64 + label, 96 + label))
        .collect();
    write(&dir.path("letters/emnist-letters-mapping.txt"), mapping);
    let names: Vec<String> = counts(&dir, "letters")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.join(""), "ABCDEFGHIJ");
}

#[test]
fn tables_arrays_and_archives_are_read() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    let header = |first: &str| {
        let pixels: Vec<String> = (0..784).map(|pixel| format!("pixel{pixel}")).collect();
        format!("{first}{}\n", pixels.join(","))
    };
    // Kaggle's digit recognizer: the test images have no labels.
    let all = [&digits.train[..], &digits.test].concat();
    write(
        &dir.path("kaggle/train.csv"),
        header("label,") + &digits.rows(&all),
    );
    let unlabeled: String = digits
        .rows(&digits.test)
        .lines()
        .map(|row| format!("{}\n", row.split_once(',').unwrap().1))
        .collect();
    write(&dir.path("kaggle/test.csv"), header("") + &unlabeled);
    write(
        &dir.path("kaggle/sample_submission.csv"),
        "ImageId,Label\n1,0\n",
    );
    expect_divided_digits(&dir, "kaggle", TRAIN + TEST);
    expect_recognized(&dir, "kaggle/train.csv");
    let run = dir.shipped();
    let submission = dir
        .trainer(&format!("predict {run} kaggle/test.csv --csv"))
        .success()
        .stdout;
    let mut lines = submission.lines();
    assert_eq!(lines.next(), Some("ImageId,Label"));
    let right = lines
        .enumerate()
        .filter(|(at, line)| *line == format!("{},{}", at + 1, digits.label(digits.test[*at])));
    assert!(right.count() > 55);

    write(&dir.path("csv/mnist_train.csv"), digits.rows(&digits.train));
    write(&dir.path("csv/mnist_test.csv"), digits.rows(&digits.test));
    expect_digits(&dir, "csv", [TRAIN, 0, TEST]);

    let joined = |indices: &[usize], usage: &str| -> String {
        let row = |row: &str| {
            let (label, pixels) = row.split_once(',').unwrap();
            format!("{label},{},{usage}\n", pixels.replace(',', " "))
        };
        digits.rows(indices).lines().map(row).collect()
    };
    let text = [
        "emotion,pixels,Usage\n",
        &joined(&digits.train, "Training"),
        &joined(&digits.test, "PrivateTest"),
    ]
    .concat();
    write(&dir.path("fer/fer2013.csv"), text);
    expect_digits(&dir, "fer/fer2013.csv", [TRAIN, 0, TEST]);

    let ([x, y], [x_test, y_test]) = (digits.npy(&digits.train), digits.npy(&digits.test));
    let arrays = ["x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"].map(String::from);
    let arrays: Vec<(String, Vec<u8>)> = arrays.into_iter().zip([x, y, x_test, y_test]).collect();
    write(&dir.path("npz/mnist.npz"), zip(&arrays));
    expect_digits(&dir, "npz/mnist.npz", [TRAIN, 0, TEST]);
    for (name, bytes) in &arrays {
        write(&dir.path("npy").join(name), bytes);
    }
    expect_digits(&dir, "npy", [TRAIN, 0, TEST]);

    let pictures: Vec<(String, Vec<u8>)> = [("train", &digits.train), ("test", &digits.test)]
        .into_iter()
        .flat_map(|(split, indices)| indices.iter().map(move |index| (split, *index)))
        .map(|(split, index)| {
            let mut png = Cursor::new(Vec::new());
            digits
                .picture(index)
                .write_to(&mut png, ImageFormat::Png)
                .unwrap();
            (
                format!("digits/{split}/{}/{index}.png", digits.label(index)),
                png.into_inner(),
            )
        })
        .collect();
    write(&dir.path("digits.zip"), zip(&pictures));
    expect_digits(&dir, "digits.zip", [TRAIN, 0, TEST]);
    write(&dir.path("digits.tar.gz"), tar_gz(&pictures));
    expect_digits(&dir, "digits.tar.gz", [TRAIN, 0, TEST]);
    // The pictures of an archive are recorded and found again.
    dir.trainer("--data digits.zip --preset tiny --epochs 2 --max-steps 2 --checkpoint-every 1 --run-name zipped").success();
    dir.trainer("evaluate zipped").success();
    dir.trainer("--resume zipped --max-steps 3").success();
    assert!(
        dir.run_text("zipped", "config.toml")
            .contains("name = \"digits\"")
    );

    let cifar = |indices: &[usize]| {
        let record = |&index: &usize| {
            let mut padded = vec![0; 32 * 32];
            for (row, line) in self::rows(&digits.pixels(index)).enumerate() {
                padded[(row + 2) * 32 + 2..][..28].copy_from_slice(line);
            }
            [vec![digits.label(index)], padded.repeat(3)].concat()
        };
        indices.iter().flat_map(record).collect::<Vec<u8>>()
    };
    write(
        &dir.path("cifar-10-batches-bin/data_batch_1.bin"),
        cifar(&digits.train),
    );
    write(
        &dir.path("cifar-10-batches-bin/test_batch.bin"),
        cifar(&digits.test),
    );
    let found = counts(&dir, "cifar-10-batches-bin");
    assert_eq!(
        (found.len(), found[4].1),
        (10, [TRAIN as u64, 0, TEST as u64])
    );
    let trained = dir
        .trainer("--data cifar-10-batches-bin --max-steps 1")
        .success();
    assert!(trained.stderr.contains("preset vgg"), "{}", trained.stderr);
}

fn rows(pixels: &[u8]) -> std::slice::Chunks<'_, u8> {
    pixels.chunks(28)
}

#[test]
fn other_sizes_and_preparations_are_chosen_by_flags() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    write(&dir.path("digits.csv"), digits.rows(&digits.train));
    dir.trainer("--data digits.csv --image-size 32 --preset tiny --epochs 1 --run-name large")
        .success();
    let config = dir.run_text("large", "config.toml");
    assert!(config.contains("\nheight = 32\nwidth = 32\n"), "{config}");
    dir.trainer("evaluate large").success();
    dir.trainer(
        "--data digits.csv --preparation picture --preset tiny --max-steps 1 --run-name picture",
    )
    .success();
    assert!(
        dir.run_text("picture", "config.toml")
            .contains("preparation = \"picture\"")
    );
}

#[test]
fn runs_on_such_data_are_evaluated_and_repeated() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    let examples = |output: Output| {
        let evaluation: Value = serde_json::from_str(&output.success().stdout).unwrap();
        (
            evaluation["examples"].as_u64().unwrap(),
            evaluation["accuracy"].as_f64().unwrap(),
        )
    };
    // Classes are matched by their names, whichever of them there are.
    let few: Vec<usize> = digits
        .train
        .iter()
        .copied()
        .filter(|&index| [3, 7].contains(&digits.label(index)))
        .collect();
    write(&dir.path("few.csv"), digits.rows(&few));
    let run = dir.shipped();
    let (count, accuracy) = examples(dir.trainer(&format!("evaluate {run} --data few.csv --json")));
    assert!(
        count == 2 * TRAIN as u64 && accuracy > 0.9,
        "{count} {accuracy}"
    );
    // Without a test split, all images are evaluated, also after scaling.
    let small = |&index: &usize| {
        let pixels = digits.pixels(index);
        let pixels = (0..196).map(|at| pixels[at / 14 * 56 + at % 14 * 2].to_string());
        format!(
            "{},{}\n",
            digits.label(index),
            pixels.collect::<Vec<_>>().join(",")
        )
    };
    write(
        &dir.path("small.csv"),
        digits.train.iter().map(small).collect::<String>(),
    );
    let (count, _) = examples(dir.trainer(&format!("evaluate {run} --data small.csv --json")));
    assert_eq!(count, digits.train.len() as u64);
    // A repeated run scales the images as the first one did.
    let size = |run: &str| dir.run_text(run, "config.toml").contains("\nheight = 28\n");
    dir.trainer("--data small.csv --image-size 28 --preset tiny --max-steps 1 --run-name scaled")
        .success();
    dir.trainer("--data small.csv --preset tiny --max-steps 1 --run-name kept")
        .success();
    for (run, is_scaled) in [("scaled", true), ("kept", false)] {
        let arguments = format!(
            "--config artifacts/runs/{run}/config.toml --max-steps 1 --run-name again-{run}"
        );
        dir.trainer(&arguments).success();
        assert_eq!(
            [size(run), size(&format!("again-{run}"))],
            [is_scaled; 2],
            "{run}"
        );
    }
    // Color images become gray after they are scaled, in training and in evaluation.
    let color = |&index: &usize| {
        let pixels = digits.pixels(index).into_iter().enumerate();
        let pixels: Vec<u8> = pixels
            .flat_map(|(at, pixel)| [pixel, pixel / 2, (at % 50) as u8])
            .collect();
        [vec![digits.label(index)], pixels].concat()
    };
    let pixels: Vec<u8> = digits
        .train
        .iter()
        .flat_map(|index| color(index)[1..].to_vec())
        .collect();
    let labels: Vec<u8> = digits
        .train
        .iter()
        .map(|&index| digits.label(index))
        .collect();
    let count = labels.len();
    write(
        &dir.path("color/images.npy"),
        npy("|u1", &format!("({count}, 28, 28, 3)"), &pixels),
    );
    write(
        &dir.path("color/labels.npy"),
        npy("|u1", &format!("({count},)"), &labels),
    );
    dir.trainer(
        "--data color --image-size 20 --channels 1 --preset tiny --max-steps 1 --run-name gray",
    )
    .success();
    dir.trainer("evaluate gray").success();
    // Pictures that were labeled by their names are found in a moved folder.
    digits.save(&digits.train, |label, index| {
        dir.path(&format!("flat/{label}_{index}.png"))
    });
    dir.trainer(
        "--data flat --label-pattern {label}_* --preset tiny --max-steps 1 --run-name named",
    )
    .success();
    fs::rename(dir.path("flat"), dir.path("moved")).unwrap();
    dir.trainer("evaluate named --data moved").success();
}

/// Returns a table of the first images of some digits, with these numbers of each.
fn table_of(images: &ImageDataset, counts: &[(u8, usize)]) -> String {
    let mut left = counts.to_vec();
    let mut rows = "label,pixels\n".to_string();
    for index in 0..images.len() {
        let label = images.label(index);
        let wanted = left
            .iter_mut()
            .find(|(digit, count)| *digit == label && *count > 0);
        if let Some((_, count)) = wanted {
            *count -= 1;
            let pixels = images.pixels(index).unwrap();
            let pixels: Vec<String> = pixels.iter().map(u8::to_string).collect();
            rows.push_str(&format!("{label},{}\n", pixels.join(" ")));
        }
    }
    rows
}

#[test]
fn a_rare_class_is_warned_of_and_can_be_weighted() {
    let dir = WorkDir::new();
    let mnist = Dataset::embedded_mnist().unwrap();
    write(
        &dir.path("few/train.csv"),
        table_of(&mnist.train, &[(3, 190), (5, 8)]),
    );
    write(
        &dir.path("few/test.csv"),
        table_of(&mnist.test, &[(3, 100), (5, 100)]),
    );
    let balanced_accuracy = |name: &str, flags: &str| {
        let trained = dir
            .trainer(&format!(
                "--data few --validation 0 --run-name {name} {flags}"
            ))
            .success();
        let evaluation: Value =
            serde_json::from_str(&dir.run_text(name, "evaluation.json")).unwrap();
        (
            evaluation["macro_average"]["recall"].as_f64().unwrap(),
            trained.stderr,
        )
    };
    let (plain, warning) = balanced_accuracy("plain", "");
    assert!(
        warning.contains("190 training images of class 3, but 8 of 5: --class-weights balanced"),
        "{warning}"
    );
    let (weighted, warning) = balanced_accuracy("weighted", "--class-weights balanced");
    assert!(!warning.contains("--class-weights"), "{warning}");
    assert!(weighted > plain + 0.2, "{plain} {weighted}");
    let config = dir.run_text("weighted", "config.toml");
    assert!(config.contains("class_weights = [0.52105"), "{config}");
    let (sampled, _) = balanced_accuracy(
        "sampled",
        "--sampler balanced --select-by balanced-accuracy",
    );
    assert!(sampled > plain + 0.2, "{plain} {sampled}");
}

#[test]
fn wrong_labels_are_found() {
    let dir = WorkDir::new();
    let mnist = Dataset::embedded_mnist().unwrap().train;
    let counts: Vec<(u8, usize)> = (0..10).map(|digit| (digit, 400)).collect();
    // Every fiftieth label is wrong.
    let mut flipped = Vec::new();
    let table = table_of(&mnist, &counts);
    let rows = table.lines().enumerate().map(|(at, line)| match at % 50 {
        25 => {
            flipped.push(at - 1);
            let (label, pixels) = line.split_once(',').unwrap();
            format!(
                "{},{pixels}\n",
                (label.parse::<usize>().unwrap() + 1 + at % 7) % 10
            )
        }
        _ => format!("{line}\n"),
    });
    let rows: String = rows.collect();
    write(&dir.path("noisy/train.csv"), rows);
    write(
        &dir.path("noisy/test.csv"),
        table_of(&mnist, &[(0, 1), (1, 1)]),
    );
    let output = dir.trainer("data noisy --label-errors --folds 4 --epochs 4 --csv errors.csv -q");
    let output = output.success().stdout;
    assert!(
        output.contains("4000 training images very probably have a wrong label"),
        "{output}"
    );
    let table = fs::read_to_string(dir.path("errors.csv")).unwrap();
    let first = table.lines().skip(1).take(100);
    let indices = first.map(|line| {
        line.split([':', ','])
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
    });
    let found = indices.filter(|index| flipped.contains(index)).count();
    // Networks trained on few images err themselves: of all of MNIST, 99% are found.
    assert!(
        found * 4 >= flipped.len() * 3,
        "{found} of {}",
        flipped.len()
    );
}

#[test]
fn data_reports_copies_and_mistakes_are_listed() {
    let (dir, digits) = (WorkDir::new(), Digits::new());
    digits.save(&digits.train, |label, index| {
        dir.path(&format!("d/train/{label}/{index}.png"))
    });
    digits.save(&digits.test, |label, index| {
        dir.path(&format!("d/test/{label}/{index}.png"))
    });
    // A copy in another split, and one with another label.
    digits.save(&digits.train[..1], |label, index| {
        dir.path(&format!("d/test/{label}/copy-{index}.png"))
    });
    digits.save(&digits.train[1..2], |label, index| {
        dir.path(&format!("d/train/{}/wrong-{index}.png", (label + 1) % 10))
    });
    let output = dir.trainer("data d --html").success().stdout;
    let expected =
        "2 pairs of equal images, 1 of them across the test split, 1 with different labels";
    assert!(output.contains(expected), "{output}");
    let page = fs::read_to_string(dir.path("data.html")).unwrap();
    assert!(
        page.contains("<h2>Equal images</h2>") && page.contains("different labels"),
        "{page}"
    );

    dir.trainer("--data d --preset tiny --max-steps 1 --run-name t")
        .success();
    let output = dir
        .trainer("evaluate t --mistakes wrong.csv")
        .success()
        .stdout;
    assert!(output.contains("balanced accuracy"), "{output}");
    let table = fs::read_to_string(dir.path("wrong.csv")).unwrap();
    assert!(
        table.starts_with("index,path,class,predicted,probability,probability_of_class\n"),
        "{table}"
    );
    assert!(table.lines().nth(1).unwrap().contains(",test/"), "{table}");
    assert!(dir.path("artifacts/runs/.pictures").is_dir());
    dir.trainer("data --clean-cache").success();
    assert!(!dir.path("artifacts/runs/.pictures").exists());
}
