//! Reader of PyTorch's files: zip archives of `torch.save` and `torch.jit.save`, or, before PyTorch 1.6, consecutive
//! pickles.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::{Cursor, Read, Seek};

use pickle::{Id, Pickle, PickleError, Value};
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::architecture::Architecture;
use crate::error::FormatError;
use crate::hint::LayerHint;
use crate::limits::MemoryBudget;
use crate::tensor::{Tensor, Tensors};
use crate::torch_module::{self, Module};
use crate::torch_tensor::{self, StorageRef, Storages};

/// Largest accepted pickle, in bytes. That of a `state_dict` has a few hundred bytes per layer.
const MAX_PICKLE: usize = 16 << 20;
/// Suffix of the archive entry that holds the pickle.
const PICKLE_SUFFIX: &str = "data.pkl";
/// Start of the names of classes in TorchScript.
const SCRIPT: &str = "__torch__.";
/// Longest accepted name of a tensor, in bytes. Nested dictionaries repeat their keys in the name of each tensor.
const MAX_NAME: usize = 1000;
/// Deepest accepted nesting of dictionaries and modules.
const MAX_DEPTH: usize = 64;
/// Largest accepted number of tensors and modules.
const MAX_MEMBERS: usize = 10_000;
/// Largest accepted number of values on the paths to all tensors. Several paths may lead to the same values.
const MAX_VISITS: usize = 1 << 22;

/// The content of a file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) tensors: Tensors,
    /// Names of the tensors in the order of the file.
    pub(crate) order: Vec<String>,
    /// Modules of networks that were saved as a whole.
    pub(crate) hints: Vec<LayerHint>,
    /// Dictionaries and modules with tensors.
    pub(crate) groups: Vec<Group>,
}

/// A dictionary with tensors, or a module.
#[derive(Debug)]
pub(crate) struct Group {
    /// Prefix of the names of its tensors: empty, or it ends with a dot.
    pub(crate) prefix: String,
    /// The network, if it is a module that describes itself.
    pub(crate) architecture: Option<Result<Architecture, String>>,
}

/// Functions that a pickle would call and that weights do not need.
#[derive(Debug, thiserror::Error)]
#[error("{}", Vec::from_iter(.0.iter().map(String::as_str)).join(", "))]
pub(crate) struct UnknownCalls(pub(crate) BTreeSet<String>);

/// Returns whether a zip archive was written by PyTorch.
pub(crate) fn is_archive<R: Read + Seek>(archive: &ZipArchive<R>) -> bool {
    let is_entry =
        |name: Result<Cow<'_, str>, ZipError>| name.is_ok_and(|name| name.ends_with(PICKLE_SUFFIX));
    archive.file_names().any(is_entry)
}

/// Opens a zip archive.
///
/// # Errors
/// Returns an error if the archive is damaged.
pub(crate) fn open_archive(bytes: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, ZipError> {
    // To detect an offset, `zip` 9.8 assumes that the directory ends where its end record begins. PyTorch has the records
    // of 64-bit archives in between, and the assumption is wrong where the first entry is as long as these.
    let config = Config {
        archive_offset: ArchiveOffset::Known(0),
    };
    ZipArchive::with_config(config, Cursor::new(bytes))
}

/// Reads a file.
///
/// # Errors
/// Returns an error if the file is damaged or exceeds a limit; [`UnknownCalls`] if a pickle would call functions that
/// weights do not need.
pub(crate) fn read(bytes: &[u8]) -> Result<Content, FormatError> {
    match bytes.starts_with(b"PK") {
        true => read_archive(bytes),
        false => read_legacy(bytes),
    }
}

fn read_archive(bytes: &[u8]) -> Result<Content, FormatError> {
    let mut archive = open_archive(bytes)?;
    let names: Result<Vec<String>, ZipError> = archive
        .file_names()
        .map(|name| name.map(Cow::into_owned))
        .collect();
    let names = names?;
    let pickles = names.iter().filter(|name| name.ends_with(PICKLE_SUFFIX));
    let pickle_name = pickles.min_by_key(|name| name.len());
    let pickle_name = pickle_name.ok_or("no data.pkl in the archive")?;
    let folder = pickle_name.strip_suffix(PICKLE_SUFFIX).unwrap_or_default();
    if let Ok(order) = small_entry(&mut archive, &format!("{folder}byteorder"), 16)
        && order.starts_with(b"big")
    {
        return Err("numbers in big-endian order are not supported".into());
    }
    // A small compressed entry may unpack to more than the memory.
    let pickle = small_entry(&mut archive, pickle_name, MAX_PICKLE)?;
    let pickle = checked(Pickle::read(&pickle, MAX_PICKLE)?)?;
    let storages = archive_storages(&mut archive, bytes, &format!("{folder}data/"), &names)?;
    collect(&pickle, &storages, bytes.len())
}

/// Reads an entry of an archive, up to one byte more than `limit`.
fn small_entry<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    limit: usize,
) -> Result<Vec<u8>, FormatError> {
    let mut content = Vec::new();
    let entry = archive.by_name(name).map_err(readable)?;
    entry.take(limit as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn readable(error: ZipError) -> FormatError {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            "the archive is encrypted".into()
        }
        error => error.into(),
    }
}

