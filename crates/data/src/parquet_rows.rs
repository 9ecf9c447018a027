//! Pictures in Parquet files, as the Hugging Face Hub has them: rows of an encoded picture and its label.
//!
//! The picture is a column of bytes, or the field `bytes` of a group, such as `image: {bytes, path}`. A label is a whole
//! number or a text. The metadata `huggingface` of a file name the classes of numbered labels.
//!
//! Format of the metadata: <https://huggingface.co/docs/datasets/about_dataset_features>

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use crate::picture::begins_as_picture;
use crate::regular_file;

/// Names of columns of labels. Of two, the first is the finer one.
const LABELS: [&str; 10] = [
    "fine_label",
    "label",
    "labels",
    "class",
    "classes",
    "target",
    "targets",
    "category",
    "y",
    "character",
];
/// The field of bytes in a group.
const BYTES: &str = "bytes";
/// Longest accepted name of a class, in bytes.
const MAX_NAME: usize = 100;

/// The reason why a Parquet file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The file cannot be opened.
    #[error("cannot open the file")]
    Open(#[from] std::io::Error),
    /// The file is damaged.
    #[error("a damaged Parquet file: {0}")]
    Damaged(String),
    /// A column is missing.
    #[error("no column of {0}, but the columns {1}")]
    NoColumn(&'static str, String),
    /// A value is not of the expected kind.
    #[error("row {0}: {1}")]
    Row(usize, String),
}

impl From<ParquetError> for RowError {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A picture as its file, with the name of its class if it has one.
pub(crate) struct PictureRow {
    pub(crate) class: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

/// Reads the pictures of a file in their order. Rows without a picture are left out.
///
/// # Errors
/// Returns an error if the file is damaged, has no pictures, or a label is not a whole number or text.
pub(crate) fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<PictureRow, RowError>>, RowError> {
    let file: File = regular_file::open(path)?;
    let reader = SerializedFileReader::new(file)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let fields = schema.get_fields();
    let names = || {
        fields
            .iter()
            .map(|field| field.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let image = image_column(fields).ok_or_else(|| RowError::NoColumn("pictures", names()))?;
    let label = LABELS.iter().find_map(|wanted| {
        fields
            .iter()
            .find(|field| field.name().eq_ignore_ascii_case(wanted))
    });
    let classes = label.and_then(|label| class_names(metadata.key_value_metadata()?, label.name()));
    let mut columns = vec![Arc::clone(image)];
    columns.extend(label.map(Arc::clone));
    let projection = Type::group_type_builder(schema.name())
        .with_fields(columns)
        .build()?;
    let (image, label) = (
        image.name().to_string(),
        label.map(|label| label.name().to_string()),
    );
    let rows = reader.into_iter().project(Some(projection))?;
    Ok(rows.enumerate().filter_map(move |(at, row)| {
        let picture = match row {
            Ok(row) => picture(&row, at, &image, label.as_deref(), classes.as_deref()),
            Err(error) => Err(error.into()),
        };
        picture.transpose()
    }))
}

/// Returns the column of pictures: a group with bytes, or bytes that are no text. One whose name says so comes first.
fn image_column(fields: &[Arc<Type>]) -> Option<&Arc<Type>> {
    let is_bytes = |field: &Type| {
        field.is_primitive()
            && field.get_physical_type() == PhysicalType::BYTE_ARRAY
            && !matches!(
                field.get_basic_info().logical_type_ref(),
                Some(LogicalType::String)
            )
    };
    let has_bytes = |field: &&Arc<Type>| {
        is_bytes(field)
            || (field.is_group()
                && field
                    .get_fields()
                    .iter()
                    .any(|inner| inner.name() == BYTES && is_bytes(inner)))
    };
    let mut columns: Vec<&Arc<Type>> = fields.iter().filter(has_bytes).collect();
    columns.sort_by_key(|field| !["image", "img", "picture"].contains(&field.name()));
    columns.first().copied()
}

/// Returns the picture of a row; `None` if the row has none.
fn picture(
    row: &Row,
    at: usize,
    image: &str,
    label: Option<&str>,
    classes: Option<&[String]>,
) -> Result<Option<PictureRow>, RowError> {
    let error = |message: String| RowError::Row(at, message);
    let field = |name: &str| {
        row.get_column_iter()
            .find(|(column, _)| *column == name)
            .map(|(_, field)| field)
    };
    let bytes = match field(image) {
        Some(Field::Group(group)) => group
            .get_column_iter()
            .find(|(name, _)| *name == BYTES)
            .map(|(_, field)| field),
        field => field,
    };
    let Some(Field::Bytes(bytes)) = bytes else {
        return Ok(None);
    };
    if !begins_as_picture(bytes.data()) {
        return Err(error(format!(
            "column {image} holds no picture of a known format"
        )));
    }
    let class = match label.and_then(field) {
        None | Some(Field::Null) => None,
        Some(Field::Str(text)) => Some(text.clone()),
        Some(Field::Bytes(text)) => Some(String::from_utf8_lossy(text.data()).into_owned()),
        Some(Field::Bool(flag)) => Some(flag.to_string()),
        Some(number) => {
            let text = number.to_string();
            let number: i64 = text
                .parse()
                .map_err(|_| error(format!("label {text}, expected a whole number or a text")))?;
            // The Hub marks images without a label by -1.
            match (classes, usize::try_from(number)) {
                (_, Err(_)) => None,
                (Some(classes), Ok(index)) => {
                    let class = classes.get(index).cloned();
                    Some(class.ok_or_else(|| {
                        error(format!(
                            "label {number}, expected less than {}",
                            classes.len()
                        ))
                    })?)
                }
                (None, Ok(number)) => Some(number.to_string()),
            }
        }
    };
    match class {
        Some(class) if class.trim().is_empty() || class.len() > MAX_NAME => Err(error(format!(
            "label {class:?}, expected 1 to {MAX_NAME} letters"
        ))),
        class => Ok(Some(PictureRow {
            class,
            bytes: bytes.data().to_vec(),
        })),
    }
}

/// Returns the names of the classes of a column.
fn class_names(
    metadata: &[parquet::file::metadata::KeyValue],
    column: &str,
) -> Option<Vec<String>> {
    let entry = metadata.iter().find(|entry| entry.key == "huggingface")?;
    let value: serde_json::Value = serde_json::from_str(entry.value.as_ref()?).ok()?;
    let names = value
        .pointer("/info/features")?
        .get(column)?
        .get("names")?
        .as_array()?;
    names
        .iter()
        .map(|name| name.as_str().map(String::from))
        .collect()
}
