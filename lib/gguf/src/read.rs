//! Parser of GGUF files: metadata and the tensor table, checked against the size of the file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian. Every count and length is untrusted: it is compared with the rest of the file
//! before use, so that memory use is bounded by the size of the file.

use std::collections::{BTreeMap, HashSet};

use crate::dtype::Type;
use crate::value::{Array, FromValue, Value, shortest};

/// Longest name of a tensor or metadata key, in bytes: twice llama.cpp's limit for tensors.
const MAX_NAME: usize = 128;

/// Most elements of an array; the largest vocabularies have half a million.
const MAX_LIST: u64 = 1 << 24;

/// Most metadata keys, and most tensors.
const MAX_ENTRIES: u64 = 1 << 20;

/// Parsed GGUF file, borrowed from its bytes.
#[derive(Debug)]
pub struct Gguf<'a> {
    /// Metadata by key.
    pub metadata: BTreeMap<&'a str, Value<'a>>,
    /// Tensors in file order; names are unique, and no two tensors share bytes.
    pub tensors: Vec<Tensor<'a>>,
}

/// Tensor of a GGUF file.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// Type of the weights.
    pub dtype: Type,
    /// Dimensions, rows first (the reverse of GGUF's order); none is zero.
    pub shape: Vec<usize>,
    /// Data, of the length that type and shape need.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// Length of the last dimension.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl<'a> Gguf<'a> {
    /// Parses the bytes of a whole file.
    ///
    /// # Errors
    /// A phrase that states the defect and its position, without the name of the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, String> {
        let mut cursor = Cursor { bytes, at: 0 };
        let (tensors, keys) = read_header(&mut cursor)?;
        let mut metadata = BTreeMap::new();
        for number in 0..keys {
            let key = cursor.name(&format!("metadata key {number}"))?;
            let entry = format!("the metadata `{}`", key.escape_debug());
            let value = cursor.value(&entry)?;
            if metadata.insert(key, value).is_some() {
                return Err(format!("{entry} is there twice"));
            }
        }
        let table = (0..tensors)
            .map(|number| TensorInfo::read(&mut cursor, number))
            .collect::<Result<Vec<_>, _>>()?;
        let mut gguf = Gguf { metadata, tensors: Vec::new() };
        let alignment = gguf.alignment()?;
        gguf.tensors = locate(table, bytes, cursor.at.next_multiple_of(alignment), alignment)?;
        Ok(gguf)
    }

    /// Value of the metadata `key`, or `None`; an error if it has another type.
    pub fn find<'g, T: FromValue<'g, 'a>>(&'g self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let wrong = || format!("the metadata `{key}` is {}, not {}", value.kind(), T::EXPECTED);
        T::from_value(value).map(Some).ok_or_else(wrong)
    }

    /// Value of the metadata `key`; an error if it is missing or has another type.
    pub fn need<'g, T: FromValue<'g, 'a>>(&'g self, key: &str) -> Result<T, String> {
        self.find(key)?.ok_or_else(|| format!("the metadata `{key}` is missing"))
    }

    fn alignment(&self) -> Result<usize, String> {
        let alignment: usize = self.find("general.alignment")?.unwrap_or(32);
        match alignment {
            8..=65536 if alignment.is_power_of_two() => Ok(alignment),
            _ => Err(format!("impossible `general.alignment`: {alignment}")),
        }
    }
}

/// Reads magic number and version; returns the numbers of tensors and of metadata keys.
fn read_header(cursor: &mut Cursor) -> Result<(u64, u64), String> {
    if !cursor.bytes.starts_with(b"GGUF") {
        return Err("not a GGUF file: it does not begin with `GGUF`".into());
    }
    cursor.at = 4;
    match cursor.u32("the version")? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 => return Err("a big-endian GGUF file".into()),
        version => return Err(format!("GGUF version {version}; 2 and 3 are known")),
    }
    let tensors = cursor.u64("the count of tensors")?;
    let keys = cursor.u64("the count of metadata keys")?;
    for (what, count) in [("tensors", tensors), ("metadata keys", keys)] {
        // An entry has at least 13 bytes: a length, a type, and a value or dimensions.
        let room = (cursor.bytes.len() as u64 / 13).min(MAX_ENTRIES);
        if count > room {
            let size = cursor.bytes.len();
            return Err(format!("{count} {what} cannot be in a file of {size} bytes"));
        }
    }
    Ok((tensors, keys))
}

/// Entry of the tensor table.
struct TensorInfo<'a> {
    name: &'a str,
    dtype: Type,
    shape: Vec<usize>,
    offset: u64,
    size: usize,
}

