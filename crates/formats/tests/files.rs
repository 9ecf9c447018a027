//! Files as PyTorch and Keras wrote them (tests/weights/make.py), and such as they never would.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use burn::data::dataset::Dataset;
use burn::tensor::{Device, Tensor};
use formats::{Dtype, Format, Layout, ReadError, Tensors, Weights, fit, read, to_safetensors};
use model::{BlockConfig, ConvNet, ConvNetConfig, Storage};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const FILES: [&str; 7] = [
    "tiny.pt",
    "tiny-legacy.pth",
    "tiny-checkpoint.pt",
    "tiny.safetensors",
    "tiny.weights.h5",
    "tiny.keras",
    "tiny-whole.h5",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/weights")).join(name)
}

fn corpus(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/weights"
    ))
    .join(name)
}

fn tiny() -> ConvNetConfig {
    ConvNetConfig {
        dense: vec![],
        blocks: vec![BlockConfig {
            channels: 8,
            padding: 0,
            ..BlockConfig::default()
        }],
        ..ConvNetConfig::default()
    }
}

#[track_caller]
fn fitted(name: &str) -> Tensors {
    fit(&read(&fixture(name)).unwrap(), &tiny()).unwrap()
}

fn network(weights: &Tensors) -> ConvNet {
    let network = tiny().init(&Device::default()).unwrap();
    network
        .with_safetensors(to_safetensors(weights).unwrap())
        .unwrap()
}

/// A file of that name with these bytes, in a folder of its own.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[track_caller]
fn error(name: &str, bytes: &[u8]) -> String {
    let (_folder, path) = file(name, bytes);
    read(&path).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn all_files_hold_the_same_weights() {
    let expected = fitted(FILES[0]);
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        ["conv1.bias", "conv1.weight", "fc1.bias", "fc1.weight"]
    );
    for name in FILES {
        assert!(fitted(name) == expected, "{name}");
    }
}

#[test]
fn the_network_says_what_it_said_in_pytorch() {
    let text = fs::read_to_string(fixture("logits.json")).unwrap();
    let expected: Vec<Vec<f32>> = serde_json::from_str(&text).unwrap();
    let test = data::Splits::embedded_mnist().unwrap().test;
    let pixels: Vec<f32> = (0..expected.len())
        .flat_map(|index| test.get(index).unwrap().pixels)
        .map(|pixel| f32::from(pixel) / 255.0)
        .collect();
    let images = Tensor::<1>::from_floats(pixels.as_slice(), &Device::default());
    let logits = network(&fitted("tiny.pt")).forward(images.reshape([expected.len(), 1, 28, 28]));
    let logits = logits.into_data().try_to_vec::<f32>().unwrap();
    for (found, expected) in logits.iter().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
    }
}

#[test]
fn what_burn_writes_is_read_again() {
    let weights = fitted("tiny.pt");
    let network = network(&weights);
    for storage in [Storage::Single, Storage::Half] {
        for (name, bytes) in [
            ("a.safetensors", network.to_safetensors(storage)),
            ("b.safetensors", network.to_burn_safetensors(storage)),
            ("c.bpk", network.to_burnpack(storage)),
        ] {
            let (_folder, path) = file(name, &bytes.unwrap());
            let found = fit(&read(&path).unwrap(), &tiny()).unwrap();
            match storage {
                Storage::Single => assert!(found == weights, "{name}"),
                Storage::Half => assert!(distance(&found, &weights) < 1e-3, "{name}"),
            }
        }
    }
    let half = network.to_safetensors(Storage::Half).unwrap();
    assert!(half.len() < network.to_safetensors(Storage::Single).unwrap().len() * 6 / 10);
}

