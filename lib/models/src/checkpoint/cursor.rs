//! A place in the tree of names, where layers take their tensors.

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

/// The tensors that the matrix of a layer consists of, all with a row for each of its outputs.
const PARTS: [&str; 4] = ["weight", "scales", "biases", "bias"];

/// The types of numbers to compute with.
const FLOATS: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

/// A place in the tree of names, from which tensors are taken by the rest of their names.
pub struct Cursor<'w> {
    weights: &'w mut Weights,
    prefix: String,
}

impl Cursor<'_> {
    /// The place where all names begin.
    pub fn root(weights: &mut Weights) -> Cursor<'_> {
        Cursor { weights, prefix: String::new() }
    }

    /// The place under `name`.
    pub fn at(&mut self, name: &str) -> Cursor<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Cursor { weights: self.weights, prefix }
    }

    /// From now on, what the layers call by the first of two names goes by the second on disk: whole
    /// parts of paths, replaced in this order.
    pub fn rename(&mut self, names: &[(&str, &str)]) {
        let own = |(ours, theirs): &(&str, &str)| ((*ours).to_owned(), (*theirs).to_owned());
        self.weights.names.extend(names.iter().map(own));
    }

    /// Leaves aside all tensors whose names on disk `unwanted` picks, which are of use elsewhere.
    pub fn leave(&mut self, unwanted: impl Fn(&str) -> bool) {
        let left = &mut self.weights.taken.left;
        left.extend(self.weights.tensors.keys().filter(|name| unwanted(name)).cloned());
        self.weights.tensors.retain(|name, _| !left.contains(name));
    }

    /// Leaves aside all tensors whose names on disk `unwanted` picks, which are of no use.
    pub fn discard(&mut self, unwanted: impl Fn(&str) -> bool) {
        let names = self.weights.tensors.keys().filter(|name| unwanted(name)).cloned();
        self.weights.taken.discarded.extend(names);
        self.weights.tensors.retain(|name, _| !unwanted(name));
    }

    /// Makes `parts`, each with its number of outputs, of the layer `name`, in which they lie one
    /// after another `repeats` times over. Errors if it has another number of outputs.
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

    /// Share of every layer that is to be taken, if not all.
    pub fn share(&self) -> Option<Share> {
        match self.weights.form.part {
            Some(Part::Share(share)) => Some(share),
            _ => None,
        }
    }

    /// The layers to be taken, of `count` at `layers.0` and so on; those of others are of no use.
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

    /// Number of elements of a row of the layer `name`, of `ins`, that share a scale.
    pub fn group(&self, name: &str, ins: usize) -> usize {
        let scales = self.form(&format!("{name}.scales")).ok();
        let count = scales.and_then(|(shape, _)| shape.last().copied());
        count.filter(|&count| count > 0).map_or(1, |count| (ins / count).max(1))
    }

    /// Leaves of the tensor `name`, if there is one, only the part `range` of an axis.
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

    /// Leaves of the layer `name` only the outputs `range`, along this axis.
    pub fn keep_rows(&mut self, name: &str, axis: usize, range: Range<usize>) -> Result<()> {
        PARTS
            .into_iter()
            .try_for_each(|part| self.keep(&format!("{name}.{part}"), axis, range.clone()))
    }

    /// Leaves of the layer `name` only the inputs `range` of `ins`, whole groups, and its bias if
    /// `biased`: what it makes then is to be added to what others make.
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

    /// True if what the layer here makes is to be added to what other ranks make; a sketch makes nothing.
    pub fn partial(&self) -> bool {
        !self.weights.form.sketch && self.weights.taken.partial.contains(&self.path(""))
    }

    /// Puts a tensor where it will be taken from.
    pub fn put(&mut self, name: &str, tensor: Tensor) {
        self.weights.tensors.insert(self.path(name), tensor);
    }

    /// Brings the ternary matrix [outs, ins] of the layer `name` into a form of MLX.
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

    /// Takes the tensor `name` of a single floating-point number.
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

    /// Factor of the additions of an adapter, if there is one.
    pub fn adapter_scale(&self) -> Option<f32> {
        self.weights.adapter_scale
    }

    /// Notes that this place is that of a matrix, and how it is packed if it is.
    pub fn matrix(&mut self, form: Option<QuantSpec>) {
        let name = self.path("");
        let name = self.weights.wholes.get(&name).cloned().unwrap_or(name);
        self.weights.taken.matrices.insert(name, form);
    }

    /// Operations of the device.
    pub fn ops(&self) -> &'static dyn Ops {
        self.weights.form.ops
    }

    /// True if there is a tensor `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&self.path(name))
    }

    /// True if there is the optional tensor `name` here. All layers must agree on that.
    pub fn offers(&mut self, name: &str) -> bool {
        let (path, there) = (self.path(name), self.has(name));
        let number = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
        let everywhere = path.split('.').filter(number).collect::<Vec<_>>().join(".");
        let seen = self.weights.optional.entry(everywhere).or_default();
        seen[usize::from(!there)].get_or_insert(path);
        there
    }

    /// Quantisation of the matrix of this place, as config.json says, else as its tensors show; `None`
    /// if it is dense.
    pub fn quantized(&self) -> Option<Entry> {
        match self.weights.quantization.of(self.path("").trim_end_matches('.')) {
            Some(Entry::Dense) => None,
            Some(entry) => Some(entry),
            None => self.has("scales").then(|| Entry::Quantized(Stated::default())),
        }
    }

    /// The shape and type of the tensor `name`. Errors if there is none.
    pub fn form(&self, name: &str) -> Result<(Vec<usize>, Dtype)> {
        let path = self.path(name);
        let tensor = self.weights.tensors.get(&path).ok_or_else(|| missing(&path))?;
        Ok((tensor.shape.clone(), tensor.dtype))
    }

    /// Takes the tensor `name`, whatever it is. Errors if there is none.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        let path = self.path(name);
        self.weights.tensors.remove(&path).ok_or_else(|| missing(&path))
    }

    /// Takes the floating-point tensor `name` of this very `shape`, as an array to compute with.
    pub fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let array = self.stored(name, shape)?;
        self.widened(array)
    }

    /// Takes the floating-point tensor `name` of this very `shape`, as an array of the type that it has
    /// on disk.
    pub fn stored(&mut self, name: &str, shape: &[usize]) -> Result<Array> {
        let tensor = self.take(name)?;
        self.expect(name, &tensor, &FLOATS, shape)?;
        self.array(&tensor)
    }

    /// A floating-point array of a type that MLX is fast with on the device.
    pub fn widened(&self, array: Array) -> Result<Array> {
        array.as_dtype(self.computed(array.dtype())).map_err(mlx::failed)
    }

    /// Type in which layers compute with weights that are stored as `dtype`, a type of floats.
    pub fn computed(&self, dtype: Dtype) -> Dtype {
        if self.weights.form.widen { Dtype::Float32 } else { dtype }
    }

    /// A tensor as an array; in a sketch one that is never filled. Errors if there are no elements.
    pub fn array(&mut self, tensor: &Tensor) -> Result<Array> {
        self.weights.taken.bytes += tensor.size() as u64;
        if !self.weights.form.sketch {
            return tensor.array();
        }
        let shape: Vec<i32> = tensor.shape.iter().map(|&n| n as i32).collect();
        ops::zeros_dtype(&shape, tensor.dtype).map_err(mlx::failed)
    }

    /// Takes the tensor `name` as [`floats`](Self::floats) does if there is one.
    pub fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Array>> {
        self.offers(name).then(|| self.floats(name, shape)).transpose()
    }

    /// Errors unless `tensor`, taken as `name`, is of one of these types and of this shape.
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

    /// An error about the tensor `name`.
    pub fn invalid(&self, name: &str, message: String) -> Error {
        invalid(&self.path(name), message)
    }

    /// Name of the tensor `name` on disk.
    fn path(&self, name: &str) -> String {
        let ours = format!(".{}{name}.", self.prefix);
        let theirs = self.weights.names.iter().fold(ours, |path, (ours, theirs)| {
            let theirs = if theirs.is_empty() { ".".to_owned() } else { format!(".{theirs}.") };
            path.replace(&format!(".{ours}."), &theirs)
        });
        theirs.trim_matches('.').to_owned()
    }
}

fn one_of(dtypes: &[Dtype]) -> String {
    dtypes.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ")
}