impl<'a> TensorInfo<'a> {
    fn read(cursor: &mut Cursor<'a>, number: u64) -> Result<TensorInfo<'a>, String> {
        let name = cursor.name(&format!("the name of tensor {number}"))?;
        let at = |what: String| format!("tensor {name:?} {what}");
        let rank = cursor.u32(&at("has no rank".into()))?;
        if !(1..=4).contains(&rank) {
            return Err(at(format!("has {rank} dimensions; 1 to 4 are possible")));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            let dimension = cursor.u64(&at("has no shape".into()))?;
            shape.insert(0, usize::try_from(dimension).unwrap_or(usize::MAX));
        }
        let dtype = Type::from_number(cursor.u32(&at("has no type".into()))?)
            .map_err(|what| at(format!("has {what}")))?;
        let offset = cursor.u64(&at("has no offset".into()))?;
        let impossible = || at(format!("has an impossible size: {} {shape:?}", dtype.name()));
        let size = size(dtype, &shape).ok_or_else(impossible)?;
        Ok(TensorInfo { name, dtype, shape, offset, size })
    }
}

/// Size of a tensor in bytes; `None` if it is zero or overflows, or rows are not whole blocks.
fn size(dtype: Type, shape: &[usize]) -> Option<usize> {
    let weights = shape.iter().try_fold(1usize, |n, &dimension| n.checked_mul(dimension))?;
    let whole = weights > 0 && shape.last()? % dtype.block() == 0;
    whole.then_some(weights / dtype.block())?.checked_mul(dtype.bytes())
}

/// Tensors of the table with their data; `start` is the offset of the data section.
fn locate<'a>(
    table: Vec<TensorInfo<'a>>,
    bytes: &'a [u8],
    start: usize,
    alignment: usize,
) -> Result<Vec<Tensor<'a>>, String> {
    let mut names = HashSet::new();
    let mut ranges = Vec::new();
    let mut tensors = Vec::new();
    for TensorInfo { name, dtype, shape, offset, size } in table {
        let at = |what: String| format!("tensor {name:?} {what}");
        if !names.insert(name) {
            return Err(at("is there twice".into()));
        }
        if offset % alignment as u64 != 0 {
            return Err(at(format!("starts at {offset}, which is no multiple of {alignment}")));
        }
        let from = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
        let range = from.and_then(|from| Some(from..from.checked_add(size)?));
        let data = range.clone().and_then(|range| bytes.get(range));
        let (Some(range), Some(data)) = (range, data) else {
            let file = bytes.len();
            return Err(at(format!(
                "needs {size} bytes at {offset} after byte {start}, but the file ends at {file}"
            )));
        };
        ranges.push((range.start, range.end, name));
        tensors.push(Tensor { name, dtype, shape, data });
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(format!("tensors {:?} and {:?} share bytes", pair[0].2, pair[1].2)),
        None => Ok(tensors),
    }
}

/// Read position in the file; the `what` of its methods names the value in errors.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, size: u64, what: &str) -> Result<&'a [u8], String> {
        let left = &self.bytes[self.at..];
        match usize::try_from(size).ok().and_then(|size| left.get(..size)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => {
                let (at, left) = (self.at, left.len());
                Err(format!("{what}: {size} bytes needed at byte {at}, {left} left in the file"))
            }
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let length = self.u64(what)?;
        let at = self.at;
        let text = self.take(length, what)?;
        str::from_utf8(text)
            .map_err(|e| format!("{what}: not UTF-8 text, at byte {}", at + e.valid_up_to()))
    }

    /// String of at most [`MAX_NAME`] bytes.
    fn name(&mut self, what: &str) -> Result<&'a str, String> {
        let name = self.text(what)?;
        match name.len() {
            0..=MAX_NAME => Ok(name),
            length => Err(format!("{what}: {length} bytes are no name")),
        }
    }

    fn value(&mut self, what: &str) -> Result<Value<'a>, String> {
        match self.u32(what)? {
            9 => self.list(what).map(Value::Array),
            kind => self.scalar(kind, what),
        }
    }

    fn scalar(&mut self, kind: u32, what: &str) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array(what)?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Integer(u32::from_le_bytes(self.array(what)?).into()),
            5 => Value::Integer(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::Float(shortest(f32::from_le_bytes(self.array(what)?))),
            7 => Value::Bool(self.take(1, what)? != [0]),
            8 => Value::Str(self.text(what)?),
            10 => Value::Integer(u64::from_le_bytes(self.array(what)?).into()),
            11 => Value::Integer(i64::from_le_bytes(self.array(what)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            kind => return Err(format!("{what} has the unknown type {kind}")),
        })
    }

    fn list(&mut self, what: &str) -> Result<Array<'a>, String> {
        let kind = self.u32(what)?;
        let count = self.u64(what)?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => {
                return Err(format!("{what} is a list of lists, which has no meaning here"));
            }
            kind => return Err(format!("{what} is a list of the unknown type {kind}")),
        };
        let left = (self.bytes.len() - self.at) as u64;
        if count > (left / width).min(MAX_LIST) {
            return Err(format!("{what}: a list of {count} cannot be in the {left} bytes left"));
        }
        let mut list = match kind {
            6 | 12 => Array::Floats(Vec::with_capacity(count as usize)),
            8 => Array::Strings(Vec::with_capacity(count as usize)),
            _ => Array::Integers(Vec::with_capacity(count as usize)),
        };
        for _ in 0..count {
            list.push(self.scalar(kind, what)?, what)?;
        }
        Ok(list)
    }
}

impl<'a> Array<'a> {
    fn push(&mut self, value: Value<'a>, what: &str) -> Result<(), String> {
        match (self, value) {
            (Array::Strings(list), Value::Str(text)) => list.push(text),
            (Array::Floats(list), Value::Float(x)) => list.push(x),
            (Array::Integers(list), Value::Bool(b)) => list.push(b.into()),
            (Array::Integers(list), Value::Integer(n)) => match n.try_into() {
                Ok(n) => list.push(n),
                Err(_) => return Err(format!("{what}: {n} is too large")),
            },
            _ => unreachable!("a list holds values of its own type"),
        }
        Ok(())
    }
}
