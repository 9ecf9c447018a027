//! Interpreter of Python's pickles that builds plain data. It looks up no class and calls no function.
//!
//! A pickle is a program for a stack machine. Opcodes and their arguments are those of Python's `pickletools`, protocols
//! 0 to 5. Calls of functions become values that state the function and its arguments.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Largest accepted number of values.
const MAX_VALUES: usize = 1 << 20;
/// Longest accepted name of a function or class, in bytes.
const MAX_NAME: usize = 1000;
/// Largest number of unknown functions that an error names.
const MAX_LISTED: usize = 10;

/// Functions and classes that weights, arrays, settings and states of training call. Those of other names may do anything.
const ALLOWED_CALLS: [&str; 50] = [
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.dict",
    "builtins.frozenset",
    "builtins.list",
    "builtins.set",
    "builtins.slice",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "functools.partial",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "torch.Size",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.device",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
    "torch.nn.parameter.Buffer",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
];

/// The reason why a pickle cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle ends too early or has an unknown opcode, at this byte.
    #[error("the pickle is truncated or damaged at byte {0}")]
    Damaged(usize),
    /// The pickle exceeds a limit.
    #[error("the pickle is larger than any that is supported")]
    TooLarge,
}

/// Index of a value in its [`Pickle`]. Values refer to each other by indices, so cycles are harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

/// A value of a pickle.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer of more than 64 bits.
    LargeInt,
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// Bytes, also those of a string of Python 2 that is no UTF-8.
    Bytes(&'a [u8]),
    /// A list or set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary in the order of insertion. The last of equal keys counts.
    Dict(Vec<(Id, Id)>),
    /// A function or class, by its module and name.
    Global(Id, Id),
    /// An instance of a class, or the result of a function.
    Object(Box<Object>),
    /// A value that is stored outside of the pickle, by its identifier.
    Persistent(Id),
}

/// An instance of a class, or the result of a function.
#[derive(Debug, PartialEq)]
pub struct Object {
    /// The class or function.
    pub class: Id,
    /// The arguments, a tuple.
    pub args: Id,
    /// The attributes, usually a dictionary.
    pub state: Option<Id>,
    /// The entries of a dictionary's subclass.
    pub items: Vec<(Id, Id)>,
}

