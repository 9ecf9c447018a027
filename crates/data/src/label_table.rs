//! Tables of labels: a row for each picture with its path and its label, and perhaps its split.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use crate::error::DataError;
use crate::listing::{picture_files, relative_path};
use crate::regular_file;
use crate::split_name::Split;

/// Largest accepted table, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Headers of the column of paths, in lower case, the likeliest first.
const PATH_NAMES: [&str; 18] = [
    "path",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "file",
    "filename",
    "file_name",
    "fname",
    "image",
    "img",
    "picture",
    "image_name",
    "image_id",
    "imageid",
    "id_code",
    "name",
    "id",
];
/// Headers of the column of labels.
const LABEL_NAMES: [&str; 16] = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "label_name",
    "category",
    "target",
    "y",
    "digit",
    "letter",
    "character",
    "species",
    "breed",
    "diagnosis",
    "tag",
];
/// Headers of the column of splits.
const SPLIT_NAMES: [&str; 4] = ["split", "usage", "subset", "set"];

/// A picture with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabeledPicture {
    /// Path relative to the data folder, with `/` between the names.
    pub(crate) path: String,
    pub(crate) class: String,
    pub(crate) split: Option<Split>,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    line: u64,
    path: String,
    class: String,
    split: Option<Split>,
}

/// The meaning of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
}

/// The pictures of a folder, found by what a table may call them.
struct Pictures {
    paths: Vec<String>,
    /// The folders within the data folder that hold pictures.
    folders: HashSet<String>,
    /// Paths, with and without their extensions.
    by_path: Names,
    /// Names of files, with and without their extensions.
    by_name: Names,
}

/// Indices of pictures by their names; `None` if several pictures have a name.
#[derive(Default)]
struct Names(HashMap<String, Option<usize>>);

/// Reads a table, and finds its pictures in a folder.
///
/// # Errors
/// Returns an error if the table cannot be read, has no columns of paths and labels, names a picture that is not in the folder,
/// or gives a picture two labels.
pub(crate) fn read(table: &Path, folder: &Path) -> Result<Vec<LabeledPicture>, DataError> {
    let bytes = regular_file::read(table, MAX_BYTES).map_err(DataError::read(table))?;
    let invalid = |message: String| DataError::invalid(table, message);
    let rows = parse(bytes.as_slice()).map_err(invalid)?;
    Pictures::of(folder).label(rows).map_err(invalid)
}

/// Returns whether a file begins as a table of labels.
pub(crate) fn is_at(path: &Path) -> bool {
    let Ok(file) = regular_file::open(path) else {
        return false;
    };
    let mut reader = reader(file.take(1 << 16));
    let mut first = StringRecord::new();
    reader.read_record(&mut first).is_ok() && Columns::named(&first).is_some()
}

fn reader<R: Read>(bytes: R) -> csv::Reader<R> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes)
}

/// Parses the rows of a table.
///
/// # Errors
/// Returns an error message that names the line.
fn parse(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader = reader(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let mut record = StringRecord::new();
    let mut columns: Option<Columns> = None;
    let mut rows = Vec::new();
    let mut next = |record: &mut StringRecord| {
        reader
            .read_record(record)
            .map_err(|error| error.to_string())
    };
    while next(&mut record)? {
        let line = record.position().map_or(1, csv::Position::line);
        let Some(columns) = columns else {
            let named = Columns::named(&record);
            columns = Some(named.unwrap_or(Columns {
                path: 0,
                label: 1,
                split: None,
            }));
            if named.is_none() {
                rows.push(Row::of(
                    &record,
                    line,
                    columns.unwrap_or(Columns {
                        path: 0,
                        label: 1,
                        split: None,
                    }),
                )?);
            }
            continue;
        };
        rows.push(Row::of(&record, line, columns)?);
    }
    match rows.is_empty() {
        true => Err("no rows; expected columns path and label".into()),
        false => Ok(rows),
    }
}

impl Columns {
    /// Finds the columns by their headers.
    fn named(header: &StringRecord) -> Option<Self> {
        let names: Vec<String> = header.iter().map(str::to_lowercase).collect();
        let find = |wanted: &[&str]| {
            wanted
                .iter()
                .find_map(|wanted| names.iter().position(|name| name == wanted))
        };
        Some(Self {
            path: find(&PATH_NAMES)?,
            label: find(&LABEL_NAMES)?,
            split: find(&SPLIT_NAMES),
        })
    }
}

impl Row {
    fn of(record: &StringRecord, line: u64, columns: Columns) -> Result<Self, String> {
        let field = |at: usize| record.get(at).filter(|field| !field.is_empty());
        let (Some(path), Some(class)) = (field(columns.path), field(columns.label)) else {
            return Err(format!(
                "line {line}: expected a path and a label, found {:?}",
                record.iter().collect::<Vec<_>>().join(",")
            ));
        };
        if class.contains(char::is_control) {
            return Err(format!(
                "line {line}: label {class:?}: expected no control characters"
            ));
        }
        let split = match columns.split.and_then(field) {
            None => None,
            Some(value) => Some(Split::of_value(value).ok_or_else(|| {
                format!("line {line}: split {value:?}: expected train, validation or test")
            })?),
        };
        Ok(Self {
            line,
            path: path.to_string(),
            class: class.to_string(),
            split,
        })
    }
}

impl Pictures {
    /// Lists the pictures of a folder.
    fn of(folder: &Path) -> Self {
        let files = picture_files(folder).files;
        let paths = files.iter().filter_map(|file| relative_path(folder, file));
        let paths: Vec<String> = paths.collect();
        let (mut by_path, mut by_name) = (Names::default(), Names::default());
        for (at, path) in paths.iter().enumerate() {
            by_path.add(path, at);
            by_name.add(file_name(path), at);
        }
        let folders = paths
            .iter()
            .filter_map(|path| Some(path.split_once('/')?.0.to_string()));
        Self {
            folders: folders.collect(),
            paths,
            by_path,
            by_name,
        }
    }

    /// Finds the picture of a path: relative to the folder, with or without its extension, or by its name alone.
    fn find(&self, path: &str) -> Option<usize> {
        let path = path.replace('\\', "/");
        let path = path.trim_start_matches("./");
        // A path into one of the folders names no picture of another one.
        let is_within = path
            .split_once('/')
            .is_some_and(|(first, _)| self.folders.contains(first));
        let by_name = || self.by_name.get(file_name(path)).filter(|_| !is_within);
        self.by_path.get(path).or_else(by_name)
    }

    fn label(&self, rows: Vec<Row>) -> Result<Vec<LabeledPicture>, String> {
        let mut labeled: HashMap<usize, Row> = HashMap::new();
        let (mut missing, count) = (Vec::new(), rows.len());
        for row in rows {
            let Some(at) = self.find(&row.path) else {
                missing.push(row);
                continue;
            };
            if let Some(earlier) = labeled.get(&at)
                && earlier.class != row.class
            {
                return Err(format!(
                    "line {}: {} has label {}, but {} in line {}",
                    row.line, row.path, row.class, earlier.class, earlier.line
                ));
            }
            labeled.insert(at, row);
        }
        if let Some(first) = missing.first() {
            return Err(format!(
                "line {}: no picture {} in the folder ({} of {count} rows name none)",
                first.line,
                first.path,
                missing.len()
            ));
        }
        let mut pictures: Vec<LabeledPicture> = labeled
            .into_iter()
            .map(|(at, row)| LabeledPicture {
                path: self.paths[at].clone(),
                class: row.class,
                split: row.split.or_else(|| Split::of_path(&self.paths[at])),
            })
            .collect();
        pictures.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pictures)
    }
}

