//! Tests with files written by PyTorch and Keras (tests/weights/make.py), and with damaged and hostile files.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use burn::data::dataset::Dataset;
use burn::tensor::{Device, Tensor};
use formats::{
    Dtype, Format, Layout, ReadError, Tensors, Weights, match_to_network, read, to_safetensors,
};
use model::{BlockConfig, ConvNet, ConvNetConfig, Initialization, Stage, Storage};
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
        blocks: vec![Stage::Block(BlockConfig {
            channels: 8,
            padding: 0,
            ..BlockConfig::default()
        })],
        ..ConvNetConfig::default()
    }
}

#[track_caller]
fn matched(name: &str) -> Tensors {
    match_to_network(&read(&fixture(name)).unwrap(), &tiny()).unwrap()
}

fn network(weights: &Tensors) -> ConvNet {
    let network = tiny().init(&Device::default()).unwrap();
    network
        .with_safetensors(to_safetensors(weights).unwrap())
        .unwrap()
}

/// Writes a file in a temporary folder.
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
fn reads_the_same_weights_from_all_formats() {
    let expected = matched(FILES[0]);
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        ["conv1.bias", "conv1.weight", "fc1.bias", "fc1.weight"]
    );
    for name in FILES {
        assert!(matched(name) == expected, "{name}");
    }
}

#[test]
fn logits_match_pytorch_to_1e_4() {
    let text = fs::read_to_string(fixture("logits.json")).unwrap();
    let expected: Vec<Vec<f32>> = serde_json::from_str(&text).unwrap();
    let test = data::Dataset::embedded_mnist().unwrap().test;
    let pixels: Vec<f32> = (0..expected.len())
        .flat_map(|index| test.get(index).unwrap().pixels)
        .map(|pixel| f32::from(pixel) / 255.0)
        .collect();
    let images = Tensor::<1>::from_floats(pixels.as_slice(), &Device::default());
    let logits = network(&matched("tiny.pt")).forward(images.reshape([expected.len(), 1, 28, 28]));
    let logits = logits.into_data().try_to_vec::<f32>().unwrap();
    for (actual, expected) in logits.iter().zip(expected.iter().flatten()) {
        assert!((actual - expected).abs() < 1e-4, "{actual} {expected}");
    }
}

#[test]
fn reads_files_written_by_burn() {
    let weights = matched("tiny.pt");
    let network = network(&weights);
    for storage in [Storage::Single, Storage::Half] {
        for (name, bytes) in [
            ("a.safetensors", network.to_safetensors(storage)),
            ("b.safetensors", network.to_burn_safetensors(storage)),
            ("c.bpk", network.to_burnpack(storage)),
        ] {
            let (_folder, path) = file(name, &bytes.unwrap());
            let actual = match_to_network(&read(&path).unwrap(), &tiny()).unwrap();
            match storage {
                Storage::Single => assert!(actual == weights, "{name}"),
                Storage::Half => assert!(distance(&actual, &weights) < 1e-3, "{name}"),
            }
        }
    }
    let half = network.to_safetensors(Storage::Half).unwrap();
    assert!(half.len() < network.to_safetensors(Storage::Single).unwrap().len() * 6 / 10);
}

/// Returns the largest difference between two sets of weights.
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

/// Returns weights in PyTorch's layout with these names and shapes. All values of layer i are i.
fn weights_named(layers: &[(&str, &[usize])]) -> Weights {
    let mut tensors = Tensors::new();
    for (index, (name, shape)) in layers.iter().enumerate() {
        for (part, shape) in [("weight", *shape), ("bias", &shape[..1])] {
            let count: usize = shape.iter().product();
            let bytes = (index as f32).to_le_bytes().repeat(count);
            let tensor = formats::Tensor::new(shape.to_vec(), Dtype::F32, bytes).unwrap();
            tensors.insert(format!("{name}.{part}"), tensor);
        }
    }
    Weights {
        format: Format::PyTorch,
        layout: Layout::PyTorch,
        tensors,
        order: Vec::new(),
        hints: Vec::new(),
        networks: Vec::new(),
        architecture: None,
        sha256: String::new(),
    }
}

