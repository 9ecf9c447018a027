//! Arrays of NumPy in pickles of Python: dictionaries of arrays, tuples of images and labels, and the batches of CIFAR. No code of
//! a pickle is run.

use std::path::Path;

use flate2::read::MultiGzDecoder;
use pickle::{Id, Pickle, PickleError, Value};

use crate::error::DataError;
use crate::idx::GZIP_MAGIC;
use crate::npy::{Array, ArrayError, MAX_TEXT};
use crate::regular_file;

/// Largest accepted pickle, in bytes.
const MAX_BYTES: u64 = 4 << 30;

/// Names of the arrays of tuples (images, labels) for training, validation and test.
const SPLITS: [(&str, &str); 3] = [
    ("train_images", "train_labels"),
    ("val_images", "val_labels"),
    ("test_images", "test_labels"),
];

/// An array with its name.
pub(crate) struct NamedArray {
    pub(crate) name: String,
    pub(crate) array: Result<Array, ArrayError>,
}

/// Reads the arrays of a pickle, which may be compressed with gzip: the entries of a dictionary, or tuples (images, labels), one
/// of them or one per split. Lists of numbers or texts count as arrays.
///
/// # Errors
/// Returns an error if the file cannot be read or is no pickle, if the pickle would run code, or has no arrays.
pub(crate) fn read(path: &Path) -> Result<Vec<NamedArray>, DataError> {
    let bytes = unpacked(path)?;
    let invalid = |message: String| DataError::invalid(path, message);
    let pickle = Pickle::read(&bytes, bytes.len()).map_err(|error| {
        invalid(match error {
            PickleError::Damaged(at) => format!("a damaged pickle, at byte {at}"),
            error => error.to_string(),
        })
    })?;
    if let Some(call) = pickle.unknown_calls.first() {
        return Err(invalid(format!(
            "refused without running it: the pickle calls {call}, which arrays do not need; save the arrays with numpy.savez"
        )));
    }
    let named = match (pickle.entries(pickle.root), pickle.elements(pickle.root)) {
        (Some(entries), _) => entries
            .iter()
            .filter_map(|&(key, value)| {
                let name = pickle.bytes(key)?;
                Some((String::from_utf8_lossy(&name).into_owned(), value))
            })
            .collect(),
        (_, Some(elements)) => names_of_splits(&pickle, elements),
        _ => Vec::new(),
    };
    // Many names may refer to the same elements.
    let mut left = bytes.len().saturating_mul(8).saturating_add(1 << 20);
    let mut arrays = Vec::new();
    for (name, id) in named {
        let Some(array) = array(&pickle, id) else {
            continue;
        };
        let size = array.as_ref().map_or(0, Array::size);
        left = left
            .checked_sub(size)
            .ok_or_else(|| invalid("its arrays are larger than the file".into()))?;
        arrays.push(NamedArray { name, array });
    }
    if arrays.is_empty() {
        return Err(invalid(
            "found no arrays; expected a dictionary of arrays such as x_train and y_train, or tuples (images, labels)".into(),
        ));
    }
    Ok(arrays)
}

/// Reads a list of texts in the dictionary of a pickle; `None` if there is none.
pub(crate) fn names(path: &Path, key: &str) -> Option<Vec<String>> {
    let bytes = unpacked(path).ok()?;
    let pickle = Pickle::read(&bytes, bytes.len()).ok()?;
    let entries = pickle.entries(pickle.root)?.iter();
    let (_, names) = entries
        .rev()
        .find(|(name, _)| pickle.bytes(*name).as_deref() == Some(key.as_bytes()))?;
    let names = pickle.elements(*names)?.iter();
    names
        .map(|name| String::from_utf8(pickle.bytes(*name)?.into_owned()).ok())
        .collect()
}

fn unpacked(path: &Path) -> Result<Vec<u8>, DataError> {
    let error = DataError::read(path);
    let bytes = regular_file::read(path, MAX_BYTES).map_err(&error)?;
    if !bytes.starts_with(&GZIP_MAGIC) {
        return Ok(bytes);
    }
    let stream = MultiGzDecoder::new(bytes.as_slice());
    regular_file::read_to_limit(stream, 0, MAX_BYTES).map_err(&error)
}

