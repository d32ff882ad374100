//! The header of a safetensors file: eight bytes of length, then JSON with the place of each tensor.
//! Format: <https://github.com/huggingface/safetensors>.
//!
//! The crate `safetensors` reads the same format, but its errors rarely name the tensor and the
//! numbers, and of two tensors with the same name it drops one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::ops::Range;

use safetensors::Dtype;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The maximum length of a header in bytes; the crate `safetensors` has the same limit.
pub const MAX_HEADER: u64 = 100_000_000;

/// The header of a safetensors file, checked against the size of the file.
#[derive(Debug)]
pub struct Header {
    /// The tensors in the order of their data, which has no gaps or overlaps and ends with the file.
    pub tensors: Vec<Tensor>,
    /// The `__metadata__` of the file; MLX sets `format` to `mlx`.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name of the tensor, unique in the file.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The dimensions of the tensor; their product times the size of `dtype` is the length of `range`.
    pub shape: Vec<usize>,
    /// The range of the data in bytes from the start of the file.
    pub range: Range<u64>,
}

impl Header {
    /// Reads the header from the start of a file of `size` bytes.
    ///
    /// # Errors
    /// If the header is invalid; the message names the tensor and the numbers, but not the file.
    pub fn read(file: &mut impl Read, size: u64) -> Result<Header, String> {
        let mut length = [0; 8];
        if size < 8 {
            return Err(format!("no safetensors header: the file has {size} bytes"));
        }
        file.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(format!("header of {length} bytes is over the limit of {MAX_HEADER}"));
        }
        if length > size - 8 {
            return Err(format!("truncated: header of {length} bytes in a file of {size}"));
        }
        // The length is at most the size of the file, so a false length cannot exhaust memory.
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(unreadable)?;
        Header::parse(&text, size)
    }

    /// Parses the JSON `text` of the header of a file of `size` bytes.
    ///
    /// # Errors
    /// See [`Header::read`].
    pub fn parse(text: &[u8], size: u64) -> Result<Header, String> {
        let Entries { mut tensors, metadata } =
            parsed(text).map_err(|e| format!("invalid header: {e}"))?;
        tensors.sort_by_key(|(_, entry)| entry.data_offsets);
        let start = 8 + text.len() as u64;
        let tensors = tensors
            .into_iter()
            .map(|(name, entry)| entry.tensor(name, start))
            .collect::<Result<Vec<_>, _>>()?;
        check_names(&tensors)?;
        check_ranges(&tensors, start, size)?;
        Ok(Header { tensors, metadata })
    }
}

/// The fields of the JSON `text`. Its encoding is checked at once, which is faster than string by string.
fn parsed(text: &[u8]) -> serde_json::Result<Entries<'_>> {
    match str::from_utf8(text) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(text),
    }
}

fn unreadable(error: std::io::Error) -> String {
    format!("cannot be read: {error}")
}

fn check_names(tensors: &[Tensor]) -> Result<(), String> {
    let mut names: Vec<_> = tensors.iter().map(|tensor| &tensor.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("tensor {:?} is there twice", pair[0])),
        None => Ok(()),
    }
}

/// Checks that the tensors, sorted by offset, fill the file of `size` bytes from `start` to its end.
fn check_ranges(tensors: &[Tensor], start: u64, size: u64) -> Result<(), String> {
    let mut end = start;
    for Tensor { name, range, .. } in tensors {
        if range.start != end {
            let how = if range.start < end { "overlaps the one before" } else { "leaves a gap" };
            let (at, expected) = (range.start - start, end - start);
            return Err(format!("tensor {name:?} {how}: it starts at {at}, not {expected}"));
        }
        end = range.end;
    }
    match end.cmp(&size) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            Err(format!("truncated: the tensors end at byte {end}, the file at {size}"))
        }
        std::cmp::Ordering::Less => {
            Err(format!("{} bytes that belong to no tensor at the end", size - end))
        }
    }
}

/// The fields of a header, unchecked.
struct Entries<'a> {
    tensors: Vec<(String, Entry<'a>)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry<'_> {
    /// The checked tensor, its range shifted by `start`, the end of the header.
    fn tensor(self, name: String, start: u64) -> Result<Tensor, String> {
        let Entry { dtype, shape, data_offsets: (from, to) } = self;
        let Ok(dtype) = Dtype::deserialize(StrDeserializer::<NameError>::new(&dtype)) else {
            return Err(format!("tensor {name:?} has the unknown dtype {dtype:?}"));
        };
        let size = size(dtype, &shape)
            .ok_or_else(|| format!("tensor {name:?} has an impossible size: {dtype} {shape:?}"))?;
        if to.checked_sub(from) != Some(size) {
            return Err(format!(
                "tensor {name:?} ({dtype} {shape:?}) needs {size} bytes but has offsets {from} to {to}"
            ));
        }
        match (from.checked_add(start), to.checked_add(start)) {
            (Some(from), Some(to)) => Ok(Tensor { name, dtype, shape, range: from..to }),
            _ => Err(format!("tensor {name:?} has offsets {from} to {to}, beyond any file")),
        }
    }
}

/// The size of a tensor in bytes; none if it overflows or is not a whole number.
pub(super) fn size(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &dimension| bits.checked_mul(dimension as u64))?;
    (bits % 8 == 0).then_some(bits / 8)
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Entries { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    let named = |e| A::Error::custom(format!("{name:?}: {e}"));
                    if name == "__metadata__" {
                        let metadata: Option<_> = map.next_value().map_err(named)?;
                        entries.metadata = metadata.unwrap_or_default();
                    } else {
                        let entry = map.next_value().map_err(named)?;
                        entries.tensors.push((name, entry));
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}
