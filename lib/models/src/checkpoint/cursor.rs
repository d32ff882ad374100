//! Cursor: a place in the tree of tensor names, from which layers take their tensors.

use std::ops::Range;

use mlx_rs::{Array, Dtype, ops};
use mlxk_core::quantization::QuantSpec;
use mlxk_core::{Error, Result};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::{floats, mlx};

use super::part::{Part, Share};
use super::quantization::{Entry, Stated};
use super::reshape;
use super::tensor::Tensor;
use super::weights::{Weights, invalid, missing};

/// Tensors of a linear layer, each with a row for each output.
const PARTS: [&str; 4] = ["weight", "scales", "biases", "bias"];

/// Floating-point types that layers compute with.
const FLOATS: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

/// Place in the tree of names; tensors are taken by the rest of their names.
pub struct Cursor<'w> {
    weights: &'w mut Weights,
    prefix: String,
}

impl Cursor<'_> {
    /// Root of the tree.
    pub fn root(weights: &mut Weights) -> Cursor<'_> {
        Cursor { weights, prefix: String::new() }
    }

    /// Place `name` below this one.
    pub fn at(&mut self, name: &str) -> Cursor<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Cursor { weights: self.weights, prefix }
    }

    /// Maps names of layers to names on disk, from now on: whole path components, replaced in this
    /// order.
    pub fn rename(&mut self, names: &[(&str, &str)]) {
        let own = |(ours, theirs): &(&str, &str)| ((*ours).to_owned(), (*theirs).to_owned());
        self.weights.names.extend(names.iter().map(own));
    }

    /// Leaves the tensors whose names on disk `unwanted` picks, for other uses.
    pub fn leave(&mut self, unwanted: impl Fn(&str) -> bool) {
        let left = &mut self.weights.taken.left;
        left.extend(self.weights.tensors.keys().filter(|name| unwanted(name)).cloned());
        self.weights.tensors.retain(|name, _| !left.contains(name));
    }

    /// Discards the tensors whose names on disk `unwanted` picks, which have no use.
    pub fn discard(&mut self, unwanted: impl Fn(&str) -> bool) {
        let names = self.weights.tensors.keys().filter(|name| unwanted(name)).cloned();
        self.weights.taken.discarded.extend(names);
        self.weights.tensors.retain(|name, _| !unwanted(name));
    }

    /// Splits the fused layer `name` into `parts`, each with its number of outputs, which lie one
    /// after another `repeats` times. Errors if the layer has another number of outputs.
    pub fn split(&mut self, name: &str, repeats: usize, parts: &[(&str, usize)]) -> Result<()> {
        let outs: usize = parts.iter().map(|(_, rows)| rows).sum();
        let uneven = parts.iter().any(|(_, rows)| !rows.is_multiple_of(repeats));
        for tensor in PARTS {
            let fused = format!("{name}.{tensor}");
            if tensor != "weight" && !self.has(&fused) {
                continue;
            }
            let all = self.take(&fused)?;
            if all.shape.first() != Some(&outs) || uneven {
                let message = format!("expected {outs} rows, found shape {:?}", all.shape);
                return Err(self.invalid(&fused, message));
            }
            let mut first = 0;
            for &(part, rows) in parts {
                let range = first..first + rows / repeats;
                first = range.end;
                self.put(&format!("{part}.{tensor}"), reshape::rows(&all, repeats, range));
            }
        }
        for (part, _) in parts {
            let (part, whole) = (self.path(part), self.path(name));
            self.weights.quantization.alias(part.clone(), &whole);
            self.weights.wholes.insert(part, whole);
        }
        Ok(())
    }

    /// Share of every layer to take; `None` if layers are taken whole.
    pub fn share(&self) -> Option<Share> {
        match self.weights.form.part {
            Some(Part::Share(share)) => Some(share),
            _ => None,
        }
    }

    /// Layers to take, of `count` layers `layers.0` and following; those of other ranks are
    /// discarded.
    pub fn stage(&mut self, count: usize) -> Range<usize> {
        self.weights.taken.layers = Some(count);
        let Some(Part::Stage(stage)) = self.weights.form.part else { return 0..count };
        let own = stage.first.min(count)..stage.end.min(count);
        for layer in (0..count).filter(|layer| !own.contains(layer)) {
            let place = format!("{}.", self.path(&format!("layers.{layer}")));
            self.discard(|name| name.starts_with(&place));
        }
        own
    }

    /// Elements of a row of layer `name`, of `ins`, that share a scale; 1 if the layer is dense.
    pub fn group(&self, name: &str, ins: usize) -> usize {
        let scales = self.form(&format!("{name}.scales")).ok();
        let count = scales.and_then(|(shape, _)| shape.last().copied());
        count.filter(|&count| count > 0).map_or(1, |count| (ins / count).max(1))
    }

    /// Cuts the tensor `name`, if it exists, to `range` of an axis.
    pub fn keep(&mut self, name: &str, axis: usize, range: Range<usize>) -> Result<()> {
        if !self.has(name) {
            return Ok(());
        }
        let tensor = self.take(name)?;
        if tensor.shape.get(axis).is_none_or(|&length| length < range.end) {
            let message = format!("found shape {:?}, which has no {range:?}", tensor.shape);
            return Err(self.invalid(name, message));
        }
        self.put(name, reshape::part(&tensor, axis, range));
        Ok(())
    }

    /// Cuts the layer `name` to the outputs `range`, along this axis.
    pub fn keep_rows(&mut self, name: &str, axis: usize, range: Range<usize>) -> Result<()> {
        PARTS
            .into_iter()
            .try_for_each(|part| self.keep(&format!("{name}.{part}"), axis, range.clone()))
    }

    /// Cuts the layer `name` to the inputs `range` of `ins`, which must be whole groups, and drops
    /// its bias unless `biased`. Outputs of the layer are partial sums then.
    pub fn keep_columns(
        &mut self,
        name: &str,
        ins: usize,
        range: Range<usize>,
        biased: bool,
    ) -> Result<()> {
        for part in ["weight", "scales", "biases"] {
            let part = format!("{name}.{part}");
            let Ok((shape, _)) = self.form(&part) else { continue };
            let length = shape.last().copied().unwrap_or_default();
            let own = range.start * length / ins..range.end * length / ins;
            self.keep(&part, shape.len().saturating_sub(1), own)?;
        }
        if !biased && self.has(&format!("{name}.bias")) {
            self.take(&format!("{name}.bias"))?;
        }
        let path = self.at(name).path("");
        self.weights.taken.partial.insert(path);
        Ok(())
    }

    /// True if the outputs of this layer are to be summed over ranks; a sketch has none to sum.
    pub fn partial(&self) -> bool {
        !self.weights.form.sketch && self.weights.taken.partial.contains(&self.path(""))
    }

    /// Inserts a tensor, to be taken later.
    pub fn put(&mut self, name: &str, tensor: Tensor) {
        self.weights.tensors.insert(self.path(name), tensor);
    }

    /// Converts the ternary matrix [outs, ins] of the layer `name` to MLX's affine quantisation.
    pub fn unpack_ternary(&mut self, name: &str, outs: usize, ins: usize) -> Result<()> {
        let of = |tensor: &str| format!("{name}.{tensor}");
        let packed = self.take(&of("weight"))?;
        let scale = self.take(&of("weight_scale"))?;
        self.expect(&of("weight"), &packed, &[Dtype::Uint8], &[outs.div_ceil(4), ins])?;
        self.expect(&of("weight_scale"), &scale, &FLOATS, &[1])?;
        let Some(group) = [128, 64, 32].into_iter().find(|&size| ins.is_multiple_of(size)) else {
            let message = format!("{ins} ternary weights in a row are no multiple of 32");
            return Err(self.invalid(&of("weight"), message));
        };
        let tensors = reshape::ternary(packed, &scale, group);
        for (name, tensor) in ["weight", "scales", "biases"].into_iter().zip(tensors) {
            let path = self.path(&of(name));
            self.weights.tensors.insert(path, tensor);
        }
        Ok(())
    }

    /// Takes the floating-point tensor `name`, which has one element.
    pub fn number(&mut self, name: &str) -> Result<f32> {
        let (shape, _) = self.form(name)?;
        if shape.iter().any(|&n| n != 1) {
            return Err(self.invalid(name, format!("expected one number, found shape {shape:?}")));
        }
        let tensor = self.take(name)?;
        self.expect(name, &tensor, &FLOATS, &shape)?;
        let Some(float) = floats::kind(tensor.dtype) else { return Ok(f32::NAN) };
        tensor.read(|bytes| floats::widen(bytes, float)[0])
    }

    /// Factor of an adapter's additions, if there is one.
    pub fn adapter_scale(&self) -> Option<f32> {
        self.weights.adapter_scale
    }

    /// Records this place as a matrix, with its quantisation if it is quantised.
    pub fn matrix(&mut self, form: Option<QuantSpec>) {
        let name = self.path("");
        let name = self.weights.wholes.get(&name).cloned().unwrap_or(name);
        self.weights.taken.matrices.insert(name, form);
    }

    /// Backend of the layers.
    pub fn ops(&self) -> &'static dyn Ops {
        self.weights.form.ops
    }

    /// True if the tensor `name` exists here.
    pub fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&self.path(name))
    }

    /// True if tensors exist below `name`.
    pub fn holds(&self, name: &str) -> bool {
        let place = format!("{}.", self.path(name));
        self.weights.tensors.keys().any(|name| name.starts_with(&place))
    }

    /// True if the optional tensor `name` exists here. All layers must agree on that, which
    /// [`Weights::finish`] checks.
    pub fn offers(&mut self, name: &str) -> bool {
        let (path, there) = (self.path(name), self.has(name));
        let number = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
        let everywhere = path.split('.').filter(number).collect::<Vec<_>>().join(".");
        let seen = self.weights.optional.entry(everywhere).or_default();
        seen[usize::from(!there)].get_or_insert(path);
        there
    }

    /// Quantisation entry of the matrix here: as config.json states, or else as its tensors imply;
    /// `None` if it is dense.
    pub fn quantized(&self) -> Option<Entry> {
        match self.weights.quantization.of(self.path("").trim_end_matches('.')) {
            Some(Entry::Dense) => None,
            Some(entry) => Some(entry),
            None => self.has("scales").then(|| Entry::Quantized(Stated::default())),
        }
    }

    /// Shape and type of the tensor `name`. Errors if it does not exist.
    pub fn form(&self, name: &str) -> Result<(Vec<usize>, Dtype)> {
        let path = self.path(name);
        let tensor = self.weights.tensors.get(&path).ok_or_else(|| missing(&path))?;
        Ok((tensor.shape.clone(), tensor.dtype))
    }

    /// Takes the tensor `name`. Errors if it does not exist.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        let path = self.path(name);
        self.weights.tensors.remove(&path).ok_or_else(|| missing(&path))
    }

    /// Takes the floating-point tensor `name` of this `shape`, as an array to compute with.
    pub fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let array = self.stored(name, shape)?;
        self.widened(array)
    }

    /// Takes the floating-point tensor `name` of this `shape` in its type on disk, for operations
    /// that accept every type.
    pub fn stored(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let tensor = self.take(name)?;
        self.expect(name, &tensor, &FLOATS, shape)?;
        self.array(&tensor)
    }

    /// Converts a floating-point array to the type that MLX is fast with on the device.
    pub fn widened(&self, array: Array) -> Result<Array> {
        array.as_dtype(self.computed(array.dtype())).map_err(mlx::failed)
    }

    /// Type in which layers compute with weights that are stored as `dtype`, a type of floats.
    pub fn computed(&self, dtype: Dtype) -> Dtype {
        if self.weights.form.widen { Dtype::Float32 } else { dtype }
    }

    /// Converts a tensor to an array; in a sketch to one that is never filled. Errors if the
    /// elements cannot be made.
    pub fn array(&mut self, tensor: &Tensor) -> Result<Array> {
        self.weights.taken.bytes += tensor.size() as u64;
        if !self.weights.form.sketch {
            return tensor.array();
        }
        let shape: Vec<i32> = tensor.shape.iter().map(|&n| n as i32).collect();
        ops::zeros_dtype(&shape, tensor.dtype).map_err(mlx::failed)
    }

    /// Takes the tensor `name` as [`floats`](Self::floats) does, if it exists.
    pub fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Array>> {
        self.offers(name).then(|| self.floats(name, shape)).transpose()
    }

    /// Errors unless `tensor`, taken as `name`, has one of these types and this shape.
    pub fn expect(
        &self,
        name: &str,
        tensor: &Tensor,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> Result<()> {
        if !dtypes.contains(&tensor.dtype) {
            let message = format!("expected {}, found {:?}", one_of(dtypes), tensor.dtype);
            return Err(self.invalid(name, message));
        }
        if tensor.shape != shape {
            let message = format!("expected shape {shape:?}, found {:?}", tensor.shape);
            return Err(self.invalid(name, message));
        }
        Ok(())
    }

    /// Error about the tensor `name`.
    pub fn invalid(&self, name: &str, message: String) -> Error {
        invalid(&self.path(name), message)
    }

    /// Name on disk of the tensor `name`.
    fn path(&self, name: &str) -> String {
        let ours = format!(".{}{name}.", self.prefix);
        let theirs = self.weights.names.iter().fold(ours, |path, (ours, theirs)| {
            let theirs = if theirs.is_empty() { ".".to_owned() } else { format!(".{theirs}.") };
            path.replace(&format!(".{ours}."), &theirs)
        });
        theirs.trim_matches('.').to_owned()
    }
}

/// Names of types, joined by "or".
fn one_of(dtypes: &[Dtype]) -> String {
    dtypes.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ")
}