/// A pickle as data.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    /// The value that the pickle stands for.
    pub root: Id,
    /// Names of functions that the pickle would call and that may do anything, as `module.name`. If there are any, the
    /// pickle may be damaged.
    pub unknown_calls: BTreeSet<String>,
    /// Length of the pickle, in bytes.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle of at most `max_bytes` at the start of `bytes`.
    ///
    /// # Errors
    /// Returns an error if the pickle is truncated, has an unknown opcode, or exceeds a limit.
    pub fn read(bytes: &'a [u8], max_bytes: usize) -> Result<Self, PickleError> {
        let mut machine = Machine {
            reader: Reader {
                bytes: &bytes[..bytes.len().min(max_bytes)],
                is_truncated: bytes.len() > max_bytes,
                position: 0,
            },
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            copied: 0,
            unknown_calls: BTreeSet::new(),
        };
        let root = match machine.run() {
            // Python calls the functions before it finds the damage.
            Err(_) if !machine.unknown_calls.is_empty() => Id(usize::MAX),
            root => root?,
        };
        Ok(Self {
            values: machine.values,
            root,
            unknown_calls: machine.unknown_calls,
            length: machine.reader.position,
        })
    }

    /// Returns a value.
    pub fn value(&self, id: Id) -> &Value<'a> {
        // All identifiers are those of values.
        self.values.get(id.0).unwrap_or(&Value::None)
    }

    /// Returns all values, in the order of their creation.
    pub fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// Returns a text; `None` for other values, as for the methods below.
    pub fn text(&self, id: Id) -> Option<&str> {
        text(&self.values, id)
    }

    /// Returns a text, or bytes. Python 3 writes bytes in protocol 2 as a text of Latin-1 that is encoded when it is read.
    pub fn bytes(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        match self.value(id) {
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Value::Object(object) => {
                let args = self.elements(object.args)?;
                match (self.global(object.class)?.as_str(), args) {
                    ("_codecs.encode", &[text, encoding]) if is_latin_1(self.text(encoding)?) => {
                        let letters = self.text(text)?.chars();
                        let bytes: Option<Vec<u8>> = letters
                            .map(|letter| u8::try_from(u32::from(letter)).ok())
                            .collect();
                        Some(Cow::Owned(bytes?))
                    }
                    ("builtins.bytearray", &[bytes]) if bytes < id => self.bytes(bytes),
                    ("builtins.bytes" | "builtins.bytearray", []) => Some(Cow::Borrowed(&[])),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns a number that is not negative.
    pub fn size(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Returns a number.
    pub fn float(&self, id: Id) -> Option<f64> {
        match self.value(id) {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Returns the elements of a list or tuple.
    pub fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(elements) | Value::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// Returns the entries of a dictionary.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// Returns an instance of a class, or the result of a function.
    pub fn object(&self, id: Id) -> Option<&Object> {
        match self.value(id) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Returns the name of a function or class, as `module.name`.
    pub fn global(&self, id: Id) -> Option<String> {
        global(&self.values, id)
    }

    /// Returns the entry of a dictionary.
    pub fn get(&self, entries: &[(Id, Id)], key: &str) -> Option<Id> {
        let mut entries = entries.iter().rev();
        let (_, value) = entries.find(|(name, _)| self.text(*name) == Some(key))?;
        Some(*value)
    }

    /// Returns the attributes of an object. Those in slots follow in a second dictionary, which is left out.
    pub fn attributes(&self, object: &Object) -> &[(Id, Id)] {
        let state = object.state.map(|state| match self.value(state) {
            Value::Tuple(parts) => parts.first().copied().unwrap_or(state),
            _ => state,
        });
        state
            .and_then(|state| self.entries(state))
            .unwrap_or_default()
    }
}

fn text<'v>(values: &'v [Value<'_>], id: Id) -> Option<&'v str> {
    match values.get(id.0)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn global(values: &[Value<'_>], id: Id) -> Option<String> {
    let Value::Global(module, name) = values.get(id.0)? else {
        return None;
    };
    // Names of Python 2.
    let module = match text(values, *module)? {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        module => module,
    };
    let name = text(values, *name)?;
    (module.len() + name.len() <= MAX_NAME).then(|| format!("{module}.{name}"))
}

fn is_latin_1(encoding: &str) -> bool {
    matches!(encoding, "latin1" | "latin-1" | "iso-8859-1")
}

fn is_allowed(name: &str) -> bool {
    let torch_name = name
        .strip_prefix("torch.storage.")
        .or_else(|| name.strip_prefix("torch."));
    // FloatStorage, UntypedStorage, ...
    let is_storage = torch_name
        .and_then(|name| name.strip_suffix("Storage"))
        .is_some_and(|kind| kind.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    is_storage || ALLOWED_CALLS.contains(&name)
}

/// The machine that a pickle programs.
struct Machine<'a> {
    reader: Reader<'a>,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack where collections begin.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Id>,
    /// Number of entries that were copied from collections.
    copied: usize,
    unknown_calls: BTreeSet<String>,
}

impl<'a> Machine<'a> {
    /// Executes the opcodes to the end of the pickle, and returns the value on top of the stack.
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            match self.reader.byte()? {
                b'.' => return self.pop(),
                opcode => self.execute(opcode)?,
            }
        }
    }

    fn execute(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME
            0x80 => self.reader.take(1).map(drop),
            0x95 => self.reader.take(8).map(drop),
            // MARK
            b'(' => {
                self.marks.push(self.stack.len());
                self.check(self.marks.len())
            }
            // POP, POP_MARK, DUP
            b'0' => match self.marks.last() == Some(&self.stack.len()) {
                true => self.marks.pop().map(drop).ok_or(self.damaged()),
                false => self.pop().map(drop),
            },
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // INT, LONG, FLOAT in decimal
            b'I' => {
                let value = match self.reader.line()? {
                    b"00" => Value::Bool(false),
                    b"01" => Value::Bool(true),
                    digits => self.parsed_int(digits)?,
                };
                self.push(value)
            }
            b'L' => {
                let line = self.reader.line()?;
                let value = self.parsed_int(line.strip_suffix(b"L").unwrap_or(line))?;
                self.push(value)
            }
            b'F' => {
                let number = parse(self.reader.line()?).ok_or(self.damaged())?;
                self.push(Value::Float(number))
            }
            // BININT1, BININT2, BININT
            b'K' => self.int(1),
            b'M' => self.int(2),
            b'J' => {
                let number = self.reader.number(4)? as u32 as i32;
                self.push(Value::Int(number.into()))
            }
            // LONG1, LONG4
            0x8a => self.long(1),
            0x8b => self.long(4),
            b'G' => {
                let bytes = self.reader.take(8)?.try_into();
                let bytes = bytes.map_err(|_| self.damaged())?;
                self.push(Value::Float(f64::from_be_bytes(bytes)))
            }
            // UNICODE, STRING
            b'V' => {
                let line = self.reader.line()?;
                self.push(Value::Text(unescaped(line)))
            }
            b'S' => {
                let line = self.reader.line()?;
                let quoted = line.get(1..line.len().saturating_sub(1));
                self.push(Value::Text(String::from_utf8_lossy(
                    quoted.unwrap_or_default(),
                )))
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.binary_text(1),
            b'X' => self.binary_text(4),
            0x8d => self.binary_text(8),
            // SHORT_BINSTRING, BINSTRING: text or bytes of Python 2
            b'U' => self.binary_string(1),
            b'T' => self.binary_string(4),
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.bytes(1),
            b'B' => self.bytes(4),
            0x8e | 0x96 => self.bytes(8),
            // EMPTY_LIST, EMPTY_SET, LIST, FROZENSET
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' | 0x91 => {
                let elements = self.pop_mark()?;
                self.push(Value::List(elements))
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or(self.damaged())?;
                let elements = self.stack.split_off(start);
                self.push(Value::Tuple(elements))
            }
            b't' => {
                let elements = self.pop_mark()?;
                self.push(Value::Tuple(elements))
            }
            // EMPTY_DICT, DICT
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let elements = self.pop_mark()?;
                self.push(Value::Dict(pairs(&elements)))
            }
            // APPEND; APPENDS, ADDITEMS
            b'a' => {
                let element = self.pop()?;
                self.append(vec![element])
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                self.append(elements)
            }
            // SETITEM, SETITEMS
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])
            }
            b'u' => {
                let elements = self.pop_mark()?;
                self.insert(pairs(&elements))
            }
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE: store the top value in the memo
            b'p' => {
                let number = self.reader.decimal()?;
                self.memoize(number)
            }
            b'q' => {
                let number = self.reader.number(1)?;
                self.memoize(number)
            }
            b'r' => {
                let number = self.reader.number(4)?;
                self.memoize(number)
            }
            0x94 => self.memoize(self.memo.len()),
            // GET, BINGET, LONG_BINGET: push a value of the memo
            b'g' => {
                let number = self.reader.decimal()?;
                self.recall(number)
            }
            b'h' => {
                let number = self.reader.number(1)?;
                self.recall(number)
            }
            b'j' => {
                let number = self.reader.number(4)?;
                self.recall(number)
            }
            // GLOBAL
            b'c' => self.global_lines().and_then(|id| self.push_id(id)),
            // STACK_GLOBAL
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                if text(&self.values, module).is_none() || text(&self.values, name).is_none() {
                    // Not a string constant: the name is computed when the pickle is loaded.
                    self.record("a computed name".into());
                }
                self.push(Value::Global(module, name))
            }
            // EXT1, EXT2, EXT4: codes of a registry that only the writer knows
            0x82..=0x84 => {
                self.reader.take(1 << (opcode - 0x82))?;
                self.record("an extension code".into());
                self.push(Value::None)
            }
            // INST, OBJ: a class and its arguments
            b'i' => {
                let class = self.global_lines()?;
                let args = self.pop_mark()?;
                self.call_with(class, args)
            }
            b'o' => {
                let mut args = self.pop_mark()?.into_iter();
                let class = args.next().ok_or(self.damaged())?;
                self.call_with(class, args.collect())
            }
            // REDUCE
            b'R' => {
                let (args, function) = (self.pop()?, self.pop()?);
                self.call(function, args)
            }
            // NEWOBJ, NEWOBJ_EX
            0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.instance(class, args)
            }
            0x92 => {
                let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.instance(class, args)
            }
            // BUILD
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                if let Some(Value::Object(object)) = self.values.get_mut(top.0) {
                    object.state = Some(state);
                }
                Ok(())
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
            // NEXT_BUFFER, READONLY_BUFFER, PERSID are not written by torch.save.
            _ => Err(PickleError::Damaged(self.reader.position.saturating_sub(1))),
        }
    }

    fn damaged(&self) -> PickleError {
        PickleError::Damaged(self.reader.position)
    }

    /// Checks a number of values against the limit.
    fn check(&self, count: usize) -> Result<(), PickleError> {
        match count <= MAX_VALUES {
            true => Ok(()),
            false => Err(PickleError::TooLarge),
        }
    }

    fn add(&mut self, value: Value<'a>) -> Result<Id, PickleError> {
        self.values.push(value);
        self.check(self.values.len())?;
        Ok(Id(self.values.len() - 1))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        let id = self.add(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        self.stack.push(id);
        self.check(self.stack.len())
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or(self.damaged())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        self.stack.pop().ok_or(self.damaged())
    }

    /// Removes the values above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(self.damaged())?;
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err(self.damaged()),
        }
    }

    fn int(&mut self, size: usize) -> Result<(), PickleError> {
        let number = self.reader.number(size)?;
        self.push(Value::Int(number as i64))
    }

    fn parsed_int(&self, digits: &[u8]) -> Result<Value<'a>, PickleError> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
        match parse(digits) {
            Some(number) => Ok(Value::Int(number)),
            None if !digits.is_empty() && digits.iter().all(is_digit) => Ok(Value::LargeInt),
            None => Err(self.damaged()),
        }
    }

    /// Reads an integer in two's complement, after its length in `size` bytes.
    fn long(&mut self, size: usize) -> Result<(), PickleError> {
        let count = self.reader.number(size)?;
        let bytes = self.reader.take(count)?;
        let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let value = match count {
            0..=8 => {
                let mut number = [if is_negative { 0xff } else { 0 }; 8];
                number[..count].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(number))
            }
            _ => Value::LargeInt,
        };
        self.push(value)
    }

    fn binary_text(&mut self, size: usize) -> Result<(), PickleError> {
        let count = self.reader.number(size)?;
        let text = self.reader.take(count)?;
        self.push(Value::Text(String::from_utf8_lossy(text)))
    }

    fn binary_string(&mut self, size: usize) -> Result<(), PickleError> {
        let count = self.reader.number(size)?;
        let bytes = self.reader.take(count)?;
        self.push(match str::from_utf8(bytes) {
            Ok(text) => Value::Text(Cow::Borrowed(text)),
            Err(_) => Value::Bytes(bytes),
        })
    }

    fn bytes(&mut self, size: usize) -> Result<(), PickleError> {
        let count = self.reader.number(size)?;
        let bytes = self.reader.take(count)?;
        self.push(Value::Bytes(bytes))
    }

    fn append(&mut self, elements: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        // A subclass of list or deque holds no weights.
        if let Some(Value::List(list)) = self.values.get_mut(top.0) {
            list.extend(elements);
        }
        Ok(())
    }

    fn insert(&mut self, entries: Vec<(Id, Id)>) -> Result<(), PickleError> {
        let top = self.top()?;
        match self.values.get_mut(top.0) {
            Some(Value::Dict(dict)) => dict.extend(entries),
            Some(Value::Object(object)) => object.items.extend(entries),
            _ => return Err(self.damaged()),
        }
        Ok(())
    }

    fn memoize(&mut self, number: usize) -> Result<(), PickleError> {
        self.memo.insert(number, self.top()?);
        // A value is stored once.
        match self.memo.len() <= self.values.len() {
            true => Ok(()),
            false => Err(PickleError::TooLarge),
        }
    }

    fn recall(&mut self, number: usize) -> Result<(), PickleError> {
        let id = self.memo.get(&number).copied().ok_or(self.damaged())?;
        self.push_id(id)
    }

    /// Reads the module and name of a function or class.
    fn global_lines(&mut self) -> Result<Id, PickleError> {
        let [module, name] =
            [self.reader.line()?, self.reader.line()?].map(String::from_utf8_lossy);
        let (module, name) = (self.add(Value::Text(module))?, self.add(Value::Text(name))?);
        self.add(Value::Global(module, name))
    }

    fn call_with(&mut self, function: Id, args: Vec<Id>) -> Result<(), PickleError> {
        let args = self.add(Value::Tuple(args))?;
        self.call(function, args)
    }

    /// Records the call of a function. Dictionaries and sets become plain data.
    fn call(&mut self, function: Id, args: Id) -> Result<(), PickleError> {
        let name = global(&self.values, function);
        let name = name.unwrap_or_else(|| "a computed function".into());
        if !is_allowed(&name) {
            self.record(name);
            return self.instance(function, args);
        }
        let first = match self.values.get(args.0) {
            Some(Value::Tuple(args)) => args.first().copied(),
            _ => return Err(self.damaged()),
        };
        match (name.as_str(), first) {
            ("collections.defaultdict", _) => self.push(Value::Dict(Vec::new())),
            ("collections.OrderedDict" | "builtins.dict", first) => {
                let elements = first.map(|first| self.copied(first)).transpose()?;
                let mut entries = Vec::new();
                for pair in elements.unwrap_or_default() {
                    entries.extend(pairs(&self.copied(pair)?));
                }
                self.push(Value::Dict(entries))
            }
            ("builtins.set" | "builtins.frozenset" | "builtins.list", first) => {
                let elements = first.map(|first| self.copied(first)).transpose()?;
                self.push(Value::List(elements.unwrap_or_default()))
            }
            ("copyreg._reconstructor", Some(class)) => self.instance(class, args),
            _ => self.instance(function, args),
        }
    }

    fn record(&mut self, name: String) {
        if self.unknown_calls.len() < MAX_LISTED {
            self.unknown_calls.insert(name);
        }
    }

    /// Copies the elements of a list or tuple.
    fn copied(&mut self, id: Id) -> Result<Vec<Id>, PickleError> {
        let elements = match self.values.get(id.0) {
            Some(Value::List(elements) | Value::Tuple(elements)) => elements.clone(),
            _ => Vec::new(),
        };
        self.copied += elements.len();
        self.check(self.copied)?;
        Ok(elements)
    }

    fn instance(&mut self, class: Id, args: Id) -> Result<(), PickleError> {
        self.push(Value::Object(Box::new(Object {
            class,
            args,
            state: None,
            items: Vec::new(),
        })))
    }
}

