//! Mapping of the file's tensors to the tensors of an MLX model, with their types and quantization.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use mlxk_core::Float;
use mlxk_core::tensors::{Dtype, Entry};
use serde_json::{Value, json};

use crate::affine::{self, Component, GROUP};
use crate::architecture::{Architecture, Elementwise, Place, Reshape, Transform};
use crate::assembly::{Assembly, Form, Piece};
use crate::dtype::Type;
use crate::model::Model;
use crate::read::{Gguf, Tensor};

/// Suffixes of tensors that stay f32, because many small numbers are added to them.
const F32_SUFFIXES: [&str; 3] = ["A_log", "expert_bias", "e_score_correction_bias"];

/// Tensors of the MLX model to write.
#[derive(Debug)]
pub struct Weights<'a> {
    /// Tensors in the order in which they are written.
    pub entries: Vec<Entry>,
    /// Type of vectors, and of matrices that are neither kept nor quantized.
    pub float: Float,
    assemblies: HashMap<String, Assembly<'a>>,
    /// Quantization of each quantized module.
    modes: BTreeMap<String, Mode>,
    quantized: Quantized,
}

/// Treatment of matrices whose GGUF quantization MLX has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantized {
    /// Repack them without loss.
    Keep,
    /// Convert them to floats.
    Dequantize,
}

/// Quantization in MLX: bits per weight, and the name of the mode.
type Mode = (usize, &'static str);

/// MLX tensor that is put together from parts.
struct Target<'a> {
    transform: Transform,
    pieces: BTreeMap<usize, Piece<'a>>,
    shape: Vec<usize>,
}

/// MLX tensor, or a part of one, that lies in a tensor of the file.
struct Found<'a> {
    name: String,
    piece: Piece<'a>,
    shape: Vec<usize>,
}

impl<'a> Weights<'a> {
    /// Maps every tensor of the file to MLX; `dtype` is the type of floats, by default that of the
    /// file.
    ///
    /// # Errors
    /// A phrase, if a tensor is unknown, missing, or cannot be converted.
    pub fn plan(
        gguf: &Gguf<'a>,
        architecture: &Architecture,
        model: &Model,
        dtype: Option<Float>,
        quantized: Quantized,
    ) -> Result<Self, String> {
        let mut weights = Weights {
            entries: Vec::new(),
            float: dtype.unwrap_or_else(|| default_float(gguf)),
            assemblies: HashMap::new(),
            modes: BTreeMap::new(),
            quantized,
        };
        for (name, target) in targets(gguf, architecture, model)? {
            weights.add(&name, target, model).map_err(|what| format!("{name}: {what}"))?;
        }
        let float = weights.float;
        for (name, scalar) in (architecture.scalars)(model)? {
            weights.put(&name, float.dtype(), Vec::new(), Assembly::scalar(scalar, float));
        }
        Ok(weights)
    }

    fn add(&mut self, name: &str, target: Target<'a>, model: &Model) -> Result<(), String> {
        let Target { transform, pieces, shape } = target;
        if let Some(absent) = (0..pieces.len()).find(|part| !pieces.contains_key(part)) {
            return Err(format!("part {absent} of it is missing"));
        }
        let pieces: Vec<_> = pieces.into_values().collect();
        let mut assembly = Assembly::new(pieces, transform.map)?;
        if let Some(order) = transform.merged {
            assembly.merged = Some(order(model, assembly.rows())?);
        }
        if let Some(order) = transform.columns {
            assembly.columns = Some(order(model, assembly.width())?);
        }
        let shape = match assembly.pieces.len() {
            1 => shape,
            _ if shape.len() == 1 => vec![assembly.rows()],
            _ => vec![assembly.rows(), assembly.width()],
        };
        let dtype = assembly.dtype();
        let matrix =
            shape.len() > 1 && transform.shape == Reshape::Keep && name.ends_with(".weight");
        let unchanged = transform.map == Elementwise::Identity && !transform.transposed;
        match dtype.filter(|_| matrix && unchanged) {
            Some(dtype) if self.keeps(dtype) => {
                let float = float_of(dtype).unwrap_or(self.float);
                self.put(name, float.dtype(), shape, assembly.with_form(Form::Copied));
            }
            Some(dtype) if self.repacks(dtype) && assembly.keeps_blocks(dtype) => {
                self.repack(name, dtype, &shape, &assembly);
            }
            _ if shape.len() == 1 && assembly.is_quantized() => {
                return Err("a vector is packed".into());
            }
            _ => {
                let is_f32 = F32_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
                let float = if is_f32 { Float::F32 } else { self.float };
                self.put(
                    name,
                    float.dtype(),
                    transform.shape.apply(&shape),
                    assembly.with_form(Form::Cast(float)),
                );
            }
        }
        Ok(())
    }

