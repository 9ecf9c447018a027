//! Checks of the protobuf encoding before a file is decoded, since an empty message of two bytes takes a hundred bytes
//! in memory. <https://protobuf.dev/programming-guides/encoding/>

/// Largest number of fields in all messages; networks have a few for each operator.
const MAX_FIELDS: usize = 1 << 19;
/// Largest number of integers of variable length; weights are stored with fixed lengths.
const MAX_INTEGERS: usize = 1 << 24;
/// Largest version of the file format that [`is_model`] takes for one.
const MAX_IR_VERSION: u64 = 100;
/// Number of the field of a model that holds the graph.
const GRAPH: u64 = 7;

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The content of a field.
#[derive(Clone, Copy, Debug)]
enum Field<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Messages by their fields that are messages or integers.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    /// A message that has only few bytes for each field.
    Other,
    /// Integers without tags between them.
    Integers,
    /// Bytes, text, or numbers of fixed length.
    Data,
}

impl Kind {
    /// Returns the content of a field.
    fn of_field(self, number: u64) -> Self {
        match (self, number) {
            (Self::Model, GRAPH) => Self::Graph,
            (Self::Model, 8 | 14) => Self::Other,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) => Self::Tensor,
            (Self::Graph, 11 | 12) => Self::Other,
            (Self::Node, 5) => Self::Attribute,
            (Self::Attribute, 5) => Self::Tensor,
            (Self::Attribute, 8) | (Self::Tensor, 1 | 5 | 7) => Self::Integers,
            (Self::Tensor, 13) => Self::Other,
            _ => Self::Data,
        }
    }
}

/// Returns whether the bytes are a model: a message whose first field is a version of the format, and that has a graph.
pub(crate) fn is_model(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let Some((1, Field::Integer(1..=MAX_IR_VERSION))) = next_field(&mut rest) else {
        return false;
    };
    let mut has_graph = false;
    while !rest.is_empty() {
        match next_field(&mut rest) {
            Some((GRAPH, Field::Bytes(_))) => has_graph = true,
            Some(_) => {}
            None => return false,
        }
    }
    has_graph
}

/// Checks that decoding a model takes little more memory than its bytes.
///
/// # Errors
/// Returns an error if the encoding is damaged, or there are too many fields or integers.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut limits = Limits {
        fields: MAX_FIELDS,
        integers: MAX_INTEGERS,
    };
    limits.deduct_message(bytes, Kind::Model)
}

/// Numbers of fields and integers that the remaining messages may have.
struct Limits {
    fields: usize,
    integers: usize,
}

impl Limits {
    /// Deducts a message. The recursion is as deep as [`Kind`] has levels of messages.
    fn deduct_message(&mut self, mut bytes: &[u8], kind: Kind) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            let (number, field) = next_field(&mut bytes).ok_or("a damaged field")?;
            self.fields = self.fields.checked_sub(1).ok_or("too many fields")?;
            let Field::Bytes(content) = field else {
                continue;
            };
            match kind.of_field(number) {
                Kind::Data => {}
                // A field of a dimension within shape, type and value takes at least two bytes.
                Kind::Other => {
                    let left = self.fields.checked_sub(content.len() / 2);
                    self.fields = left.ok_or("too many fields")?;
                }
                Kind::Integers => {
                    let count = content.iter().filter(|byte| **byte < 0x80).count();
                    let left = self.integers.checked_sub(count);
                    self.integers = left.ok_or("too many integers")?;
                }
                message => self.deduct_message(content, message)?,
            }
        }
        Ok(())
    }
}

/// Splits the next field off, and returns its number and content; `None` if it is damaged.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(bytes)?;
    let field = match tag & 7 {
        VARINT => Field::Integer(varint(bytes)?),
        FIXED64 => {
            bytes.split_off(..8)?;
            Field::Fixed
        }
        BYTES => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Field::Bytes(bytes.split_off(..length)?)
        }
        FIXED32 => {
            bytes.split_off(..4)?;
            Field::Fixed
        }
        _ => return None,
    };
    (tag >> 3 > 0).then_some((tag >> 3, field))
}

/// Splits an integer of variable length off.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_begins_with_its_version_and_has_a_graph() {
        assert!(is_model(&[0x08, 8, 0x3a, 1, 0]));
        // Without a graph, with a large version, cut off, and with a field of number 0.
        assert!(!is_model(&[0x08, 8]));
        assert!(!is_model(&[0x08, 101, 0x3a, 0]));
        assert!(!is_model(&[0x08, 8, 0x3a, 1]));
        assert!(!is_model(&[0x08, 8, 0x3a, 0, 0, 0]));
        assert!(!is_model(&[]));
        // The length of the JSON header of a safetensors file, and its begin.
        assert!(!is_model(b"\x08\x01\0\0\0\0\0\0{\""));
    }

    #[test]
    fn messages_that_take_much_more_memory_than_bytes_are_refused() {
        let graph = |content: Vec<u8>| {
            let mut bytes = vec![0x08, 8, 0x3a];
            let mut length = content.len();
            while length >= 0x80 {
                bytes.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(content);
            bytes
        };
        let nodes = |count: usize| graph([0x0a, 0].repeat(count));
        assert_eq!(check(&nodes(1000)), Ok(()));
        assert_eq!(check(&nodes(MAX_FIELDS)), Err("too many fields"));
        // A tensor with packed dimensions of one byte.
        let mut tensor = vec![0x2a];
        let count = MAX_INTEGERS + 1;
        let length = |bytes: &mut Vec<u8>, length: usize| {
            bytes.extend([0, 7, 14, 21].map(|shift| (length >> shift) as u8 & 0x7f | 0x80));
            bytes.push(0);
        };
        length(&mut tensor, count + 6);
        tensor.push(0x0a);
        length(&mut tensor, count);
        tensor.extend(vec![1; count]);
        assert_eq!(check(&graph(tensor)), Err("too many integers"));
        assert_eq!(check(&[0x0b]), Err("a damaged field"));
    }
}
