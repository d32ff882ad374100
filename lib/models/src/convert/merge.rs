//! Merge of an adapter into the weights of a model, in the order of mlx-lm's `fuse`, so that
//! results are equal to the bit.

use std::collections::{BTreeMap, BTreeSet};

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype};
use mlxk_core::quantization::QuantSpec;
use mlxk_core::{Error, Float, Kind, Result};
use mlxk_tensor::{floats, mlx, quantized};

use crate::checkpoint::adapter::{Adapter, OTHER, is_embedding};
use crate::checkpoint::tensor::{Bytes, Tensor};
use crate::sketch::Parts;

/// Merges `adapter` into the weights of `parts`; changed matrices are dense then. Returns the
/// quantisation that each of them had.
///
/// # Errors
/// If the adapter is for another model, lacks a matrix, or has one of another shape. Nothing is
/// computed yet.
pub fn merge(parts: &mut Parts, adapter: Adapter) -> Result<BTreeMap<String, QuantSpec>> {
    let Some(scale) = adapter.scale else {
        return replace(parts, adapter).map(|()| BTreeMap::new());
    };
    let mut added: BTreeMap<String, Tensor> = adapter.tensors.into_iter().collect();
    let module = |name: &String| name.rsplit_once('.').map(|(module, _)| module.to_owned());
    let modules: BTreeSet<String> = added.keys().filter_map(module).collect();
    let mut packed = BTreeMap::new();
    for module in modules {
        let mut take = |part: &str| added.remove(&format!("{module}.{part}"));
        let (a, b, lengths) = (take("lora_a"), take("lora_b"), take("m"));
        let form = parts.taken.matrices.get_mut(&module).ok_or_else(|| invalid(&module, OTHER))?;
        let form = form.take();
        let part = |part: &str| parts.checkpoint.tensors.get(&format!("{module}.{part}")).cloned();
        let weight = part("weight").ok_or_else(|| invalid(&module, OTHER))?;
        let base = Base { weight, scales: part("scales"), biases: part("biases"), form };
        let missing = |name| invalid(&format!("{module}.{name}"), "the matrix is missing");
        let a = a.ok_or_else(|| missing("lora_a"))?;
        let b = b.ok_or_else(|| missing("lora_b"))?;
        for (name, tensor) in [("lora_a", &a), ("lora_b", &b)] {
            if floats::kind(tensor.dtype).is_none() {
                return Err(invalid(&format!("{module}.{name}"), "the matrix has no numbers"));
            }
        }
        let (shape, kind) = base.shape(&module, &a, &b)?;
        let sum = MergedMatrix { base, a, b, lengths, scale, kind };
        let float = sum.float(&module, &shape)?;
        let name = format!("{module}.weight");
        let work = move || sum.bytes(float).map_err(mlx::failed).and_then(|all| Bytes::of(&all));
        for tensor in ["scales", "biases"] {
            parts.checkpoint.tensors.remove(&format!("{module}.{tensor}"));
        }
        parts.checkpoint.tensors.insert(name, Tensor::made(dtype(float), shape, work));
        packed.extend(form.map(|form| (module, form)));
    }
    match added.into_keys().next() {
        Some(name) => Err(invalid(&name, OTHER)),
        None => Ok(packed),
    }
}

/// Replaces tensors of the model.
fn replace(parts: &mut Parts, adapter: Adapter) -> Result<()> {
    for (name, tensor) in adapter.tensors {
        let old = parts.checkpoint.tensors.get_mut(&name).ok_or_else(|| invalid(&name, OTHER))?;
        if old.shape != tensor.shape {
            let what = format!("{OTHER}: {:?} takes the place of {:?}", tensor.shape, old.shape);
            return Err(invalid(&name, what));
        }
        *old = tensor;
    }
    Ok(())
}

/// Matrix of the model that a low-rank product is added to.
#[derive(Clone)]
struct Base {
    weight: Tensor,
    scales: Option<Tensor>,
    biases: Option<Tensor>,
    form: Option<QuantSpec>,
}

/// Kind of layer, which decides the shapes of the factors.
#[derive(Clone, Copy, PartialEq)]
enum LayerKind {
    /// Linear layer: a is [ins, rank] and b [rank, outs].
    Linear,
    /// Linear layer of all experts: a is [experts, rank, ins] and b [experts, outs, rank].
    Experts,
    /// Embedding: a is [rows, rank] and b [rank, columns].
    Embedding,
}