    /// True if matrices of this float type are kept: f32 only if it is the type of floats.
    fn keeps(&self, dtype: Type) -> bool {
        float_of(dtype).is_some_and(|float| float == self.float || float != Float::F32)
    }

    /// True if matrices of this type are repacked without loss.
    fn repacks(&self, dtype: Type) -> bool {
        self.quantized == Quantized::Keep && mode(dtype).is_some()
    }

    /// Adds the codes, scales and biases of a quantized matrix.
    fn repack(&mut self, name: &str, dtype: Type, shape: &[usize], assembly: &Assembly<'a>) {
        let Some((mode, module)) = mode(dtype).zip(name.strip_suffix(".weight")) else { return };
        let (columns, outs) = shape.split_last().map_or((0, &[][..]), |(last, outs)| (*last, outs));
        let shape = |last: usize| [outs, &[last]].concat();
        let [codes, groups] = [shape(columns * mode.0 / 32), shape(columns / GROUP)];
        let scale = if mode.1 == "affine" { Dtype::F16 } else { Dtype::U8 };
        let mut put = |field: &str, dtype, shape, component| {
            self.put(
                &format!("{module}.{field}"),
                dtype,
                shape,
                assembly.clone().with_form(Form::Packed(component)),
            );
        };
        put("weight", Dtype::U32, codes, Component::Codes);
        put("scales", scale, groups.clone(), Component::Scales);
        if mode.1 == "affine" {
            put("biases", scale, groups, Component::Biases);
        }
        self.modes.insert(module.to_owned(), mode);
    }

    fn put(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>, assembly: Assembly<'a>) {
        self.assemblies.insert(name.to_owned(), assembly);
        self.entries.push(Entry { name: name.to_owned(), dtype, shape });
    }

    /// The `quantization` of config.json: the most common mode, and modules with another; `None` if
    /// no matrix is quantized.
    pub fn quantization(&self) -> Option<Value> {
        let mut counts: BTreeMap<Mode, usize> = BTreeMap::new();
        self.modes.values().for_each(|mode| *counts.entry(*mode).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count)?.0;
        let fields = |mode: Mode| json!({ "group_size": GROUP, "bits": mode.0, "mode": mode.1 });
        let mut table = fields(most);
        for (module, other) in self.modes.iter().filter(|(_, other)| **other != most) {
            table[module] = fields(*other);
        }
        Some(table)
    }

    /// Ranges of an entry's rows that need little memory each.
    pub fn chunks(&self, entry: &Entry) -> impl Iterator<Item = Range<usize>> {
        self.assemblies[&entry.name].chunks()
    }

    /// Bytes of one of the ranges of [`chunks`](Self::chunks); an error if a number does not fit
    /// its type.
    pub fn bytes(&self, entry: &Entry, rows: Range<usize>) -> Result<Cow<'a, [u8]>, String> {
        let assembly = &self.assemblies[&entry.name];
        assembly.bytes(rows).map_err(|what| format!("tensor {:?}: {what}", assembly.name()))
    }
}

