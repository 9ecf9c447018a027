//! The recognition of data: which format a file or folder has, and the dataset in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::archive::ArchiveFormat;
use crate::csv_table;
use crate::dataset::Dataset;
use crate::dataset_files::{
    DatasetFile, DatasetFiles, FileKind, Format, dataset_name, is_idx_file,
};
use crate::error::DataError;
use crate::folder_layout::FolderLayout;
use crate::label_pattern::LabelPattern;
use crate::label_table::{self, LabeledPicture};
use crate::listing::{picture_files, relative_path, sub_folders};
use crate::picture::begins_as_picture;
use crate::picture_folder::{PictureFolder, TestSelection};
use crate::regular_file;
use crate::split_name::{Split, words};

/// Number of file names that a message lists.
const MAX_LISTED: usize = 3;

/// Data that were opened.
#[derive(Debug)]
pub enum DataSource {
    /// Images that were read into memory.
    Images(Box<Dataset>),
    /// Pictures that are not decoded yet.
    Pictures(PictureFolder),
}

/// Where the labels of pictures are, if they are not in folders of their classes.
#[derive(Clone, Debug)]
pub enum FileLabels {
    /// In a table of paths and labels.
    Table(PathBuf),
    /// In the names of the files.
    Pattern(LabelPattern),
}

impl DataSource {
    /// Opens a folder or a file, or one of several datasets in a folder by its name, such as `gzip/emnist-letters`.
    ///
    /// # Errors
    /// Returns an error if the data cannot be read, have no labels or have a format that is not supported.
    pub fn open(
        path: &Path,
        labels: Option<&FileLabels>,
        selection: TestSelection,
    ) -> Result<Self, DataError> {
        if let Some(labels) = labels {
            return Ok(Self::Pictures(labels.pictures(path)?));
        }
        if path.is_file() {
            return images(&single_file(path)?);
        }
        // Arrays and tables beside pictures are rarely the data, unlike IDX files.
        match DatasetFiles::find(path) {
            Ok(Some(files))
                if !matches!(files.format, Format::Numpy | Format::Table)
                    || !has_pictures(path) =>
            {
                return images(&files);
            }
            Err(error) if !has_pictures(path) => return Err(error),
            _ => {}
        }
        if !path.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(DataError::Folder {
                path: path.to_path_buf(),
                source,
            });
        }
        let tables = label_tables(path)?;
        if !tables.is_empty() && !has_class_folders(path)? {
            return Ok(Self::Pictures(labeled_by_tables(path, tables)?));
        }
        check_class_folders(path)?;
        let mut folder = PictureFolder::list(path, selection)?;
        for table in tables {
            let table = table.display();
            folder.notes.push(format!("{table}: not used, since folders are the classes; --labels {table} takes the labels from it"));
        }
        Ok(Self::Pictures(folder))
    }
}

/// Checks that a folder of pictures has sub-folders.
fn check_class_folders(folder: &Path) -> Result<(), DataError> {
    if !sub_folders(folder)?.is_empty() {
        return Ok(());
    }
    match picture_files(folder).files.len() {
        0 => Ok(()),
        count => {
            let message = format!(
                "{count} pictures, but no sub-folder per class; name a table of their labels with --labels FILE.csv, or take \
                 the labels from their names with --label-pattern, such as '{{label}}_*' for cat_001.png"
            );
            Err(DataError::invalid(folder, message))
        }
    }
}

impl FileLabels {
    /// Lists the pictures of a folder with their labels.
    fn pictures(&self, folder: &Path) -> Result<PictureFolder, DataError> {
        let (pictures, rest) = match self {
            Self::Table(table) => {
                let pictures = label_table::read(table, folder)?;
                let rest = picture_files(folder).files.len() - pictures.len();
                (
                    pictures,
                    (rest > 0)
                        .then(|| format!("{rest} pictures have no label in {}", table.display())),
                )
            }
            Self::Pattern(pattern) => labels_of_names(folder, pattern)?,
        };
        let notes = rest.map(|rest| format!("{}: {rest}, and are not used", folder.display()));
        PictureFolder::labeled(folder, pictures, notes.into_iter().collect())
    }
}

/// Whether a path is a folder followed by the name of one of its datasets, such as `gzip/emnist-letters`.
pub fn names_dataset(path: &Path) -> bool {
    !path.exists() && matches!(DatasetFiles::find(path), Ok(Some(_)))
}

/// Reads the images of files.
fn images(files: &DatasetFiles) -> Result<DataSource, DataError> {
    let dataset = match files.format {
        Format::Idx => Dataset::from_idx(files),
        Format::Cifar => Dataset::from_cifar(files),
        Format::Numpy => Dataset::from_numpy(files),
        Format::Table => Dataset::from_tables(files),
    };
    Ok(DataSource::Images(Box::new(dataset?)))
}

