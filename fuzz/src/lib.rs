//! Functions that several fuzz targets use.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::LazyLock;

use data::archive::{self, ArchiveFormat};
use data::{DataSource, TestSelection};
use formats::Weights;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// A temporary file, one per process.
static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("weights-{}", std::process::id())));

/// Reads a file of these bytes as `trainer import` does; `None` if it is refused.
pub fn weights(bytes: &[u8]) -> Option<Weights> {
    fs::write(&*PATH, bytes).expect("a temporary file");
    formats::read(&PATH).ok()
}

/// A folder of data, one per process, with arrays of which a target replaces one.
static DATA: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("data-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

/// Opens a data set of a file of these bytes as `trainer train` does. Beside an array is one of the other kind.
pub fn open_data(name: &str, bytes: &[u8]) {
    let path = DATA.join(name);
    fs::write(&path, bytes).expect("a temporary file");
    let source = match name.ends_with(".npy") {
        true => {
            let labels = name.starts_with('x');
            let other = DATA.join(if labels { "y_train.npy" } else { "x_train.npy" });
            let (shape, elements) = if labels {
                ("(2,)", vec![0, 1])
            } else {
                ("(2, 4)", vec![7; 8])
            };
            let header =
                format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
            let start = [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..]].concat();
            fs::write(other, [start, header.into_bytes(), elements].concat())
                .expect("a temporary file");
            DATA.as_path()
        }
        false => path.as_path(),
    };
    let opened = DataSource::open(source, None, TestSelection::ByPath);
    if let Ok(DataSource::Images(dataset)) = opened {
        assert!(!dataset.train.is_empty() && !dataset.test.is_empty());
        assert!(
            dataset
                .train
                .labels()
                .all(|label| usize::from(label) < dataset.info.classes.len())
        );
    }
    fs::remove_file(&path).expect("a temporary file");
}

/// Unpacks an archive; its files stay in the folder.
pub fn unpack(bytes: &[u8]) {
    let path = DATA.join("archive");
    let folder = DATA.join("unpacked");
    fs::write(&path, bytes).expect("a temporary file");
    if let Ok(Some(format)) = ArchiveFormat::of(&path) {
        let _ = archive::unpack(&[path], format, &folder, &|_| {});
    }
    let _ = fs::remove_dir_all(&folder);
    let others = fs::read_dir(&*DATA).expect("the folder").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        !matches!(
            name.to_str(),
            Some("archive" | "x_train.npy" | "y_train.npy")
        )
    });
    assert_eq!(others.count(), 0);
}

/// Checks the architecture of a file, if it has one: its weights belong to its network.
pub fn check_architecture(weights: &Weights) {
    if let Some(Ok(architecture)) = &weights.architecture {
        architecture.network.layers().expect("a valid network");
        formats::to_safetensors(&architecture.tensors).expect("tensors of a network");
    }
}

/// Returns an archive with another content of one entry.
pub fn with_entry(archive: &[u8], entry: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).expect("an archive");
    let mut changed = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("an entry");
        let name = file.name().expect("a name").into_owned();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("an entry");
        if name.ends_with(entry) {
            bytes = content.to_vec();
        }
        changed.start_file(name, options).expect("an entry");
        changed.write_all(&bytes).expect("an entry");
    }
    changed.finish().expect("an archive").into_inner()
}
