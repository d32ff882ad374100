//! Which tensors a model gets, and how the bytes of each are made from the file's.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use half::{bf16, f16};
use mlxk_core::tensors::{Dtype, Entry};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::affine::{self, GROUP, Part};
use crate::dequant::dequantize;
use crate::dtype::Type;
use crate::model::{Expected, Model};
use crate::read::{Gguf, Tensor};
use crate::rope;
use mlxk_core::Float;

/// All tensors of a model about to be written.
#[derive(Debug)]
pub struct Weights<'a> {
    /// What is written, in order.
    pub entries: Vec<Entry>,
    /// The type of vectors, and of matrices that can be kept in no other way.
    pub float: Float,
    jobs: HashMap<String, Job<'a>>,
    quantized: BTreeMap<String, usize>,
}

/// Where the bytes of a tensor come from.
#[derive(Clone, Debug)]
struct Job<'a> {
    tensor: Tensor<'a>,
    heads: Option<usize>,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Keep,
    Cast(Float),
    Repack(Part),
}

impl<'a> Weights<'a> {
    /// Finds each tensor that the model needs; one too many or of another shape is an error.
    pub fn plan(gguf: &Gguf<'a>, model: &Model, wish: Option<Float>) -> Result<Self, String> {
        let mut left: BTreeMap<_, _> = gguf.tensors.iter().map(|t| (t.name, t)).collect();
        left.remove(rope::FACTORS);
        let mut weights = Weights {
            entries: Vec::new(),
            float: wish.unwrap_or_else(|| natural(gguf)),
            jobs: HashMap::new(),
            quantized: BTreeMap::new(),
        };
        for expected in model.tensors() {
            match left.remove(&*expected.gguf) {
                Some(tensor) => weights.add(expected, tensor)?,
                None if !expected.needed => {}
                None => return Err(format!("the tensor {:?} is missing", expected.gguf)),
            }
        }
        match left.into_keys().next() {
            Some(name) => Err(format!(
                "tensor {name:?} has no place in a model of {} layers of the architecture {:?}",
                model.layers, model.architecture.gguf
            )),
            None => Ok(weights),
        }
    }

    fn add(&mut self, expected: Expected, tensor: &Tensor<'a>) -> Result<(), String> {
        let Expected { gguf, module, field, shape, heads, .. } = expected;
        if tensor.shape != shape {
            return Err(format!("tensor {gguf:?} has the shape {:?}, not {shape:?}", tensor.shape));
        }
        let vector = shape.len() == 1;
        if vector && !tensor.dtype.is_float() {
            return Err(format!("the vector {gguf:?} is packed as {}", tensor.dtype.name()));
        }
        let mut add = |field: &str, dtype, shape, how| {
            let name = format!("{module}.{field}");
            let job = Job { tensor: tensor.clone(), heads, how };
            self.jobs.insert(name.clone(), job);
            self.entries.push(Entry { name, dtype, shape });
        };
        match (plain(tensor.dtype), affine::bits(tensor.dtype)) {
            (Some(dtype), _) if !vector || dtype == self.float => {
                add(field, dtype.dtype(), shape, How::Keep);
            }
            (_, Some(bits)) => {
                let (rows, columns) = (shape[0], shape[1]);
                let groups = vec![rows, columns / GROUP];
                let codes = vec![rows, columns * bits / 32];
                add("weight", Dtype::U32, codes, How::Repack(Part::Codes));
                add("scales", Dtype::F16, groups.clone(), How::Repack(Part::Scales));
                add("biases", Dtype::F16, groups, How::Repack(Part::Biases));
                self.quantized.insert(module, bits);
            }
            _ => add(field, self.float.dtype(), shape, How::Cast(self.float)),
        }
        Ok(())
    }

    /// The `quantization` of `config.json`: the commonest width, and the modules with another.
    pub fn quantization(&self) -> Option<Value> {
        let wide = self.quantized.values().filter(|bits| **bits == 8).count();
        let bits = match self.quantized.len() {
            0 => return None,
            all if wide * 2 > all => 8,
            _ => 4,
        };
        let mut table = json!({ "group_size": GROUP, "bits": bits, "mode": "affine" });
        for (module, other) in self.quantized.iter().filter(|(_, other)| **other != bits) {
            table[module] = json!({ "group_size": GROUP, "bits": other, "mode": "affine" });
        }
        Some(table)
    }