/// Names the arrays of a tuple (images, labels), or of tuples for training, perhaps validation, and test.
fn names_of_splits(pickle: &Pickle<'_>, elements: &[Id]) -> Vec<(String, Id)> {
    let pairs: Option<Vec<(Id, Id)>> = elements
        .iter()
        .map(|&pair| match pickle.value(pair) {
            Value::Tuple(pair) | Value::List(pair) => <[Id; 2]>::try_from(pair.as_slice())
                .ok()
                .map(|[images, labels]| (images, labels))
                // A list of two labels is no pair.
                .filter(|(images, _)| array(pickle, *images).is_some()),
            _ => None,
        })
        .collect();
    let splits: &[usize] = match &pairs {
        Some(pairs) => match pairs.len() {
            1 => &[0],
            2 => &[0, 2],
            3 => &[0, 1, 2],
            _ => &[],
        },
        None => &[],
    };
    if let (Some(pairs), false) = (pairs, splits.is_empty()) {
        let named = pairs
            .into_iter()
            .zip(splits)
            .flat_map(|((images, labels), &split)| {
                let (images_name, labels_name) = SPLITS[split];
                [
                    (images_name.to_string(), images),
                    (labels_name.to_string(), labels),
                ]
            });
        return named.collect();
    }
    match elements {
        &[images, labels] => vec![("images".into(), images), ("labels".into(), labels)],
        _ => Vec::new(),
    }
}

/// Returns an array, or a list of whole numbers or texts as an array; `None` for other values.
fn array(pickle: &Pickle<'_>, id: Id) -> Option<Result<Array, ArrayError>> {
    let invalid = |message: &str| Some(Err(ArrayError::Invalid(message.into())));
    if let Some(list) = pickle.elements(id) {
        return list_as_array(pickle, list);
    }
    let object = pickle.object(id)?;
    let args = pickle.elements(object.args)?;
    // The shape, the type, whether the order is that of Fortran, and the elements.
    let (shape, dtype, is_fortran, data) = match pickle.global(object.class)?.as_str() {
        "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => {
            // numpy.ndarray.__reduce__; a version came first later on.
            let state = object.state.and_then(|state| pickle.elements(state));
            match state {
                Some(&[_, shape, dtype, order, data] | &[shape, dtype, order, data]) => {
                    let is_fortran = match pickle.value(order) {
                        Value::Bool(flag) => *flag,
                        Value::Int(flag) => *flag != 0,
                        _ => return invalid("an array without an order of its elements"),
                    };
                    (shape, dtype, is_fortran, data)
                }
                _ => return invalid("an array without elements"),
            }
        }
        // Protocol 5.
        "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => match *args {
            [data, dtype, shape, order] => (shape, dtype, pickle.text(order) != Some("C"), data),
            _ => return invalid("an array without elements"),
        },
        _ => return None,
    };
    let sizes = pickle.elements(shape).map(|sizes| sizes.iter());
    let shape: Option<Vec<usize>> =
        sizes.and_then(|sizes| sizes.map(|size| pickle.size(*size)).collect());
    let (Some(shape), Some(descr)) = (shape, descr(pickle, dtype)) else {
        return invalid("an array without a shape or type");
    };
    match pickle.bytes(data) {
        Some(bytes) => Some(Array::new(&descr, is_fortran, shape, bytes.into_owned())),
        None => invalid("Python objects, which could run code: save it as an array of numbers"),
    }
}

/// Returns the type of elements, such as `<f4`.
fn descr(pickle: &Pickle<'_>, dtype: Id) -> Option<String> {
    let object = pickle.object(dtype)?;
    if pickle.global(object.class)? != "numpy.dtype" {
        return None;
    }
    let name = pickle.bytes(*pickle.elements(object.args)?.first()?)?;
    // The state of numpy.dtype is its version and the byte order.
    let order = object
        .state
        .and_then(|state| pickle.elements(state)?.get(1).copied());
    let order = order.and_then(|order| pickle.bytes(order));
    let [name, order] =
        [name, order.unwrap_or_default()].map(|text| String::from_utf8_lossy(&text).into_owned());
    Some(format!("{order}{name}"))
}