impl Base {
    /// Shape of the weights, and kind of layer by the shapes of `a` and `b`.
    fn shape(&self, module: &str, a: &Tensor, b: &Tensor) -> Result<(Vec<usize>, LayerKind)> {
        let mut shape = self.weight.shape.clone();
        if let (Some(form), Some(last)) = (self.form, shape.last_mut()) {
            *last = *last * 32 / form.bits;
        }
        let kind = match (&shape[..], &a.shape[..], &b.shape[..]) {
            (&[experts, outs, ins], &[e, rank, i], &[e_b, o, rank_b])
                if (e, rank, i, e_b, o) == (experts, rank_b, ins, experts, outs) =>
            {
                Some(LayerKind::Experts)
            }
            (&[rows, columns], &[r, rank], &[rank_b, c])
                if is_embedding(module) && (r, c) == (rows, columns) && rank == rank_b =>
            {
                Some(LayerKind::Embedding)
            }
            (&[outs, ins], &[i, rank], &[rank_b, o])
                if (i, o) == (ins, outs) && rank == rank_b && !is_embedding(module) =>
            {
                Some(LayerKind::Linear)
            }
            _ => None,
        };
        let refused = || {
            let found = format!("{:?} and {:?} do not fit {shape:?}", a.shape, b.shape);
            invalid(module, format!("{OTHER}: {found}"))
        };
        kind.map(|kind| (shape.clone(), kind)).ok_or_else(refused)
    }

    /// Dequantised weights.
    fn weights(&self) -> mlx_rs::error::Result<Array> {
        let weight = array(&self.weight)?;
        match (self.form, &self.scales) {
            (Some(form), Some(scales)) => {
                let biases = self.biases.as_ref().map(array).transpose()?;
                quantized::dequantize(&weight, &array(scales)?, biases.as_ref(), form)
            }
            _ => Ok(weight),
        }
    }

    /// Float type of the dequantised weights.
    fn float(&self) -> Option<Float> {
        match (self.form, &self.scales) {
            (Some(_), Some(scales)) => floats::kind(scales.dtype).or(Some(Float::BF16)),
            _ => floats::kind(self.weight.dtype),
        }
    }
}

/// Matrix with its low-rank addition.
struct MergedMatrix {
    base: Base,
    a: Tensor,
    b: Tensor,
    /// Magnitudes of rows in DoRA.
    lengths: Option<Tensor>,
    scale: f32,
    kind: LayerKind,
}

impl MergedMatrix {
    /// Float type of the result; float32 if magnitudes are of another type than the weights.
    fn float(&self, module: &str, shape: &[usize]) -> Result<Float> {
        let float =
            self.base.float().ok_or_else(|| invalid(module, "its weights are no numbers"))?;
        let Some(lengths) = &self.lengths else { return Ok(float) };
        if self.kind == LayerKind::Experts || lengths.shape != shape[..1] {
            return Err(invalid(&format!("{module}.m"), format!("{OTHER}: {:?}", lengths.shape)));
        }
        let own = floats::kind(lengths.dtype);
        let own =
            own.ok_or_else(|| invalid(&format!("{module}.m"), "its lengths are no numbers"))?;
        Ok(if own == float { float } else { Float::F32 })
    }

    /// Result as bytes of type `float`.
    fn bytes(&self, float: Float) -> mlx_rs::error::Result<Vec<u8>> {
        let sum = self.compute()?.as_dtype(Dtype::Float32)?;
        let all: Vec<f32> = sum.to_vec_exact().map_err(|e| Exception::custom(e.to_string()))?;
        Ok(floats::narrow(&all, float))
    }

    /// Weights with the addition, in MLX.
    fn compute(&self) -> mlx_rs::error::Result<Array> {
        let weight = self.base.weights()?;
        let (a, b) = (array(&self.a)?, array(&self.b)?);
        let scale = Array::from_f32(self.scale);
        let scaled = |x: &Array| x.multiply(scale.as_dtype(x.dtype())?);
        let delta = match self.kind {
            LayerKind::Linear => scaled(&b.transpose()?)?.matmul(a.transpose()?)?,
            LayerKind::Embedding => scaled(&a)?.matmul(b)?,
            LayerKind::Experts => scaled(&b)?.matmul(a)?,
        };
        let sum = weight.add(delta.as_dtype(weight.dtype())?)?;
        let Some(lengths) = &self.lengths else { return Ok(sum) };
        let own = norm(&sum)?;
        array(lengths)?.divide(own)?.expand_dims(1)?.multiply(sum)
    }
}

/// Euclidean norm of each row, computed as `mx.linalg.norm(x, axis=1)` does.
fn norm(x: &Array) -> mlx_rs::error::Result<Array> {
    x.square()?.sum_axis(1, false)?.sqrt()
}

fn array(tensor: &Tensor) -> mlx_rs::error::Result<Array> {
    tensor.array().map_err(|e| Exception::custom(e.to_string()))
}

fn dtype(float: Float) -> Dtype {
    match float {
        Float::F16 => Dtype::Float16,
        Float::BF16 => Dtype::Bfloat16,
        Float::F32 => Dtype::Float32,
    }
}

fn invalid(name: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, name, message)
}
