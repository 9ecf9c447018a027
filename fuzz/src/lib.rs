//! Functions that several fuzz targets use.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::LazyLock;

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