/// Returns the pairs of consecutive elements.
fn pairs(elements: &[Id]) -> Vec<(Id, Id)> {
    elements
        .as_chunks()
        .0
        .iter()
        .map(|&[a, b]| (a, b))
        .collect()
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Replaces escapes such as `\u00e9`.
fn unescaped(line: &[u8]) -> Cow<'_, str> {
    let line = String::from_utf8_lossy(line);
    if !line.contains("\\u") {
        return line;
    }
    let mut parts = line.split("\\u");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..4);
        let letter = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        text.push(letter.and_then(char::from_u32).unwrap_or('\u{fffd}'));
        text.push_str(part.get(4..).unwrap_or_default());
    }
    Cow::Owned(text)
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Whether `bytes` was cut at its limit.
    is_truncated: bool,
    position: usize,
}

impl<'a> Reader<'a> {
    /// Returns the error for reading beyond the end.
    fn end(&self) -> PickleError {
        match self.is_truncated {
            true => PickleError::TooLarge,
            false => PickleError::Damaged(self.position),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.position.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or_else(|| self.end())?;
        self.position += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        let taken = self.take(1)?;
        taken.first().copied().ok_or_else(|| self.end())
    }

    /// Reads a little-endian number of `size` bytes.
    fn number(&mut self, size: usize) -> Result<usize, PickleError> {
        let bytes = self.take(size)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// Reads the rest of a line.
    fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.end())?)?;
        self.take(1)?;
        Ok(line)
    }

    /// Reads a line with a decimal number.
    fn decimal(&mut self) -> Result<usize, PickleError> {
        let at = self.position;
        parse(self.line()?).ok_or(PickleError::Damaged(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: usize = 16 << 20;

    /// Returns the functions that a pickle would call.
    fn calls(bytes: &[u8]) -> Result<Vec<String>, PickleError> {
        let pickle = Pickle::read(bytes, MAX_BYTES)?;
        assert_eq!(pickle.length, bytes.len());
        Ok(pickle.unknown_calls.into_iter().collect())
    }

    /// Formats a value as Python does.
    fn shown(pickle: &Pickle<'_>, id: Id) -> String {
        let list = |ids: &[Id]| {
            let ids = ids.iter().map(|id| shown(pickle, *id));
            ids.collect::<Vec<_>>().join(", ")
        };
        match pickle.value(id) {
            Value::Text(text) => format!("'{text}'"),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::List(ids) => format!("[{}]", list(ids)),
            Value::Tuple(ids) => format!("({})", list(ids)),
            Value::Dict(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    format!("{}: {}", shown(pickle, *key), shown(pickle, *value))
                });
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            Value::Global(..) => pickle.global(id).unwrap(),
            Value::Object(object) => {
                let state = object.state.map(|state| shown(pickle, state));
                let class = shown(pickle, object.class);
                format!("{class}{} {state:?}", shown(pickle, object.args))
            }
            other => format!("{other:?}"),
        }
    }

    fn show(bytes: &[u8]) -> String {
        let pickle = Pickle::read(bytes, MAX_BYTES).unwrap();
        shown(&pickle, pickle.root)
    }

    #[test]
    fn reads_data_of_all_protocols() {
        // {'a': [1, -2, 3.5, True, None], 'b': ('x', 70000)} in protocols 0, 1, 2 and 4
        let expected = "{'a': [1, -2, 3.5, true, None], 'b': ('x', 70000)}";
        let zero =
            b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naF3.5\naI01\naNasVb\np3\n(Vx\np4\nI70000\ntp5\ns.";
        let one = b"}q\x00(X\x01\0\0\0aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x0c\0\0\0\0\0\0I01\nNeX\x01\0\0\0bq\x03(X\x01\0\0\0xq\x04Jp\x11\x01\0tq\x05u.";
        let two = b"\x80\x02}q\x00(X\x01\0\0\0aq\x01]q\x02(K\x01\x8a\x01\xfeG@\x0c\0\0\0\0\0\0\x88NeX\x01\0\0\0bq\x03X\x01\0\0\0xq\x04Jp\x11\x01\0\x86q\x05u.";
        let four = b"\x80\x04\x95\x2b\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffG@\x0c\0\0\0\0\0\0\x88Ne\x8c\x01b\x94\x8c\x01x\x94Jp\x11\x01\0\x86\x94u.";
        for pickle in [&zero[..], one, two, four] {
            assert_eq!(show(pickle), expected);
        }
        assert_eq!(show(b"Vcaf\\u00e9\n."), "'café'");
    }

    #[test]
    fn objects_and_dictionaries_are_data() {
        assert_eq!(
            show(b"\x80\x02c__main__\nNet\n)\x81}X\x01\0\0\0aK\x01sb."),
            "__main__.Net() Some(\"{'a': 1}\")"
        );
        // copyreg._reconstructor(Net, object, None) of protocol 0
        assert_eq!(
            show(b"ccopy_reg\n_reconstructor\n(c__main__\nNet\nc__builtin__\nobject\nNtR."),
            "__main__.Net(__main__.Net, builtins.object, None) None"
        );
        assert_eq!(
            show(b"ccollections\nOrderedDict\n)RVb\nI1\nsVa\nI2\ns."),
            "{'b': 1, 'a': 2}"
        );
        assert_eq!(
            show(b"ccollections\nOrderedDict\n((l(lVb\naI1\naatR."),
            "{'b': 1}"
        );
        assert_eq!(show(b"c__builtin__\nset\n((lVb\natR."), "['b']");
    }

    #[test]
    fn bytes_are_written_in_many_ways() {
        let bytes = |bytes: &[u8]| {
            let pickle = Pickle::read(bytes, MAX_BYTES).unwrap();
            pickle.bytes(pickle.root).map(Cow::into_owned)
        };
        for pickle in [
            // b"\xc8\x01" in protocols 3 and 2 of Python 3, and as a string of Python 2
            &b"\x80\x03C\x02\xc8\x01."[..],
            b"\x80\x02c_codecs\nencode\nX\x03\0\0\0\xc3\x88\x01X\x06\0\0\0latin1\x86R.",
            b"\x80\x02U\x02\xc8\x01.",
            b"\x80\x05\x96\x02\0\0\0\0\0\0\0\xc8\x01.",
            b"\x80\x04cbuiltins\nbytearray\nC\x02\xc8\x01\x85R.",
        ] {
            assert_eq!(bytes(pickle).unwrap(), b"\xc8\x01", "{pickle:?}");
        }
        assert_eq!(
            bytes(b"\x80\x02c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1\x86R."),
            None
        );
        assert_eq!(bytes(b"K\x01."), None);
    }

    #[test]
    fn cycles_are_read() {
        // a = []; a.append(a)
        let pickle = Pickle::read(b"]q\x00h\x00a.", MAX_BYTES).unwrap();
        assert_eq!(pickle.elements(pickle.root), Some(&[pickle.root][..]));
    }

    #[test]
    fn finds_calls_in_all_protocols() {
        // pickle.dumps of an object that calls os.system("ls"), in protocols 0, 2 and 4
        let zero = b"cposix\nsystem\np0\n(Vls\np1\ntp2\nRp3\n.";
        let two = b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00lsq\x01\x85q\x02Rq\x03.";
        let four = b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94.";
        for pickle in [&zero[..], two, four] {
            assert_eq!(calls(pickle).unwrap(), ["posix.system"]);
        }
        assert_eq!(calls(b"cfine\nname\n.").unwrap(), [""; 0]);
        assert_eq!(calls(b"ctorch\nSize\n((ttR.").unwrap(), [""; 0]);
    }

    #[test]
    fn finds_discarded_memoized_and_computed_calls() {
        assert_eq!(calls(b"(S'ls'\nios\nsystem\n0}.").unwrap(), ["os.system"]);
        assert_eq!(calls(b"(cos\nsystem\nS'ls'\no0}.").unwrap(), ["os.system"]);
        // module name from the memo; a name that is not a string constant
        let names = calls(b"N\x8c\x02os\x940h\x00\x8c\x06system\x93)R0NN\x93)R.").unwrap();
        assert_eq!(
            names,
            ["a computed function", "a computed name", "os.system"]
        );
        // getattr(os, 'system')('ls')
        let names = calls(b"c__builtin__\ngetattr\n(VosVsystem\ntR(Vls\ntR.");
        assert_eq!(names.unwrap(), ["a computed function", "builtins.getattr"]);
        assert_eq!(calls(b"\x82\x01.").unwrap(), ["an extension code"]);
        // before the damage
        assert_eq!(calls(b"(S'ls'\nios\nsystem\n\xff").unwrap(), ["os.system"]);
    }

    #[test]
    fn rejects_truncated_and_invalid_pickles() {
        for bytes in [
            &b""[..],
            b".",
            b"}",
            b"t.",
            b"(0t.",
            b"a.",
            b"Ns.",
            b"\x86.",
            b"h\x00.",
            b"Ix\n.",
            b"cposix\nsys",
            b"X\xff\xff\xff\xffls.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffls.",
            b"\xff.",
        ] {
            assert!(
                matches!(calls(bytes), Err(PickleError::Damaged(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn rejects_pickles_that_exceed_a_limit() {
        let many = [&[b'N'; MAX_VALUES + 1][..], b"."].concat();
        let marks = [&[b'('; MAX_VALUES + 1][..], b"."].concat();
        let memo = [&b"N"[..], &[0x94; 3], b"."].concat();
        let mut large = vec![b'N'; MAX_BYTES + 1];
        large.splice(..5, *b"X\xff\xff\xff\0");
        // 2,000 copies of a list of 2,000 numbers
        let list = [&b"]q\x00("[..], &b"K\x01".repeat(2000), b"e0"].concat();
        let copies = b"c__builtin__\nset\nh\x00\x85R".repeat(2000);
        let copies = [&list[..], &copies, b"."].concat();
        for bytes in [many, marks, memo, large, copies] {
            assert_eq!(calls(&bytes), Err(PickleError::TooLarge));
        }
    }
}
