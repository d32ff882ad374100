//! Reading a GGUF file: metadata and a table of tensors, all checked against the bytes there are.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian. Every count and length comes from an untrusted file: none is believed before it
//! was compared with what is left of the file, and memory grows with the file alone.

use std::collections::{BTreeMap, HashSet};

use crate::dtype::Type;
use crate::value::{Array, Get, Value};

/// The longest name of a tensor or of metadata, in bytes: twice what llama.cpp allows a tensor.
const MAX_NAME: usize = 128;

/// The elements of a list at most; the largest vocabularies have half a million.
const MAX_LIST: u64 = 1 << 24;

/// The metadata keys, and the tensors, at most.
const MAX_ENTRIES: u64 = 1 << 20;

/// A file's content, borrowed from its bytes.
#[derive(Debug)]
pub struct Gguf<'a> {
    /// The metadata.
    pub metadata: BTreeMap<&'a str, Value<'a>>,
    /// The tensors in the order of the file; names are unique and no two share bytes.
    pub tensors: Vec<Tensor<'a>>,
}

/// A tensor.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The type of its weights.
    pub dtype: Type,
    /// Its dimensions, rows first (GGUF writes them the other way round); none is zero.
    pub shape: Vec<usize>,
    /// Its bytes: as many as type and shape need.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// The length of its last dimension.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

impl<'a> Gguf<'a> {
    /// Reads a whole file. The error says what is wrong, where and by how much; it does not name
    /// the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, String> {
        let mut cursor = Cursor { bytes, at: 0 };
        let (tensors, keys) = preamble(&mut cursor)?;
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
            .map(|number| Place::read(&mut cursor, number))
            .collect::<Result<Vec<_>, _>>()?;
        let mut gguf = Gguf { metadata, tensors: Vec::new() };
        let alignment = gguf.alignment()?;
        gguf.tensors = lay_out(table, bytes, cursor.at.next_multiple_of(alignment), alignment)?;
        Ok(gguf)
    }

    /// The metadata `key`, if it is there; the error says that it is of another type.
    pub fn find<'g, T: Get<'g, 'a>>(&'g self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let wrong = || format!("the metadata `{key}` is {}, not {}", value.kind(), T::WANTED);
        T::get(value).map(Some).ok_or_else(wrong)
    }

    /// The metadata `key`.
    pub fn need<'g, T: Get<'g, 'a>>(&'g self, key: &str) -> Result<T, String> {
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

/// The counts of tensors and of metadata keys, after the magic number and the version.
fn preamble(cursor: &mut Cursor) -> Result<(u64, u64), String> {
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
        // An entry takes 13 bytes at least: a length, a type and a value, or dimensions.
        let room = (cursor.bytes.len() as u64 / 13).min(MAX_ENTRIES);
        if count > room {
            let size = cursor.bytes.len();
            return Err(format!("{count} {what} cannot be in a file of {size} bytes"));
        }
    }
    Ok((tensors, keys))
}

/// An entry of the table of tensors.
struct Place<'a> {
    name: &'a str,
    dtype: Type,
    shape: Vec<usize>,
    offset: u64,
    size: usize,
}

impl<'a> Place<'a> {
    fn read(cursor: &mut Cursor<'a>, number: u64) -> Result<Place<'a>, String> {
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
        Ok(Place { name, dtype, shape, offset, size })
    }
}

/// The bytes of a tensor; none if they overflow, are none, or its rows are no whole blocks.
fn size(dtype: Type, shape: &[usize]) -> Option<usize> {
    let weights = shape.iter().try_fold(1usize, |n, &dimension| n.checked_mul(dimension))?;
    let whole = weights > 0 && shape.last()? % dtype.block() == 0;
    whole.then_some(weights / dtype.block())?.checked_mul(dtype.bytes())
}

/// Takes each tensor's bytes out of the file; `start` is where the data begins.
fn lay_out<'a>(
    table: Vec<Place<'a>>,
    bytes: &'a [u8],
    start: usize,
    alignment: usize,
) -> Result<Vec<Tensor<'a>>, String> {
    let mut names = HashSet::new();
    let mut ranges = Vec::new();
    let mut tensors = Vec::new();
    for Place { name, dtype, shape, offset, size } in table {
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

/// A place in the file, moved on by each read; `what` names in errors what was being read.
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

    /// A text that is short enough to be quoted.
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

/// The f64 of the shortest decimal that means this f32.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