impl Names {
    fn add(&mut self, name: &str, at: usize) {
        for name in [name, without_extension(name)] {
            let known = self.0.entry(name.to_string()).or_insert(Some(at));
            if *known != Some(at) {
                *known = None;
            }
        }
    }

    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied().flatten()
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn without_extension(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && !extension.contains('/') => stem,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Labels the pictures of a folder with these files.
    fn labels(table: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in ["1.png", "2.png", "a/3.png", "b/4.v2.jpg", "b/1.png"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let path = folder.path().join("labels.csv");
        fs::write(&path, table).unwrap();
        let pictures = read(&path, folder.path());
        let prefix = format!("{}: ", path.display());
        let pictures = pictures.map_err(|error| error.to_string().replace(&prefix, ""))?;
        let line = |picture: LabeledPicture| {
            format!("{} {} {:?}", picture.path, picture.class, picture.split)
        };
        Ok(pictures.into_iter().map(line).collect())
    }

    #[test]
    fn pictures_are_found_by_path_or_name() {
        for table in [
            "path,label\n2.png,cat\na/3.png,dog\n",
            "label,extra,FileName\ncat,1,2.png\ndog,2,3.png\n",
            "id,class\n2,cat\n3,dog\n",
            "2.png,cat\n./a/3.png,dog\n",
            "\u{feff}image,label\n/home/ann/2.png,cat\nC:\\data\\3.png,dog\n",
        ] {
            assert_eq!(
                labels(table).unwrap(),
                ["2.png cat None", "a/3.png dog None"],
                "{table}"
            );
        }
        assert_eq!(
            labels("path,label,split\n2.png,cat,train\n4.v2,dog,test\n").unwrap(),
            ["2.png cat Some(Train)", "b/4.v2.jpg dog Some(Test)"]
        );
        assert_eq!(
            labels("path,label\n1.png,cat\nb/1.png,dog\n")
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn wrong_rows_are_named() {
        for (table, expected) in [
            (
                "path,label\n2.png,cat\n9.png,dog\n8.png,dog\n",
                "line 3: no picture 9.png in the folder (2 of 3 rows name none)",
            ),
            (
                "path,label\n2.png,cat\n2.png,dog\n",
                "line 3: 2.png has label dog, but cat in line 2",
            ),
            (
                "path,label\nb/3.png,dog\n",
                "line 2: no picture b/3.png in the folder (1 of 1 rows name none)",
            ),
            (
                "path,label\n2.png\n",
                "line 2: expected a path and a label, found \"2.png\"",
            ),
            ("path,label\n", "no rows; expected columns path and label"),
            ("", "no rows; expected columns path and label"),
            (
                "path,label,split\n2.png,cat,here\n",
                "line 2: split \"here\": expected train, validation or test",
            ),
        ] {
            assert_eq!(labels(table).unwrap_err(), expected, "{table}");
        }
    }
}