/// MLX tensors in the order of the file, with their sources.
fn targets<'a>(
    gguf: &Gguf<'a>,
    architecture: &Architecture,
    model: &Model,
) -> Result<Vec<(String, Target<'a>)>, String> {
    let mut targets: Vec<(String, Target<'a>)> = Vec::new();
    let mut indices: HashMap<String, usize> = HashMap::new();
    for tensor in &gguf.tensors {
        let place = architecture.place(tensor.name, model.layers, model.mtp_layers);
        let (names, transform) = match place {
            Some(Place::Tensors(names, transform)) => (names, transform),
            Some(Place::Dropped) => continue,
            None => return Err(unknown(tensor, architecture, model)),
        };
        let at = |what: String| format!("tensor {:?}: {what}", tensor.name);
        for Found { name, piece, shape } in split(tensor, names, transform, model).map_err(at)? {
            let index = *indices.entry(name.clone()).or_insert(targets.len());
            if index == targets.len() {
                targets.push((name, Target { transform, pieces: BTreeMap::new(), shape }));
            }
            let target = &mut targets[index].1;
            if transform.merged.is_some() {
                target.transform = transform;
            }
            if target.pieces.insert(transform.part.unwrap_or(0), piece).is_some() {
                return Err(at("another tensor has its place".into()));
            }
        }
    }
    Ok(targets)
}

fn unknown(tensor: &Tensor, architecture: &Architecture, model: &Model) -> String {
    format!(
        "tensor {:?} has no place in a model of {} layers of the architecture {:?}",
        tensor.name, model.layers, architecture.gguf
    )
}

/// MLX tensors of the given names that lie in a tensor of the file.
fn split<'a>(
    tensor: &Tensor<'a>,
    names: Vec<String>,
    transform: Transform,
    model: &Model,
) -> Result<Vec<Found<'a>>, String> {
    let whole = Piece::new(tensor.clone(), transform.transposed)?;
    if let [name] = &names[..] {
        let order = transform.rows.map(|order| order(model, whole.rows())).transpose()?;
        let (name, shape) = (name.clone(), whole.shape.clone());
        return Ok(vec![Found { name, piece: whole.with_rows(order), shape }]);
    }
    let (sizes, groups) = part_sizes(&whole, names.len(), transform, model)?;
    let each: usize = sizes.iter().sum();
    let mut start = 0;
    let mut found = Vec::new();
    for (name, &size) in names.into_iter().zip(&sizes) {
        let rows =
            (0..groups).flat_map(|group| (start..start + size).map(move |row| group * each + row));
        let shape = match whole.shape[..] {
            [experts, _, columns] if groups > 1 || transform.split.is_none() => {
                vec![experts, size, columns]
            }
            [_] => vec![size],
            _ => vec![size, whole.width()],
        };
        found.push(Found { name, piece: whole.with_rows(Some(rows.collect())), shape });
        start += size;
    }
    Ok(found)
}

/// Rows of each of `count` parts in a group, and the number of groups: experts, or one if the
/// transform lists the sizes.
fn part_sizes(
    whole: &Piece,
    count: usize,
    transform: Transform,
    model: &Model,
) -> Result<(Vec<usize>, usize), String> {
    let (sizes, groups) = match transform.split {
        Some(split) => (split(model), 1),
        None => (vec![rows_of_expert(&whole.shape)? / count; count], experts(&whole.shape)),
    };
    let (rows, each) = (whole.rows(), sizes.iter().sum::<usize>());
    match each * groups == rows && sizes.len() == count && !sizes.contains(&0) {
        true => Ok((sizes, groups)),
        false => Err(format!("{rows} rows cannot be {groups} times {sizes:?}")),
    }
}

fn experts(shape: &[usize]) -> usize {
    if shape.len() == 3 { shape[0] } else { 1 }
}

fn rows_of_expert(shape: &[usize]) -> Result<usize, String> {
    match shape[..] {
        [_, rows, _] | [rows, _] => Ok(rows),
        _ => Err("a vector of several parts cannot be imported".into()),
    }
}

/// Default type of floats: that of the largest matrix, or f16 if any matrix is quantized, since MLX
/// would compute in f32 if scales (f16) and other tensors had different types.
fn default_float(gguf: &Gguf) -> Float {
    let matrices = || gguf.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    if matrices().any(|tensor| float_of(tensor.dtype).is_none()) {
        return Float::F16;
    }
    let largest = matrices().max_by_key(|tensor| tensor.data.len());
    largest.and_then(|tensor| float_of(tensor.dtype)).unwrap_or(Float::F16)
}

/// Float type of an unquantized type; `None` for a quantized one.
fn float_of(dtype: Type) -> Option<Float> {
    match dtype {
        Type::F16 => Some(Float::F16),
        Type::BF16 => Some(Float::BF16),
        Type::F32 => Some(Float::F32),
        _ => None,
    }
}

/// MLX's quantization of the same content as a GGUF type; `None` if it has none.
fn mode(dtype: Type) -> Option<Mode> {
    match dtype {
        Type::MXFP4 => Some((4, "mxfp4")),
        dtype => affine::bits(dtype).map(|bits| (bits, "affine")),
    }
}
