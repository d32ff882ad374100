//! The tensors of a checkpoint, each handed out once: what nobody asked for is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{MmapMut, UncheckedAdvice};
use mlx_rs::{Array, Dtype};
use mlxk_core::packing;
use mlxk_core::{Error, Kind, Result};

use crate::adapter::Adapter;
use crate::kernels::Kernels;
use crate::mlx;
use crate::quantization::{Entry, Quantization, Stated};
use crate::reshape;

/// All tensors that are still to be taken.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    quantization: Quantization,
    form: Form,
    /// What the additions of an adapter are multiplied with, if there is one.
    adapter_scale: Option<f32>,
    /// Parts of names as the layers have them, and as the checkpoint does.
    names: Vec<(String, String)>,
    /// The optional tensors that were asked for, numbers of layers left out: one that there is, and
    /// one that there is not.
    optional: BTreeMap<String, [Option<String>; 2]>,
    taken: Taken,
    /// What the parts of a matrix that was split are parts of.
    wholes: BTreeMap<String, String>,
}

/// What a model made of its tensors.
#[derive(Default)]
pub struct Taken {
    /// The names of its matrices, and how those are packed that are.
    pub matrices: BTreeMap<String, Option<packing::Form>>,
    /// The names of the tensors that it left aside.
    pub left: BTreeSet<String>,
}

/// The tensors that the matrix of a layer consists of, all with a row for each of its outputs.
const PARTS: [&str; 4] = ["weight", "scales", "biases", "bias"];

/// What is wrong with a tensor that nobody asked for.
const UNUSED: &str = "the model has no use for this tensor";
/// The same if it is one of an adapter.
const OTHER: &str = "the adapter is for another model";

/// The types of numbers to compute with.
const FLOATS: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

/// What the layers are made for.
#[derive(Clone, Copy)]
pub struct Form {
    /// How they do their steps.
    pub kernels: &'static Kernels,
    /// Whether to widen 16-bit floats, which CPUs are slow to compute with.
    pub widen: bool,
}

/// A tensor in a mapped file.
#[derive(Clone)]
pub struct Tensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements, row-major and little-endian, as many as the shape says.
    pub bytes: Bytes,
}

/// A part of a file mapped privately: writes, should there be any, reach no file.
#[derive(Clone)]
pub struct Bytes {
    /// The file.
    pub file: Arc<MmapMut>,
    /// Where in the file, within its length.
    pub range: Range<usize>,
}

/// A place in the tree of names, from which tensors are taken by the rest of their names.
pub struct Cursor<'w> {
    weights: &'w mut Weights,
    prefix: String,
}

impl Weights {
    /// The tensors of a model and what its config.json says about their quantisation.
    ///
    /// Tables of rotary frequencies, which some old checkpoints carry, are left out: they are
    /// computed here.
    pub fn new(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        quantization: Quantization,
        form: Form,
    ) -> Weights {
        let wanted = |(name, _): &(String, Tensor)| !name.ends_with("rotary_emb.inv_freq");
        let tensors = tensors.into_iter().filter(wanted).collect();
        Weights {
            tensors,
            quantization,
            form,
            adapter_scale: None,
            names: Vec::new(),
            optional: BTreeMap::new(),
            taken: Taken::default(),
            wholes: BTreeMap::new(),
        }
    }