/// Returns the storages of an archive: the entries of `folder`.
fn archive_storages<'a, R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    bytes: &'a [u8],
    folder: &str,
    names: &[String],
) -> Result<Storages<'a>, FormatError> {
    let mut storages = Storages::new();
    let mut total = 0;
    for name in names {
        let Some(key) = name.strip_prefix(folder) else {
            continue;
        };
        let mut entry = archive.by_name(name).map_err(readable)?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(
                "weights that are compressed in the archive, as torch.save never does".into(),
            );
        }
        let start = entry
            .data_start()
            .and_then(|start| usize::try_from(start).ok());
        let size = usize::try_from(entry.size()).ok();
        let range = start.zip(size).and_then(|(start, size)| {
            total += size;
            Some(start..start.checked_add(size)?)
        });
        // Entries do not overlap, so reading all of them takes no longer than reading the file.
        let storage = range
            .filter(|_| total <= bytes.len())
            .and_then(|range| bytes.get(range))
            .ok_or("the archive is truncated")?;
        // PyTorch can omit the checksums.
        if entry.crc32() != 0 {
            std::io::copy(&mut entry, &mut std::io::sink())?;
        }
        storages.insert(key.to_owned(), storage);
    }
    Ok(storages)
}

/// Reads consecutive pickles: a magic number, the protocol version, information on the system, the saved object, and the
/// keys of the storages, which follow.
fn read_legacy(bytes: &[u8]) -> Result<Content, FormatError> {
    let mut rest = bytes;
    let mut next = || -> Result<Pickle<'_>, FormatError> {
        let pickle = checked(Pickle::read(rest, MAX_PICKLE)?)?;
        rest = rest.get(pickle.length..).unwrap_or_default();
        Ok(pickle)
    };
    let magic = next()?;
    if *magic.value(magic.root) != Value::LargeInt {
        return Err("a pickle without tensors".into());
    }
    let (_version, system) = (next()?, next()?);
    let is_little = system
        .entries(system.root)
        .and_then(|entries| system.get(entries, "little_endian"))
        .map(|id| system.value(id));
    if is_little == Some(&Value::Bool(false)) {
        return Err("numbers in big-endian order are not supported".into());
    }
    let (object, keys) = (next()?, next()?);
    let mut sizes = HashMap::new();
    for value in object.values() {
        if let Value::Persistent(identifier) = value
            && let Some(storage) = StorageRef::read(&object, *identifier)
        {
            sizes.insert(storage.key, storage.element.size);
        }
    }
    let mut storages = Storages::new();
    for key in keys.elements(keys.root).ok_or("no storages")? {
        let key = keys.text(*key).ok_or("a storage without a key")?;
        let size = sizes.get(key).ok_or("a storage of an unknown type")?;
        let (count, after) = rest
            .split_first_chunk()
            .ok_or("truncated before a storage")?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok();
        let length = length.and_then(|count| count.checked_mul(*size));
        let (storage, after) = length
            .and_then(|length| after.split_at_checked(length))
            .ok_or("truncated in a storage")?;
        storages.insert(key.to_owned(), storage);
        rest = after;
    }
    collect(&object, &storages, bytes.len())
}