    /// The bytes of one of the entries.
    pub fn bytes(&self, entry: &Entry) -> Result<Cow<'a, [u8]>, String> {
        let job = &self.jobs[&entry.name];
        job.bytes().map_err(|what| format!("tensor {:?}: {what}", job.tensor.name))
    }
}

/// The type that goes with what the file holds: its first plain matrix, unless f16 scales meet it,
/// with which MLX would compute in f32 if all else were of another type.
fn natural(gguf: &Gguf) -> Float {
    let packed = gguf.tensors.iter().any(|tensor| affine::bits(tensor.dtype).is_some());
    let mut matrices = gguf.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    match matrices.find_map(|tensor| plain(tensor.dtype)) {
        Some(float) if !packed => float,
        _ => Float::F16,
    }
}

fn plain(dtype: Type) -> Option<Float> {
    match dtype {
        Type::F16 => Some(Float::F16),
        Type::BF16 => Some(Float::BF16),
        Type::F32 => Some(Float::F32),
        _ => None,
    }
}

impl<'a> Job<'a> {
    fn bytes(&self) -> Result<Cow<'a, [u8]>, String> {
        let Tensor { shape, data, dtype, .. } = &self.tensor;
        if let (How::Keep, None) = (self.how, self.heads) {
            return Ok(Cow::Borrowed(data));
        }
        // The elements of an interleaved vector move like the rows of a matrix.
        let (rows, columns) = match (&shape[..], self.heads) {
            ([rows, columns], _) => (*rows, *columns),
            (_, Some(_)) => (shape[0], 1),
            _ => (1, shape[0]),
        };
        let from = columns / dtype.block() * dtype.bytes();
        let to = self.row(columns);
        let mut out = vec![0; rows * to];
        out.par_chunks_mut(to).enumerate().with_min_len(32).try_for_each(|(row, out)| {
            let row = self.heads.map_or(row, |heads| interleaved(row, rows / heads));
            self.fill(&data[row * from..][..from], columns, out)
        })?;
        Ok(Cow::Owned(out))
    }

    /// The bytes of a row of `columns` as it is written.
    fn row(&self, columns: usize) -> usize {
        let dtype = self.tensor.dtype;
        match self.how {
            How::Keep => columns * dtype.bytes(),
            How::Cast(float) => columns * float.bytes(),
            How::Repack(Part::Codes) => columns * affine::bits(dtype).unwrap_or(0) / 8,
            How::Repack(_) => columns / GROUP * 2,
        }
    }

    fn fill(&self, row: &[u8], columns: usize, out: &mut [u8]) -> Result<(), String> {
        match self.how {
            How::Keep => out.copy_from_slice(row),
            How::Repack(part) => affine::repack(self.tensor.dtype, part, row, out)?,
            How::Cast(float) => {
                let mut numbers = vec![0.0; columns];
                dequantize(self.tensor.dtype, row, &mut numbers);
                cast(&numbers, float, out)?;
            }
        }
        Ok(())
    }
}

/// Where the row `row` of the usual order, halves of a head one after the other, stands in a file
/// that keeps the two of each rotary pair together. `head` is the rows of a head.
fn interleaved(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let half = head / 2;
    start + within % half * 2 + within / half
}

fn cast(numbers: &[f32], float: Float, out: &mut [u8]) -> Result<(), String> {
    let pairs = numbers.iter().zip(out.chunks_exact_mut(float.bytes()));
    match float {
        Float::F32 => pairs.for_each(|(x, out)| out.copy_from_slice(&x.to_le_bytes())),
        Float::BF16 => {
            pairs.for_each(|(x, out)| out.copy_from_slice(&bf16::from_f32(*x).to_le_bytes()));
        }
        Float::F16 => {
            for (x, out) in pairs {
                let half = f16::from_f32(*x);
                if half.is_infinite() && x.is_finite() {
                    return Err(format!("{x} does not fit f16, but bf16 and f32"));
                }
                out.copy_from_slice(&half.to_le_bytes());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_taken_apart() {
        let order: Vec<_> = (0..12).map(|row| interleaved(row, 6)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