fn distance(a: &Tensors, b: &Tensors) -> f32 {
    let values = |tensors: &Tensors| -> Vec<f32> {
        tensors
            .values()
            .flat_map(|tensor| tensor.values().unwrap())
            .collect()
    };
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Weights of PyTorch with these names and shapes; those of the layer at place i are all i.
fn named(layers: &[(&str, &[usize])]) -> Weights {
    let mut tensors = Tensors::new();
    for (at, (name, shape)) in layers.iter().enumerate() {
        for (part, shape) in [("weight", *shape), ("bias", &shape[..1])] {
            let count: usize = shape.iter().product();
            let bytes = (at as f32).to_le_bytes().repeat(count);
            let tensor = formats::Tensor::new(shape.to_vec(), Dtype::F32, bytes).unwrap();
            tensors.insert(format!("{name}.{part}"), tensor);
        }
    }
    Weights {
        format: Format::PyTorch,
        layout: Layout::PyTorch,
        tensors,
        sha256: String::new(),
    }
}

#[test]
fn layers_are_told_by_shapes_and_then_by_numbers() {
    let default = ConvNetConfig::default();
    let layers = default.layers().unwrap();
    let shapes: Vec<&[usize]> = layers
        .iter()
        .map(|layer| layer.weights.as_slice())
        .filter(|shape| !shape.is_empty())
        .collect();
    for names in [
        ["conv1", "conv2", "fc1", "fc2"],
        [
            "module.conv_block.0",
            "module.conv_block.3",
            "module.fc_block.1",
            "module.fc_block.10",
        ],
        ["block1.0", "block2.0", "classifier", "a_head"],
        ["conv32", "conv_b", "fc128", "fc10"],
    ] {
        let layers: Vec<_> = names.into_iter().zip(shapes.iter().copied()).collect();
        let fitted = fit(&named(&layers), &default).unwrap();
        let first = |name: &str| fitted[name].values().unwrap()[0];
        let order = ["conv1.weight", "conv2.bias", "fc1.weight", "fc2.bias"].map(first);
        assert_eq!(order, [0.0, 1.0, 2.0, 3.0], "{names:?}");
    }
    let dense = ConvNetConfig {
        dense: vec![10, 10],
        blocks: vec![],
        ..default
    };
    let fitted = fit(
        &named(&[("in", &[10, 784]), ("h.9", &[10, 10]), ("h.10", &[10, 10])]),
        &dense,
    )
    .unwrap();
    assert_eq!(fitted["fc3.weight"].values().unwrap()[0], 2.0);
    let misfit = fit(
        &named(&[("in", &[10, 784]), ("one", &[10, 10]), ("two", &[10, 10])]),
        &dense,
    );
    assert_eq!(
        misfit.unwrap_err().to_string(),
        "which is the first of one, two? all are [10, 10]: call them alike, numbered in order"
    );
}

#[test]
fn layers_of_equal_shapes_keep_their_order() {
    let deep = ConvNetConfig {
        dense: vec![4; 3],
        blocks: vec![
            BlockConfig {
                channels: 2,
                ..BlockConfig::default()
            };
            3
        ],
        ..ConvNetConfig::default()
    };
    let [pytorch, keras] = ["deep.pt", "deep.weights.h5"]
        .map(|name| fit(&read(&fixture(name)).unwrap(), &deep).unwrap());
    assert!(pytorch == keras);
    assert!(pytorch["conv2.weight"] != pytorch["conv3.weight"]);
    // Its layers are numbered as they were made, which need not be as they are used.
    let misfit = fit(&read(&fixture("deep-whole.h5")).unwrap(), &deep).unwrap_err();
    assert_eq!(misfit.0.len(), 2);
    assert!(
        misfit.0[0].starts_with("which is the first of model_weights/"),
        "{misfit}"
    );
}

#[test]
fn every_tensor_that_does_not_fit_is_named() {
    let misfit = |name: &str, config: ConvNetConfig| {
        fit(&read(&fixture(name)).unwrap(), &config).unwrap_err().0
    };
    let other = ConvNetConfig {
        blocks: vec![BlockConfig {
            kernel: 5,
            padding: 0,
            channels: 8,
            ..BlockConfig::default()
        }],
        dense: vec![],
        ..ConvNetConfig::default()
    };
    assert_eq!(
        misfit("tiny.pt", other.clone()),
        [
            "conv1.weight [8, 1, 3, 3]: expected [8, 1, 5, 5]",
            "fc1.weight [10, 1352]: expected [10, 1152]",
        ]
    );
    assert_eq!(
        misfit("tiny.keras", other),
        [
            "layers/conv2d/vars/0 [3, 3, 1, 8]: expected [5, 5, 1, 8] for conv1.weight",
            "layers/dense/vars/0 [1352, 10]: expected [1152, 10] for fc1.weight",
        ]
    );
    let dense = ConvNetConfig {
        blocks: vec![],
        ..tiny()
    };
    let deep = ConvNetConfig {
        dense: vec![10],
        ..tiny()
    };
    assert_eq!(
        misfit("tiny-checkpoint.pt", dense)[0..2],
        [
            "model_state_dict._orig_mod.conv_block.0.weight [8, 1, 3, 3]: not part of the network",
            "model_state_dict._orig_mod.conv_block.0.bias [8]: not part of the network",
        ]
    );
    assert_eq!(
        misfit("tiny.weights.h5", deep),
        ["fc2.weight [10, 10]: missing", "fc2.bias [10]: missing"]
    );
}

#[test]
fn a_file_is_what_its_name_says() {
    let bytes = fs::read(fixture("tiny.safetensors")).unwrap();
    assert_eq!(
        error("model.pt", &bytes),
        "by its content safetensors, not PyTorch as its name says; rename it to .safetensors"
    );
    let bytes = fs::read(fixture("tiny.pt")).unwrap();
    assert!(error("model.safetensors", &bytes).starts_with("by its content PyTorch"));
    assert!(error("model.keras", &bytes).starts_with("by its content PyTorch"));
    assert!(
        error("model.pt", &fs::read(fixture("tiny.keras")).unwrap())
            .starts_with("by its content a Keras archive")
    );
    // A name that says nothing is no hindrance.
    let (_folder, path) = file("model", &bytes);
    assert!(read(&path).is_ok());
    for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n"] {
        assert!(error("model", bytes).starts_with("not a file of weights: known are PyTorch"));
    }
}