fn checked(pickle: Pickle<'_>) -> Result<Pickle<'_>, UnknownCalls> {
    match pickle.unknown_calls.is_empty() {
        true => Ok(pickle),
        false => Err(UnknownCalls(pickle.unknown_calls)),
    }
}

/// Collects the tensors of a file of `length` bytes.
fn collect(
    pickle: &Pickle<'_>,
    storages: &Storages<'_>,
    length: usize,
) -> Result<Content, FormatError> {
    let mut collector = Collector {
        pickle,
        storages,
        budget: MemoryBudget::for_file(length),
        visits_left: MAX_VISITS,
        members_left: MAX_MEMBERS,
        path: Vec::new(),
        modules: Vec::new(),
        content: Content::default(),
    };
    collector.visit(pickle.root, "")?;
    let Collector {
        mut content,
        modules,
        ..
    } = collector;
    for (index, module) in modules {
        if let Some(group) = content.groups.get_mut(index) {
            group.architecture =
                torch_module::architecture(module, &group.prefix, &content.tensors);
        }
    }
    Ok(content)
}

/// A traversal of all dictionaries, lists and modules, with the limits that remain.
struct Collector<'p> {
    pickle: &'p Pickle<'p>,
    storages: &'p Storages<'p>,
    budget: MemoryBudget,
    visits_left: usize,
    members_left: usize,
    /// The values around the current one, since references can form cycles.
    path: Vec<Id>,
    /// Modules that are groups, by the index of the group.
    modules: Vec<(usize, Module<'p>)>,
    content: Content,
}

impl<'p> Collector<'p> {
    /// Adds the tensors in a value. `name` is the name of the value.
    fn visit(&mut self, id: Id, name: &str) -> Result<(), FormatError> {
        self.count_visits(1)?;
        if self.path.contains(&id) {
            return Ok(());
        }
        if self.path.len() >= MAX_DEPTH {
            return Err("too deeply nested dictionaries".into());
        }
        let pickle = self.pickle;
        self.path.push(id);
        match pickle.value(id) {
            Value::Dict(entries) => self.dictionary(entries, name)?,
            Value::List(elements) | Value::Tuple(elements) => {
                self.count_visits(elements.len())?;
                self.group_if(elements.iter().copied(), name);
                for (index, element) in elements.iter().enumerate() {
                    if self.is_collection(*element) {
                        self.visit(*element, &joined(name, &index.to_string())?)?;
                    }
                }
            }
            Value::Object(object) => {
                let tensor = torch_tensor::read(pickle, id, self.storages, &mut self.budget);
                let tensor = tensor.map_err(|error| format!("tensor {}: {error}", shown(name)))?;
                match (tensor, Module::new(pickle, id)) {
                    (Some(tensor), _) => self.insert(name.to_owned(), tensor)?,
                    (None, Some(module)) => {
                        self.add_member()?;
                        let prefix = prefix_of(name);
                        self.modules.push((self.content.groups.len(), module));
                        self.content.groups.push(Group {
                            prefix,
                            architecture: None,
                        });
                        self.module(module, name)?;
                    }
                    (None, None) => {
                        let class = pickle.global(object.class);
                        // A module of TorchScript, whose children are attributes.
                        if class.is_some_and(|class| class.starts_with(SCRIPT)) {
                            self.add_member()?;
                            self.content.groups.push(Group {
                                prefix: prefix_of(name),
                                architecture: None,
                            });
                        }
                        self.dictionary(pickle.attributes(object), name)?;
                        self.dictionary(&object.items, name)?;
                    }
                }
            }
            _ => {}
        }
        self.path.pop();
        Ok(())
    }

    fn dictionary(&mut self, entries: &[(Id, Id)], name: &str) -> Result<(), FormatError> {
        let pickle = self.pickle;
        self.count_visits(entries.len())?;
        // The state of an optimizer.
        let has = |key| pickle.get(entries, key).is_some();
        if has("state") && has("param_groups") {
            return Ok(());
        }
        self.group_if(entries.iter().map(|(_, value)| *value), name);
        for (key, value) in entries {
            let key = match pickle.value(*key) {
                Value::Text(key) => Cow::Borrowed(key.as_ref()),
                Value::Int(number) => number.to_string().into(),
                _ => continue,
            };
            if self.is_collection(*value) {
                self.visit(*value, &joined(name, &key)?)?;
            }
        }
        Ok(())
    }

    /// Adds the parameters, buffers and children of a module, as its `state_dict` has them.
    fn module(&mut self, module: Module<'p>, name: &str) -> Result<(), FormatError> {
        let pickle = self.pickle;
        self.count_visits(module.len())?;
        let parameters = module.dict("_parameters").unwrap_or_default();
        let buffers = module.dict("_buffers").unwrap_or_default();
        self.count_visits(parameters.len() + buffers.len())?;
        let left_out = module.non_persistent();
        for (key, value) in parameters.iter().chain(buffers) {
            let key = pickle.text(*key).filter(|key| !left_out.contains(key));
            if let Some(key) = key
                && self.is_collection(*value)
            {
                self.visit(*value, &joined(name, key)?)?;
            }
        }
        let children = module.dict("_modules").unwrap_or_default();
        if children.is_empty() || !parameters.is_empty() {
            self.add_member()?;
            self.content.hints.push(LayerHint {
                name: name.to_owned(),
                kind: module.kind(),
            });
        }
        for (key, value) in children {
            let (Some(key), Some(child)) = (pickle.text(*key), Module::new(pickle, *value)) else {
                continue;
            };
            if self.path.len() >= MAX_DEPTH {
                return Err("cyclic or too deeply nested modules".into());
            }
            self.path.push(*value);
            self.module(child, &joined(name, key)?)?;
            self.path.pop();
        }
        Ok(())
    }

    /// Adds a group if one of its values is a tensor that can be a weight.
    fn group_if(&mut self, mut values: impl Iterator<Item = Id>, name: &str) {
        if values.any(|value| torch_tensor::is_tensor(self.pickle, value)) {
            self.content.groups.push(Group {
                prefix: prefix_of(name),
                architecture: None,
            });
        }
    }

    /// Returns whether a value can contain tensors. Numbers and texts need no name.
    fn is_collection(&self, id: Id) -> bool {
        matches!(
            self.pickle.value(id),
            Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Object(_)
        )
    }

    fn insert(&mut self, name: String, tensor: Tensor) -> Result<(), FormatError> {
        self.add_member()?;
        if self.content.tensors.insert(name.clone(), tensor).is_none() {
            self.content.order.push(name);
        }
        Ok(())
    }

    fn add_member(&mut self) -> Result<(), FormatError> {
        let left = self.members_left.checked_sub(1);
        self.members_left = left.ok_or("too many tensors and modules")?;
        Ok(())
    }

    fn count_visits(&mut self, count: usize) -> Result<(), FormatError> {
        let left = self.visits_left.checked_sub(count);
        self.visits_left = left.ok_or(PickleError::TooLarge)?;
        Ok(())
    }
}

fn prefix_of(name: &str) -> String {
    match name {
        "" => String::new(),
        _ => format!("{name}."),
    }
}

fn joined(name: &str, key: &str) -> Result<String, PickleError> {
    match name.len() + key.len() < MAX_NAME {
        true => Ok(format!("{}{key}", prefix_of(name))),
        false => Err(PickleError::TooLarge),
    }
}

/// Formats the name of a tensor for messages.
fn shown(name: &str) -> String {
    match name {
        "" => "without a name".into(),
        _ => name.escape_debug().to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// Number of zeros in the storage of an [`archive`].
    const ZEROS: usize = 16384;

    /// Returns an archive with this pickle and a storage `0` of zeros.
    pub(crate) fn archive(pickle: &[u8]) -> Vec<u8> {
        let pickle = [pickle, b"."].concat();
        let zeros = [0; 4 * ZEROS];
        entries(&[("a/data.pkl", &pickle), ("a/data/0", &zeros)], false)
    }

    fn entries(entries: &[(&str, &[u8])], is_deflated: bool) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            let options = SimpleFileOptions::default().compression_method(match is_deflated {
                true => CompressionMethod::Deflated,
                false => CompressionMethod::Stored,
            });
            archive.start_file(*name, options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    /// Returns the pickle of a dictionary.
    pub(crate) fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut pickle = b"}".to_vec();
        for (key, value) in entries {
            pickle.extend(format!("V{key}\n").bytes());
            pickle.extend(value);
            pickle.push(b's');
        }
        pickle
    }

    /// Returns the pickle of a tensor of zeros.
    pub(crate) fn float_tensor(shape: &[usize]) -> Vec<u8> {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        view(0, shape, &strides)
    }

    /// Returns the pickle of a view of the storage.
    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
        let tuple = |sizes: &[usize]| {
            let sizes: String = sizes.iter().map(|size| format!("I{size}\n")).collect();
            format!("({sizes}t")
        };
        let storage = format!("(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{ZEROS}\ntQ");
        let (shape, strides) = (tuple(shape), tuple(strides));
        let args = format!("({storage}I{offset}\n{shape}{strides}I00\nNt");
        format!("ctorch._utils\n_rebuild_tensor_v2\n{args}R").into_bytes()
    }

    /// Returns the pickle of a module.
    pub(crate) fn module(
        class: &str,
        attributes: &[(&str, &str)],
        parameters: &[(&str, Vec<u8>)],
        children: &[(&str, Vec<u8>)],
    ) -> Vec<u8> {
        let mut all = vec![
            ("_parameters", dictionary(parameters)),
            ("_buffers", dictionary(&[])),
            ("_modules", dictionary(children)),
        ];
        let attributes = attributes.iter();
        all.extend(attributes.map(|(name, value)| (*name, value.as_bytes().to_vec())));
        let class = format!("c{class}\n)").into_bytes();
        [class, vec![0x81], dictionary(&all), b"b".to_vec()].concat()
    }

    #[track_caller]
    fn error(bytes: &[u8]) -> String {
        read(bytes).map(|_| ()).unwrap_err().to_string()
    }

    fn names(pickle: &[u8]) -> Vec<String> {
        read(&archive(pickle)).unwrap().order
    }

    #[test]
    fn names_are_paths_in_the_order_of_the_file() {
        let layer = |shape| dictionary(&[("weight", float_tensor(shape))]);
        let weights = dictionary(&[("fc", layer(&[2, 3])), ("conv", layer(&[2, 1, 3, 3]))]);
        assert_eq!(names(&weights), ["fc.weight", "conv.weight"]);
        let list = [
            &b"("[..],
            &float_tensor(&[2]),
            b"Vtext\n",
            &float_tensor(&[3]),
            b"t",
        ]
        .concat();
        assert_eq!(names(&dictionary(&[("list", list)])), ["list.0", "list.2"]);
    }

    #[test]
    fn the_state_of_an_optimizer_is_left_out() {
        let moments = dictionary(&[("exp_avg", float_tensor(&[2, 3]))]);
        let state = [&b"}I0\n"[..], &moments, b"s"].concat();
        let optimizer = dictionary(&[("state", state.clone()), ("param_groups", b"]".to_vec())]);
        let weights = dictionary(&[("fc.weight", float_tensor(&[2, 3]))]);
        let checkpoint = dictionary(&[("optimizer", optimizer), ("model", weights)]);
        assert_eq!(names(&checkpoint), ["model.fc.weight"]);
        assert_eq!(names(&dictionary(&[("other", state)])), ["other.0.exp_avg"]);
    }

    #[test]
    fn modules_have_the_names_of_their_state_dict() {
        let child = module(
            "a\nB",
            &[],
            &[("weight", float_tensor(&[2, 3])), ("bias", b"N".to_vec())],
            &[],
        );
        let root = module(
            "a\nC",
            &[("unused", "]")],
            &[("scale", float_tensor(&[1]))],
            &[("fc", child)],
        );
        assert_eq!(names(&root), ["scale", "fc.weight"]);
        let groups = read(&archive(&dictionary(&[("net", root)])))
            .unwrap()
            .groups;
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].prefix, "net.");
    }

    #[test]
    fn modules_of_torchscript_are_one_network() {
        let layer = || {
            let weights = [
                ("weight", float_tensor(&[2, 2])),
                ("other", float_tensor(&[2, 2])),
            ];
            [
                &b"c__torch__.x\nLinear\n)\x81"[..],
                &dictionary(&weights),
                b"b",
            ]
            .concat()
        };
        let layers = dictionary(&[("a", layer()), ("b", layer())]);
        let root = [&b"c__torch__\nNet\n)\x81"[..], &layers, b"b"].concat();
        let content = read(&archive(&root)).unwrap();
        assert_eq!(
            content.order,
            ["a.weight", "a.other", "b.weight", "b.other"]
        );
        let groups: Vec<_> = content
            .groups
            .iter()
            .map(|group| group.prefix.as_str())
            .collect();
        assert_eq!(groups[..2], ["", "a."]);
    }

    #[test]
    fn storages_are_views() {
        let weights = |tensor| {
            let content = read(&archive(&dictionary(&[("a", tensor)])));
            content.map(|content| content.tensors["a"].shape.clone())
        };
        assert_eq!(weights(view(ZEROS - 96, &[4, 3], &[1, 8])).unwrap(), [4, 3]);
        let error = weights(view(ZEROS - 96, &[4, 33], &[1, 8])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor a: a tensor that is larger than its storage"
        );
        let error = weights(view(0, &[1 << 40], &[0])).unwrap_err();
        assert!(
            error.to_string().contains("twice as large as the file"),
            "{error}"
        );
        // 10,000 names of the same 64 kB
        let mut many = b"}".to_vec();
        many.extend(float_tensor(&[ZEROS]));
        many.extend(b"p0\n0");
        for number in 0..10_000 {
            many.extend(format!("I{number}\ng0\ns").bytes());
        }
        let error = read(&archive(&many)).unwrap_err();
        assert!(
            error.to_string().contains("twice as large as the file"),
            "{error}"
        );
    }

    #[test]
    fn cycles_and_shared_values_end() {
        // a = {"x": a}
        assert_eq!(names(b"}p0\nVx\ng0\ns"), [""; 0]);
        // Each of 60 dictionaries refers twice to the one before: 2^60 paths.
        let mut pickle = b"}p0\n0".to_vec();
        for number in 1..=60 {
            let before = number - 1;
            pickle.extend(format!("}}p{number}\nVa\ng{before}\nsVb\ng{before}\ns0").bytes());
        }
        pickle.extend(b"g60\n");
        assert!(
            error(&archive(&pickle)).contains("the pickle is larger than any that is supported")
        );
        let mut deep = b"}".to_vec();
        deep.extend(b"Va\n}".repeat(1000));
        deep.extend(b"s".repeat(1000));
        assert_eq!(error(&archive(&deep)), "too deeply nested dictionaries");
        let long = dictionary(&[(&"a".repeat(1001), float_tensor(&[1]))]);
        assert!(error(&archive(&long)).contains("the pickle is larger than any that is supported"));
    }

    #[test]
    fn calls_and_damaged_archives_are_refused() {
        let call = archive(b"cos\nsystem\n(Vls\ntR");
        assert!(read(&call).unwrap_err().is::<UnknownCalls>());
        let weights = dictionary(&[("a", float_tensor(&[2]))]);
        let pickle = [&weights[..], b"."].concat();
        let data = [0; 16];
        let files: &[(&str, &[u8])] = &[("a/data.pkl", &pickle), ("a/data/0", &data)];
        assert_eq!(
            error(&entries(files, true)),
            "weights that are compressed in the archive, as torch.save never does"
        );
        assert_eq!(
            error(&entries(&files[..1], false)),
            "tensor a: a missing storage"
        );
        let big: &[(&str, &[u8])] = &[("a/data.pkl", &pickle), ("a/byteorder", b"big")];
        assert_eq!(
            error(&entries(big, false)),
            "numbers in big-endian order are not supported"
        );
        // A bit of the storage
        let mut flipped = entries(files, false);
        let at = flipped
            .windows(16)
            .position(|bytes| *bytes == data)
            .unwrap();
        flipped[at + 3] ^= 1;
        assert!(error(&flipped).contains("checksum"), "{}", error(&flipped));
        assert_eq!(error(b"}."), "a pickle without tensors");
    }

    #[test]
    fn archives_have_records_of_64_bits() {
        let weights = [&dictionary(&[("a", float_tensor(&[2]))])[..], b"."].concat();
        let zeros = [0; 16];
        // The directory entry of a name of 30 bytes has as many as both records, 76.
        for name in ["twenty-one-characters", "model"] {
            let [pickle, data] = ["data.pkl", "data/0"].map(|entry| format!("{name}/{entry}"));
            let mut bytes = entries(&[(&pickle, &weights), (&data, &zeros)], false);
            let end = bytes.len() - 22;
            let records = [&b"PK\x06\x06"[..], &[0; 52], b"PK\x06\x07", &[0; 16]].concat();
            bytes.splice(end..end, records);
            assert_eq!(read(&bytes).unwrap().order, ["a"], "{name}");
        }
    }

    #[test]
    fn pickles_may_be_compressed() {
        let weights = [&dictionary(&[("a", b"I1\n".to_vec())])[..], b"."].concat();
        assert!(read(&entries(&[("a/data.pkl", &weights)], true)).is_ok());
        let bomb = vec![b'N'; MAX_PICKLE + 10];
        let message = error(&entries(&[("a/data.pkl", &bomb)], true));
        assert!(
            message.contains("the pickle is larger than any that is supported"),
            "{message}"
        );
    }
}