/// Recognizes a file that is a dataset by itself.
fn single_file(path: &Path) -> Result<DatasetFiles, DataError> {
    let read = DataError::read(path);
    let invalid = |message: &str| Err(DataError::invalid(path, message.into()));
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let uncompressed = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
    let extension = uncompressed
        .extension()
        .unwrap_or_default()
        .to_string_lossy();
    let mut start = vec![0; 16];
    let length = std::io::Read::read(&mut regular_file::open(path).map_err(&read)?, &mut start)
        .map_err(&read)?;
    start.truncate(length);
    let (kind, format) = match &*extension {
        "npz" => (FileKind::Npz, Format::Numpy),
        "pkl" | "pickle" => (FileKind::Pickle, Format::Numpy),
        "npy" => {
            return invalid(
                "a single array; choose the folder with the arrays of images and of labels",
            );
        }
        "mat" | "h5" | "hdf5" | "pt" | "arff" | "json" | "xlsx" => {
            return invalid(
                "not a format of data that can be read; expected a folder, or a CSV, NPZ, zip or tar file",
            );
        }
        _ if is_idx_file(path)
            || start.starts_with(&[0, 0, 8])
            || start.starts_with(&[0, 0, 12]) =>
        {
            return invalid(
                "an IDX file; choose its folder, which has the files of images and of labels",
            );
        }
        _ if begins_as_picture(&start) => {
            return invalid("a picture; choose a folder of pictures, one sub-folder per class");
        }
        _ if matches!(ArchiveFormat::of(path), Ok(Some(_))) => {
            return invalid("an archive that is not unpacked");
        }
        _ => match csv_table::has_labels(regular_file::open(path).map_err(&read)?) {
            Some(false) => return invalid("a table of images without labels"),
            // The reader says what is wrong with another text.
            Some(true) | None => (FileKind::Table, Format::Table),
        },
    };
    let files = vec![DatasetFile {
        path: path.to_path_buf(),
        kind,
        split: None,
    }];
    Ok(DatasetFiles {
        path: path.to_path_buf(),
        name: dataset_name(path),
        format,
        files,
    })
}

/// Whether a folder or one of its sub-folders holds a picture.
fn has_pictures(folder: &Path) -> bool {
    let folders = sub_folders(folder).unwrap_or_default();
    folders
        .iter()
        .any(|(_, folder)| !picture_files(folder).files.is_empty())
}

/// Lists the pictures of a folder without class folders whose labels are in tables.
///
/// # Errors
/// Returns an error if a table names a picture that is not there, or two tables give a picture different labels.
fn labeled_by_tables(folder: &Path, tables: Vec<PathBuf>) -> Result<PictureFolder, DataError> {
    let mut pictures: BTreeMap<String, LabeledPicture> = BTreeMap::new();
    let mut notes = Vec::new();
    for table in tables {
        let stem = table.file_stem().unwrap_or_default().to_string_lossy();
        let split = words(&stem).iter().find_map(|word| Split::of_word(word));
        let labeled = label_table::read(&table, folder)?;
        notes.push(format!(
            "{}: the labels of {} pictures",
            table.display(),
            labeled.len()
        ));
        for picture in labeled {
            let picture = LabeledPicture {
                split: picture.split.or(split),
                ..picture
            };
            match pictures.get_mut(&picture.path) {
                Some(known) if known.class != picture.class => {
                    let (path, class, other) = (&picture.path, &picture.class, &known.class);
                    let message = format!("{path} has label {class}, but {other} in another table");
                    return Err(DataError::invalid(&table, message));
                }
                // A table of a split states more than one of all pictures.
                Some(known) => known.split = known.split.or(picture.split),
                None => {
                    pictures.insert(picture.path.clone(), picture);
                }
            }
        }
    }
    PictureFolder::labeled(folder, pictures.into_values().collect(), notes)
}

/// Whether a folder, or its training split, has a sub-folder per class. A single folder that holds no folders, such as
/// `images`, is no class.
fn has_class_folders(folder: &Path) -> Result<bool, DataError> {
    // Another layout is none of classes.
    let Ok(layout) = FolderLayout::of(folder) else {
        return Ok(false);
    };
    Ok(match sub_folders(&layout.train)?.len() {
        0 => false,
        1 => layout.train != folder,
        _ => true,
    })
}

/// Lists the tables of labels in a folder, without examples of submissions to a competition, whose labels are placeholders.
fn label_tables(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = std::fs::read_dir(folder).map_err(|source| DataError::Folder {
        path: folder.to_path_buf(),
        source,
    })?;
    let is_table = |path: &PathBuf| {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let is_csv = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        is_csv
            && !stem.starts_with("sample")
            && !stem.contains("submission")
            && label_table::is_at(path)
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut tables: Vec<PathBuf> = paths.filter(is_table).collect();
    tables.sort();
    Ok(tables)
}

/// Labels the pictures of a folder by their names. Returns a message about names that do not fit.
fn labels_of_names(
    folder: &Path,
    pattern: &LabelPattern,
) -> Result<(Vec<LabeledPicture>, Option<String>), DataError> {
    let invalid = |message: String| DataError::invalid(folder, message);
    let mut pictures = Vec::new();
    let mut others = Vec::new();
    for file in picture_files(folder).files {
        let Some(path) = relative_path(folder, &file) else {
            continue;
        };
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        match pattern.label(&stem) {
            Some(class) => {
                pictures.push(LabeledPicture {
                    class: class.to_string(),
                    split: Split::of_path(&path),
                    path,
                });
            }
            None => others.push(path),
        }
    }
    let listed = || {
        others
            .iter()
            .take(MAX_LISTED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    };
    if pictures.is_empty() {
        return Err(invalid(match others.is_empty() {
            true => "found no pictures".into(),
            false => format!(
                "no name of a picture fits the pattern of labels, such as {}",
                listed()
            ),
        }));
    }
    let count = others.len();
    let message = (count > 0).then(|| {
        format!(
            "{count} pictures have names that do not fit the pattern ({})",
            listed()
        )
    });
    Ok((pictures, message))
}