    /// Adds the tensors of an adapter, or puts them in the place of the model's. Errors if there
    /// are no such tensors to replace.
    pub fn adapt(&mut self, adapter: Adapter) -> Result<()> {
        self.adapter_scale = adapter.scale;
        for (name, tensor) in adapter.tensors {
            let shape = self.tensors.get(&name).map(|old| old.shape.clone());
            if adapter.scale.is_none() && shape.as_ref() != Some(&tensor.shape) {
                let found = shape.map_or("none".to_owned(), |shape| format!("{shape:?}"));
                let message = format!("{OTHER}: {:?} takes the place of {found}", tensor.shape);
                return Err(invalid(&name, message));
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// Where all names begin.
    pub fn root(&mut self) -> Cursor<'_> {
        Cursor { weights: self, prefix: String::new() }
    }

    /// Says that the model is complete; returns what it made of the tensors. Errors if some are there
    /// that it neither took nor left aside, or if some layers have an optional tensor and others do
    /// not.
    pub fn finish(self) -> Result<Taken> {
        let uneven = |[there, absent]: &[Option<String>; 2]| there.clone().zip(absent.clone());
        if let Some((there, absent)) = self.optional.values().find_map(uneven) {
            return Err(invalid(&absent, format!("the tensor is missing; there is {there}")));
        }
        let Some(first) = self.tensors.keys().next() else {
            return Ok(self.taken);
        };
        let more = match self.tensors.len() {
            1 => String::new(),
            n => format!(" (and {} more: {})", n - 1, some(self.tensors.keys().skip(1))),
        };
        let added = [".lora_a", ".lora_b", ".m"].iter().any(|end| first.ends_with(end));
        let why = if added && self.adapter_scale.is_some() { OTHER } else { UNUSED };
        Err(invalid(first, format!("{why}{more}")))
    }
}

impl Cursor<'_> {
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

    /// Leaves aside all tensors whose names on disk `unwanted` picks.
    pub fn leave(&mut self, unwanted: impl Fn(&str) -> bool) {
        let left = &mut self.weights.taken.left;
        left.extend(self.weights.tensors.keys().filter(|name| unwanted(name)).cloned());
        self.weights.tensors.retain(|name, _| !left.contains(name));
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
                self.put(&format!("{part}.{tensor}"), reshape::rows(&all, repeats, range)?);
            }
        }
        for (part, _) in parts {
            let (part, whole) = (self.path(part), self.path(name));
            self.weights.quantization.alias(part.clone(), &whole);
            self.weights.wholes.insert(part, whole);
        }
        Ok(())
    }

    /// Makes the layer `name` of `count` layers that each lack its first axis. Errors if they differ.
    pub fn stack(
        &mut self,
        name: &str,
        count: usize,
        part: impl Fn(usize) -> String,
    ) -> Result<()> {
        for tensor in PARTS {
            if !self.has(&format!("{}.{tensor}", part(0))) {
                continue;
            }
            let mut parts: Vec<Tensor> = Vec::new();
            for n in 0..count {
                let path = format!("{}.{tensor}", part(n));
                let next = self.take(&path)?;
                let first = parts.first().unwrap_or(&next);
                self.expect(&path, &next, &[first.dtype], &first.shape)?;
                parts.push(next);
            }
            self.put(&format!("{name}.{tensor}"), reshape::stacked(&parts)?);
        }
        let (whole, first) = (self.path(name), self.path(&part(0)));
        self.weights.quantization.alias(whole, &first);
        Ok(())
    }

    /// Puts a tensor where it will be taken from.
    pub fn put(&mut self, name: &str, tensor: Tensor) {
        self.weights.tensors.insert(self.path(name), tensor);
    }

    /// Transposes the matrix `name`. Errors if it is none.
    pub fn transpose(&mut self, name: &str) -> Result<()> {
        let turned = reshape::transposed(&self.take(name)?);
        self.put(name, turned.map_err(|e| e.about(self.path(name)))?);
        Ok(())
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
        let tensors = reshape::ternary(&packed, &scale, group)?;
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
        let number = self.floats(name, &shape)?.reshape(&[]).map_err(mlx::failed)?;
        let number = number.as_dtype(Dtype::Float32).map_err(mlx::failed)?;
        number.try_item_exact().map_err(|e| mlx::failed(e.to_string().as_str().into()))
    }

    /// What the additions of an adapter are multiplied with, if there is one.
    pub fn adapter_scale(&self) -> Option<f32> {
        self.weights.adapter_scale
    }

    /// Notes that this place is that of a matrix, and how it is packed if it is.
    pub fn matrix(&mut self, form: Option<packing::Form>) {
        let name = self.path("");
        let name = self.weights.wholes.get(&name).cloned().unwrap_or(name);
        self.weights.taken.matrices.insert(name, form);
    }

    /// How the layers do their steps.
    pub fn kernels(&self) -> &'static Kernels {
        self.weights.form.kernels
    }

    /// Whether there is a tensor `name` here.
    pub fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&self.path(name))
    }

    /// Whether there is the optional tensor `name` here. All layers must agree on that.
    pub fn offers(&mut self, name: &str) -> bool {
        let (path, there) = (self.path(name), self.has(name));
        let number = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
        let everywhere = path.split('.').filter(number).collect::<Vec<_>>().join(".");
        let seen = self.weights.optional.entry(everywhere).or_default();
        seen[usize::from(!there)].get_or_insert(path);
        there
    }

    /// Whether the matrix of this place is quantised: as config.json says, else as its tensors show.
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
        let tensor = self.take(name)?;
        self.expect(name, &tensor, &FLOATS, shape)?;
        if self.weights.form.widen {
            return tensor.array().as_dtype(Dtype::Float32).map_err(mlx::failed);
        }
        Ok(tensor.array())
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

    /// Where on disk the tensor `name` is.
    fn path(&self, name: &str) -> String {
        let ours = format!(".{}{name}.", self.prefix);
        let theirs = self.weights.names.iter().fold(ours, |path, (ours, theirs)| {
            let theirs = if theirs.is_empty() { ".".to_owned() } else { format!(".{theirs}.") };
            path.replace(&format!(".{ours}."), &theirs)
        });
        theirs.trim_matches('.').to_owned()
    }
}

impl Tensor {
    /// The tensor as an array of its own type, over the mapped file if its place there is aligned.
    pub fn array(&self) -> Array {
        let shape: Vec<i32> = self.shape.iter().map(|&n| n as i32).collect();
        let data = self.bytes.as_slice().as_ptr();
        if data.align_offset(8) == 0 {
            // SAFETY: the range holds the tensor, and no element is larger than 8 bytes.
            unsafe { mlx::over(self.bytes.clone(), &shape, self.dtype) }
        } else {
            // SAFETY: the range holds the tensor; it is copied here.
            unsafe { Array::from_raw_data(data.cast(), &shape, self.dtype) }
        }
    }
}

impl Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }

    /// Gives `size` bytes at a time to `read`; what was read leaves memory, and should not be read
    /// again.
    pub fn consume(&self, size: usize, mut read: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut start = self.range.start;
        while start < self.range.end {
            let end = self.range.end.min(start + size);
            read(&self.file[start..end])?;
            // SAFETY: nobody writes to the map, so that what is forgotten is what the file holds; of
            // memory without a file these bytes are forgotten for good, as is said above. That it
            // may fail to leave memory does no harm.
            let _ = unsafe {
                self.file.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start)
            };
            start = end;
        }
        Ok(())
    }
}

// SAFETY: the mapping lives and stays where it is while one `Arc` holds it, and is private and
// writable. No two tensors share bytes, so a buffer that MLX reuses is nobody else's.
unsafe impl mlx::Memory for Bytes {
    fn address(&self) -> *mut c_void {
        self.as_slice().as_ptr().cast_mut().cast()
    }
}

fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

fn missing(tensor: &str) -> Error {
    invalid(tensor, "the tensor is missing")
}

fn one_of(dtypes: &[Dtype]) -> String {
    dtypes.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ")
}

fn some<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
}