#[test]
fn what_is_cut_off_is_an_error_wherever() {
    for name in FILES {
        let bytes = fs::read(fixture(name)).unwrap();
        for part in [1, 2, 5, 10, 50, 90, 99] {
            let cut = &bytes[..bytes.len() * part / 100];
            error(name, cut);
        }
        error(name, &bytes[..bytes.len() - 1]);
    }
    let bytes = fs::read(fixture("tiny.pt")).unwrap();
    let message = error("tiny.pt", &bytes[..bytes.len() / 2]);
    assert!(
        message.starts_with("cannot be read as PyTorch: "),
        "{message}"
    );
}

/// A safetensors file with this header and so many bytes after it.
fn with_header(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn hostile_headers_are_refused() {
    let tensor = |name: &str, shape: &str, from: usize, to: usize| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let overlapping = format!(
        "{{{},{}}}",
        tensor("a", "[2]", 0, 8),
        tensor("b", "[2]", 4, 12)
    );
    let beyond = format!(
        "{{{}}}",
        tensor("a", "[1000000000000]", 0, 4_000_000_000_000)
    );
    let wrapping = format!("{{{}}}", tensor("a", "[4611686018427387905]", 0, 4));
    for header in [&overlapping, &beyond, &wrapping] {
        let message = error("a.safetensors", &with_header(header, 12));
        assert!(
            message.starts_with("cannot be read as safetensors: "),
            "{message}"
        );
    }
    let mut long = with_header("{}", 0);
    long[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    assert!(error("a.safetensors", &long).contains("safetensors"));
    // A burnpack file that announces more metadata than it has.
    let mut burnpack = burn_pack::MAGIC_NUMBER.to_le_bytes().to_vec();
    burnpack.extend([0xff; 8]);
    assert!(error("a.bpk", &burnpack).starts_with("cannot be read as burnpack: "));
}

/// An archive as `torch.save` makes it, around this pickle.
fn archive(pickle: &[u8], options: SimpleFileOptions) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("model/data.pkl", pickle), ("model/version", b"3\n")] {
        archive.start_file(name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored)
}

#[test]
fn a_pickle_that_calls_the_system_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = format!("touch {}", trace.display());
    // {'conv1.weight': os.system(command)}, as Python pickles it
    let mut pickle = b"\x80\x02}X\x0c\0\0\0conv1.weightcposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85Rs.");
    let refused = "refused, and nothing of it was run: it asks for posix.system, which weights do not need; \
                   save them alone, with torch.save(model.state_dict(), ...)";
    assert_eq!(error("model.pth", &archive(&pickle, stored())), refused);
    assert_eq!(error("model.pth", &pickle), refused);

    // The object of a legacy file is the fourth pickle.
    let legacy = fs::read(fixture("tiny-legacy.pth")).unwrap();
    let object = legacy
        .windows(3)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b".\x80\x02")
        .nth(2)
        .unwrap()
        .0
        + 1;
    let trapped = [
        &legacy[..object],
        b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R0",
        &legacy[object + 2..],
    ]
    .concat();
    assert_eq!(error("model.pth", &trapped), refused);
    assert!(!trace.exists());
}