#[test]
fn matches_layers_by_shape_and_then_by_number() {
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
        let matched = match_to_network(&weights_named(&layers), &default).unwrap();
        let first = |name: &str| matched[name].values().unwrap()[0];
        let order = ["conv1.weight", "conv2.bias", "fc1.weight", "fc2.bias"].map(first);
        assert_eq!(order, [0.0, 1.0, 2.0, 3.0], "{names:?}");
    }
    let dense = ConvNetConfig {
        dense: vec![10, 10],
        blocks: vec![],
        ..default
    };
    let matched = match_to_network(
        &weights_named(&[("in", &[10, 784]), ("h.9", &[10, 10]), ("h.10", &[10, 10])]),
        &dense,
    )
    .unwrap();
    assert_eq!(matched["fc3.weight"].values().unwrap()[0], 2.0);
    let mismatch = match_to_network(
        &weights_named(&[("in", &[10, 784]), ("one", &[10, 10]), ("two", &[10, 10])]),
        &dense,
    );
    assert_eq!(
        mismatch.unwrap_err().to_string(),
        "ambiguous order of one, two, all [10, 10]: give them names that differ only in their numbers"
    );
}

#[test]
fn keeps_the_order_of_layers_of_equal_shape() {
    let deep = ConvNetConfig {
        dense: vec![4; 3],
        blocks: vec![
            Stage::Block(BlockConfig {
                channels: 2,
                ..BlockConfig::default()
            });
            3
        ],
        ..ConvNetConfig::default()
    };
    let [pytorch, keras] = ["deep.pt", "deep.weights.h5"]
        .map(|name| match_to_network(&read(&fixture(name)).unwrap(), &deep).unwrap());
    assert!(pytorch == keras);
    assert!(pytorch["conv2.weight"] != pytorch["conv3.weight"]);
    // Before Keras 3, layers are numbered in the order of their creation.
    let mismatch = match_to_network(&read(&fixture("deep-whole.h5")).unwrap(), &deep).unwrap_err();
    assert_eq!(mismatch.0.len(), 2);
    assert!(
        mismatch.0[0].starts_with("ambiguous order of model_weights/"),
        "{mismatch}"
    );
}

#[test]
fn whole_models_of_keras_have_an_architecture() {
    let architecture = |name| read(&fixture(name)).unwrap().architecture.unwrap().unwrap();
    for name in ["tiny.keras", "tiny-whole.h5"] {
        let tiny = ConvNetConfig {
            initialization: Initialization::Keras,
            ..tiny()
        };
        assert_eq!(architecture(name).network, tiny, "{name}");
        assert!(architecture(name).tensors == matched("tiny.pt"), "{name}");
    }
    // The configuration has the order that the names do not tell.
    let deep = architecture("deep-whole.h5");
    let expected = match_to_network(&read(&fixture("deep.pt")).unwrap(), &deep.network).unwrap();
    assert!(deep.tensors == expected);
    assert!(
        read(&fixture("tiny.weights.h5"))
            .unwrap()
            .architecture
            .is_none()
    );
}

#[test]
fn names_every_mismatched_tensor() {
    let mismatch = |name: &str, config: ConvNetConfig| {
        match_to_network(&read(&fixture(name)).unwrap(), &config)
            .unwrap_err()
            .0
    };
    let other = ConvNetConfig {
        blocks: vec![Stage::Block(BlockConfig {
            kernel: 5,
            padding: 0,
            channels: 8,
            ..BlockConfig::default()
        })],
        dense: vec![],
        ..ConvNetConfig::default()
    };
    assert_eq!(
        mismatch("tiny.pt", other.clone()),
        [
            "conv1.weight [8, 1, 3, 3]: expected [8, 1, 5, 5]",
            "fc1.weight [10, 1352]: expected [10, 1152]",
        ]
    );
    assert_eq!(
        mismatch("tiny.keras", other),
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
        mismatch("tiny-checkpoint.pt", dense)[0..2],
        [
            "model_state_dict._orig_mod.conv_block.0.weight [8, 1, 3, 3]: not part of the network",
            "model_state_dict._orig_mod.conv_block.0.bias [8]: not part of the network",
        ]
    );
    assert_eq!(
        mismatch("tiny.weights.h5", deep),
        ["fc2.weight [10, 10]: missing", "fc2.bias [10]: missing"]
    );
}

