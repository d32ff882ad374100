//! The header of an npz file, a ZIP archive with an array in each member, whose data are where a
//! safetensors file has tensors. Format: numpy's `lib/format.py`; MLX writes such files too.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use safetensors::Dtype;
use zip::CompressionMethod;
use zip::ZipArchive;
use zip::read::ZipFile;

use super::header::{Header, Tensor, check_names, size, unreadable};

/// The maximum number of arrays in a file.
const MAX_ARRAYS: usize = 100_000;

/// The maximum length of the description of an array, in bytes; numpy has the same limit.
const MAX_DESCRIPTION: usize = 10_000;

/// Types by their names in numpy; MLX writes bfloat16, which numpy lacks, as two bytes without a type.
const TYPES: [(&str, Dtype); 15] = [
    ("|b1", Dtype::BOOL),
    ("|u1", Dtype::U8),
    ("|i1", Dtype::I8),
    ("<u2", Dtype::U16),
    ("<i2", Dtype::I16),
    ("<u4", Dtype::U32),
    ("<i4", Dtype::I32),
    ("<u8", Dtype::U64),
    ("<i8", Dtype::I64),
    ("<f2", Dtype::F16),
    ("<V2", Dtype::BF16),
    ("|V2", Dtype::BF16),
    ("V2", Dtype::BF16),
    ("<f4", Dtype::F32),
    ("<f8", Dtype::F64),
];

impl Header {
    /// Reads the directory of the npz `file` and the description of each of its arrays.
    ///
    /// # Errors
    /// If the archive is incomplete, or an array is compressed, of an unknown type or stored by
    /// columns; the message names the array, but not the file.
    pub fn read_npz(file: impl Read + Seek) -> Result<Header, String> {
        let mut archive = ZipArchive::new(file).map_err(|e| format!("not a complete npz: {e}"))?;
        if archive.len() > MAX_ARRAYS {
            return Err(format!("{} arrays are over the limit of {MAX_ARRAYS}", archive.len()));
        }
        let mut tensors = Vec::with_capacity(archive.len());
        for number in 0..archive.len() {
            let member = archive.by_index_raw(number).map_err(|e| e.to_string())?;
            tensors.push(tensor(member)?);
        }
        tensors.sort_by_key(|tensor| tensor.range.start);
        check_names(&tensors)?;
        match tensors.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
            Some(pair) => Err(format!("tensor {:?} overlaps the one before", pair[1].name)),
            None => Ok(Header { tensors, metadata: BTreeMap::new() }),
        }
    }
}

/// The array of a member.
fn tensor<R: Read + Seek>(mut member: ZipFile<R>) -> Result<Tensor, String> {
    let name = member.name().map_err(|e| e.to_string())?.into_owned();
    let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
    let wrong = |why: &str| format!("tensor {name:?} {why}");
    if member.compression() != CompressionMethod::Stored || member.encrypted() {
        return Err(wrong("is compressed, and only stored arrays are read"));
    }
    let data = member.data_start().ok_or_else(|| wrong("has no place in the file"))?;
    let length = member.size();
    let mut start = [0; 8];
    member.read_exact(&mut start).map_err(unreadable)?;
    let (described, before) = match start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _] => {
            let mut size = [0; 2];
            member.read_exact(&mut size).map_err(unreadable)?;
            (usize::from(u16::from_le_bytes(size)), 10)
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _] => {
            let mut size = [0; 4];
            member.read_exact(&mut size).map_err(unreadable)?;
            (u32::from_le_bytes(size) as usize, 12)
        }
        _ => return Err(wrong("is no array of numpy")),
    };
    if described > MAX_DESCRIPTION {
        return Err(wrong(&format!("has a description of {described} bytes")));
    }
    let mut text = vec![0; described];
    member.read_exact(&mut text).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&text);
    let (dtype, shape) = description(&text).map_err(|why| wrong(&why))?;
    let needed = size(dtype, &shape).ok_or_else(|| wrong("has an impossible size"))?;
    let header = before + described as u64;
    if length.checked_sub(header) != Some(needed) {
        let why = format!("({dtype} {shape:?}) needs {needed} bytes in a member of {length}");
        return Err(wrong(&why));
    }
    let first = data.checked_add(header).ok_or_else(|| wrong("lies beyond any file"))?;
    let end = first.checked_add(needed).ok_or_else(|| wrong("lies beyond any file"))?;
    Ok(Tensor { name, dtype, shape, range: first..end })
}

/// The type and the shape that a description states, as in `{'descr': '<f2', 'fortran_order': False,
/// 'shape': (16, 3), }`. An array with one axis has the same elements in both orders.
fn description(text: &str) -> Result<(Dtype, Vec<usize>), String> {
    let field = |name: &str| {
        let rest = text.split_once(&format!("'{name}':"))?.1;
        Some(rest.trim_start())
    };
    let missing = |name: &str| format!("does not state its {name}");
    let descr = field("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\''));
    let (descr, _) = descr.ok_or_else(|| missing("descr"))?;
    let dtype = TYPES.iter().find(|(name, _)| *name == descr);
    let (_, dtype) = dtype.ok_or_else(|| format!("has the unknown dtype {descr:?}"))?;
    let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let (shape, _) = shape.ok_or_else(|| missing("shape"))?;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let axes: Result<Vec<usize>, _> = axes.map(str::parse).collect();
    let axes = axes.map_err(|_| format!("has the shape ({shape})"))?;
    let by_columns = field("fortran_order").is_some_and(|rest| rest.starts_with("True"));
    match by_columns && axes.len() > 1 {
        true => Err("is stored by columns".to_owned()),
        false => Ok((*dtype, axes)),
    }
}