/// Returns a list of whole numbers or texts as an array; `None` for other lists.
fn list_as_array(pickle: &Pickle<'_>, list: &[Id]) -> Option<Result<Array, ArrayError>> {
    let numbers: Option<Vec<i64>> = list
        .iter()
        .map(|id| match pickle.value(*id) {
            Value::Int(number) => Some(*number),
            _ => None,
        })
        .collect();
    if let Some(numbers) = numbers {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        return Some(Array::new("<i8", false, vec![list.len()], bytes));
    }
    let texts: Option<Vec<_>> = list.iter().map(|id| pickle.bytes(*id)).collect();
    let texts = texts?;
    let size = texts.iter().map(|text| text.len()).max()?.max(1);
    if size > MAX_TEXT {
        return Some(Err(ArrayError::Invalid(format!("a text of {size} bytes"))));
    }
    let bytes = texts.iter().flat_map(|text| {
        let padding = std::iter::repeat_n(0, size - text.len());
        text.iter().copied().chain(padding)
    });
    Some(Array::new(
        &format!("|S{size}"),
        false,
        vec![list.len()],
        bytes.collect(),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// `{'x_train': numpy.array([[[200, 1], [2, 3]], [[4, 5], [6, 7]]], 'u1'), 'y_train': [1, 0]}` in protocols 0, 2, 3, 4
    /// and 5, written by Python 3.12 and NumPy 2.
    const PICKLES: [&[u8]; 5] = [
        b"(dp0\nVx_train\np1\ncnumpy._core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nc_codecs\nencode\np5\n(Vb\np6\nVlatin1\np7\ntp8\nRp9\ntp10\nRp11\n(I1\n(I2\nI2\nI2\ntp12\ncnumpy\ndtype\np13\n(Vu1\np14\nI00\nI01\ntp15\nRp16\n(I3\nV|\np17\nNNNI-1\nI-1\nI0\ntp18\nbI00\ng5\n(V\\u00c8\x01\x02\x03\x04\x05\x06\x07\np19\ng7\ntp20\nRp21\ntp22\nbsVy_train\np23\n(lp24\nI1\naI0\nas.",
        b"\x80\x02}q\x00(X\x07\x00\x00\x00x_trainq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\t\x87q\nRq\x0b(K\x01K\x02K\x02K\x02\x87q\x0ccnumpy\ndtype\nq\rX\x02\x00\x00\x00u1q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\t\x00\x00\x00\xc3\x88\x01\x02\x03\x04\x05\x06\x07q\x13h\x07\x86q\x14Rq\x15tq\x16bX\x07\x00\x00\x00y_trainq\x17]q\x18(K\x01K\x00eu.",
        b"\x80\x03}q\x00(X\x07\x00\x00\x00x_trainq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04C\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x02K\x02\x87q\x08cnumpy\ndtype\nq\tX\x02\x00\x00\x00u1q\n\x89\x88\x87q\x0bRq\x0c(K\x03X\x01\x00\x00\x00|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89C\x08\xc8\x01\x02\x03\x04\x05\x06\x07q\x0ftq\x10bX\x07\x00\x00\x00y_trainq\x11]q\x12(K\x01K\x00eu.",
        b"\x80\x04\x95\xb5\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x07x_train\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x02K\x02\x87\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x08\xc8\x01\x02\x03\x04\x05\x06\x07\x94t\x94b\x8c\x07y_train\x94]\x94(K\x01K\x00eu.",
        b"\x80\x05\x95\xa0\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x07x_train\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x08\x00\x00\x00\x00\x00\x00\x00\xc8\x01\x02\x03\x04\x05\x06\x07\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x02K\x02\x87\x94\x8c\x01C\x94t\x94R\x94\x8c\x07y_train\x94]\x94(K\x01K\x00eu.",
    ];

    fn read_bytes(bytes: &[u8]) -> Result<Vec<NamedArray>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pkl");
        fs::write(&path, bytes).unwrap();
        let prefix = format!("{}/", folder.path().display());
        read(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn arrays_of_all_protocols_are_read() {
        for bytes in PICKLES {
            let arrays = read_bytes(bytes).unwrap();
            let names: Vec<&str> = arrays.iter().map(|array| array.name.as_str()).collect();
            assert_eq!(names, ["x_train", "y_train"]);
            let [images, labels] = <[NamedArray; 2]>::try_from(arrays).ok().unwrap();
            let images = images.array.unwrap().into_images().unwrap();
            assert_eq!(images.pixels, [200, 1, 2, 3, 4, 5, 6, 7]);
            let labels = labels.array.unwrap().to_labels().unwrap();
            assert_eq!(labels.names().collect::<Vec<_>>(), ["1", "0"]);
        }
    }

    #[test]
    fn tuples_are_splits() {
        // ([[...]], [1, 0]) per split, with the array of protocol 3
        let array = PICKLES[2].split_at(20).1;
        let array = &array[..array.len() - 25];
        let pair = [b"(", array, b"(K\x01K\x00t", b"t"].concat();
        let tuple = |count: usize| [&b"\x80\x03("[..], &pair.repeat(count), b"t."].concat();
        let names = |bytes: &[u8]| {
            let arrays = read_bytes(bytes).unwrap();
            let names = arrays.into_iter().map(|array| array.name);
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&tuple(1)), "train_images train_labels");
        assert_eq!(
            names(&tuple(2)),
            "train_images train_labels test_images test_labels"
        );
        assert_eq!(
            names(&tuple(3)),
            "train_images train_labels val_images val_labels test_images test_labels"
        );
        assert_eq!(
            names(&[b"\x80\x03", &pair[..], b"."].concat()),
            "images labels"
        );
    }

    #[test]
    fn gzip_is_unpacked() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(PICKLES[3]).unwrap();
        assert_eq!(read_bytes(&encoder.finish().unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn no_code_is_run() {
        let error = |bytes: &[u8]| read_bytes(bytes).err().unwrap();
        assert_eq!(
            error(b"cposix\nsystem\n(Vls\ntR."),
            "a.pkl: refused without running it: the pickle calls posix.system, which arrays do not need; save the arrays with \
             numpy.savez"
        );
        assert!(error(&PICKLES[4][..60]).starts_with("a.pkl: a damaged pickle, at byte "));
        assert!(error(b"}.").starts_with("a.pkl: found no arrays; expected "));
        // An array of objects has a list as its elements.
        let objects = PICKLES[2].to_vec();
        let at = objects
            .windows(2)
            .position(|bytes| bytes == b"C\x08")
            .unwrap();
        let objects = [&objects[..at], b"]", &objects[at + 10..]].concat();
        let arrays = read_bytes(&objects).unwrap();
        let message = arrays[0].array.as_ref().unwrap_err().to_string();
        assert!(
            message.starts_with("Python objects, which could run code"),
            "{message}"
        );
    }

    #[test]
    fn shared_elements_do_not_multiply() {
        // A thousand names of one list of 10,000 numbers
        let list = [&b"\x80\x03]q\x00("[..], &b"K\x01".repeat(10_000), b"e0}("].concat();
        let names: Vec<u8> = (0..1000)
            .flat_map(|name| format!("I{name}\nh\0").into_bytes())
            .collect();
        assert!(
            read_bytes(&[&list[..], &names, b"u."].concat())
                .err()
                .unwrap()
                .contains("found no arrays")
        );
        let names: Vec<u8> = (0..1000)
            .flat_map(|name| [format!("Va{name}\n").as_bytes(), b"h\0"].concat())
            .collect();
        let message = read_bytes(&[&list[..], &names, b"u."].concat())
            .err()
            .unwrap();
        assert_eq!(message, "a.pkl: its arrays are larger than the file");
    }
}