#[test]
fn rejects_wrong_extensions_and_unknown_formats() {
    let bytes = fs::read(fixture("tiny.safetensors")).unwrap();
    assert_eq!(
        error("model.pt", &bytes),
        "the content is safetensors, but the file extension is that of PyTorch; rename it to .safetensors"
    );
    let bytes = fs::read(fixture("tiny.pt")).unwrap();
    assert!(error("model.safetensors", &bytes).starts_with("the content is PyTorch"));
    assert!(error("model.keras", &bytes).starts_with("the content is PyTorch"));
    assert!(
        error("model.pt", &fs::read(fixture("tiny.keras")).unwrap())
            .starts_with("the content is a Keras archive")
    );
    // A file without an extension is accepted.
    let (_folder, path) = file("model", &bytes);
    assert!(read(&path).is_ok());
    for bytes in [&b""[..], b"hello", b"\x89PNG\r\n\x1a\n"] {
        assert!(error("model", bytes).starts_with("unknown file format: expected PyTorch"));
    }
}

#[test]
fn rejects_truncated_files() {
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

/// Returns a safetensors file with this header and a number of zero bytes after it.
fn with_header(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn rejects_hostile_headers() {
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
    // A burnpack file that states more metadata than it has.
    let mut burnpack = burn_pack::MAGIC_NUMBER.to_le_bytes().to_vec();
    burnpack.extend([0xff; 8]);
    assert!(error("a.bpk", &burnpack).starts_with("cannot be read as burnpack: "));
}

/// Returns an archive with this pickle, in the structure of `torch.save`.
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
fn refuses_pickles_that_call_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = format!("touch {}", trace.display());
    // The pickle of {'conv1.weight': os.system(command)}.
    let mut pickle = b"\x80\x02}X\x0c\0\0\0conv1.weightcposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85Rs.");
    let refused = "refused without running it: the pickle references posix.system, which weights do not need; \
                   save only the weights, with torch.save(model.state_dict(), ...)";
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
fn rejects_small_files_that_expand_in_memory() {
    // One string of 300 kB, stored in the memo 300,000 times.
    let mut pickle = b"X\xe0\x93\x04\0".to_vec();
    pickle.resize(300_000, b'a');
    pickle.resize(600_000, 0x94);
    pickle.push(b'.');
    assert!(
        error("model.pt", &archive(&pickle, stored()))
            .contains("the pickle is larger than any that is supported")
    );

    // Tensors that share a few bytes, and long names that are repeated for each tensor.
    for (name, message) in [
        ("expanded", "twice as large as the file"),
        ("overlapping-burnpack", "twice as large as the file"),
        (
            "long-key",
            "the pickle is larger than any that is supported",
        ),
        ("long-group", "cyclic or too deeply nested groups"),
        ("cycle_latest", "cyclic or too deeply nested groups"),
    ] {
        let error = read(&corpus(name)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn whole_modules_of_pytorch_have_an_architecture() {
    let read = |name| read(&fixture(name)).unwrap();
    let module = read("module.pt");
    assert_eq!(
        module.order[..3],
        ["0.weight", "1.weight", "1.bias"].map(str::to_owned)
    );
    let architecture = module.architecture.unwrap().unwrap();
    assert_eq!(architecture.network.conv_blocks().count(), 1);
    let legacy = read("module-legacy.pt");
    assert_eq!(legacy.architecture.unwrap().unwrap(), architecture);
    // TorchScript has the weights only.
    let script = read("script.pt");
    assert!(script.architecture.is_none());
    assert!(script.tensors == module.tensors && legacy.tensors == module.tensors);
    // Batch normalization with an epsilon of its own, which only the modules state.
    let folded = match_to_network(&legacy_weights(), &architecture.network).unwrap();
    assert!(distance(&folded, &architecture.tensors) < 1e-6);
    assert!(match_to_network(&script, &architecture.network).unwrap() != folded);
}

fn legacy_weights() -> Weights {
    read(&fixture("module-legacy.pt")).unwrap()
}

#[test]
fn damaged_modules_give_weights_or_errors() {
    // A legacy file has no checksums.
    let bytes = fs::read(fixture("module-legacy.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pt");
    for at in (0..bytes.len()).step_by(67) {
        for value in [0, bytes[at] ^ 1, b'h'] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            fs::write(&path, damaged).unwrap();
            if let Ok(weights) = read(&path) {
                let _ = formats::unsupported(&weights);
            }
        }
    }
}

#[test]
fn objects_of_unknown_classes_are_data() {
    let pickle = b"\x80\x02c__main__\nNet\n)\x81}b.";
    let (_folder, path) = file("model.pt", &archive(pickle, stored()));
    let reason = formats::unsupported(&read(&path).unwrap());
    assert_eq!(reason.as_deref(), Some("the file holds no tensors"));
    let called = b"\x80\x02c__main__\nNet\n)R}b.";
    let message = error("model.pt", &archive(called, stored()));
    assert!(
        message.contains("the pickle references __main__.Net, which weights do not need"),
        "{message}"
    );
}

#[test]
fn text_and_encrypted_files_are_refused() {
    assert_eq!(
        error("model.pt", b"hello\nworld"),
        "a text file, but the file extension is that of PyTorch: it begins with \"hello\""
    );
    let pointer = error("model.pth", b"version https://git-lfs.github.com/spec/v1\n");
    assert!(
        pointer.ends_with("; `git lfs pull` replaces this pointer by the file"),
        "{pointer}"
    );
    let mut encrypted = archive(b"}.", stored());
    // Flags of the entry, locally and in the directory.
    for (signature, at) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        let start = encrypted.windows(4).position(|bytes| bytes == signature);
        encrypted[start.unwrap() + at] |= 1;
    }
    assert_eq!(
        error("model.pt", &encrypted),
        "cannot be read as PyTorch: the archive is encrypted"
    );
}

#[test]
fn rejects_archives_that_unpack_to_large_files() {
    let deflated = SimpleFileOptions::default();
    let message = error("model.pt", &archive(&vec![b'('; 10 << 20], deflated));
    assert!(
        message.ends_with("the pickle is larger than any that is supported"),
        "{message}"
    );

    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("model.weights.h5", deflated).unwrap();
    archive.write_all(&vec![0; 10 << 20]).unwrap();
    let message = error("model.keras", &archive.finish().unwrap().into_inner());
    assert!(message.contains("unpacks to more than"), "{message}");
}

#[test]
fn fuzz_corpus_gives_weights_or_errors() {
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
fn rejects_files_above_the_size_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.pt");
    fs::File::create(&path).unwrap().set_len(40 << 30).unwrap();
    let refused = read(&path).map(|_| ()).unwrap_err();
    assert!(matches!(refused, ReadError::Io(_)));
    assert_eq!(
        refused.to_string(),
        "42949672960 bytes, expected at most 2147483648"
    );
}

#[test]
fn onnx_networks_have_an_architecture() {
    let bytes = fs::read(corpus("onnx-residual")).unwrap();
    let (_folder, path) = file("network.onnx", &bytes);
    let weights = read(&path).unwrap();
    assert_eq!(
        (weights.format, weights.layout),
        (Format::Onnx, Layout::PyTorch)
    );
    let architecture = weights.architecture.unwrap().unwrap();
    assert!(matches!(
        architecture.network.blocks.as_slice(),
        [Stage::Block(_), Stage::Residual(_)]
    ));
    assert_eq!(
        error("network.pt", &bytes),
        "the content is ONNX, but the file extension is that of PyTorch; rename it to .onnx"
    );
}