#[test]
fn a_small_file_cannot_fill_memory() {
    // One text of 300 kB, remembered 300,000 times.
    let mut pickle = b"X\xe0\x93\x04\0".to_vec();
    pickle.resize(300_000, b'a');
    pickle.resize(600_000, 0x94);
    pickle.push(b'.');
    assert!(error("model.pt", &archive(&pickle, stored())).contains("larger than that of weights"));

    // Tensors that share a few numbers, and names that are repeated for each tensor.
    for (name, message) in [
        ("expanded", "more numbers than the file can hold"),
        (
            "overlapping-burnpack",
            "more numbers than the file can hold",
        ),
        ("long-key", "larger than that of weights"),
        ("long-group", "groups within groups without end"),
        ("cycle_latest", "groups within groups without end"),
    ] {
        let found = read(&corpus(name)).map(|_| ()).unwrap_err().to_string();
        assert!(found.contains(message), "{name}: {found}");
    }
}

#[test]
fn a_whole_model_is_not_its_weights() {
    let pickle = b"\x80\x02c__main__\nNet\n)\x81}b.";
    let message = error("model.pt", &archive(pickle, stored()));
    assert!(
        message.contains("it asks for __main__.Net, which weights do not need"),
        "{message}"
    );
}

#[test]
fn a_small_archive_cannot_unpack_to_a_large_one() {
    let deflated = SimpleFileOptions::default();
    let message = error("model.pt", &archive(&vec![b'('; 10 << 20], deflated));
    assert!(
        message.ends_with("compressed, as TorchScript is and torch.save never does"),
        "{message}"
    );

    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("model.weights.h5", deflated).unwrap();
    archive.write_all(&vec![0; 10 << 20]).unwrap();
    let message = error("model.keras", &archive.finish().unwrap().into_inner());
    assert!(message.contains("unpacks to far more"), "{message}");
}

#[test]
fn what_fuzzing_starts_from_and_found_ends_in_weights_or_an_error() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/corpus/weights"
    ));
    let (mut weights, mut errors) = (0, 0);
    for file in fs::read_dir(folder).unwrap() {
        match read(&file.unwrap().path()) {
            Ok(_) => weights += 1,
            Err(_) => errors += 1,
        }
    }
    assert!(weights >= 10 && errors >= 9, "{weights}, {errors}");
}

#[test]
fn a_file_of_many_gigabytes_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.pt");
    fs::File::create(&path).unwrap().set_len(40 << 30).unwrap();
    let refused = read(&path).map(|_| ()).unwrap_err();
    assert!(matches!(refused, ReadError::TooLarge(42_949_672_960)));
    assert_eq!(
        refused.to_string(),
        "42949672960 bytes, more than the 2147483648 that are read"
    );
}
