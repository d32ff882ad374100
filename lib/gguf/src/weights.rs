//! Which tensors a model gets, and which of the file's each is made of.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use mlxk_core::Float;
use mlxk_core::tensors::{Dtype, Entry};
use serde_json::{Value, json};

use crate::affine::{self, GROUP, Part};
use crate::architecture::{How, Map, Place, Shape};
use crate::dtype::Type;
use crate::job::{Job, Made, Piece};
use crate::model::Model;
use crate::read::{Gguf, Tensor};

/// Ends of the names of tensors that stay f32: what many small numbers are added to.
const WIDE: [&str; 3] = ["A_log", "expert_bias", "e_score_correction_bias"];

/// All tensors of a model about to be written.
#[derive(Debug)]
pub struct Weights<'a> {
    /// What is written, in order.
    pub entries: Vec<Entry>,
    /// The type of vectors, and of matrices that can be kept in no other way.
    pub float: Float,
    jobs: HashMap<String, Job<'a>>,
    quantized: BTreeMap<String, Form>,
    packed: Packed,
}

/// Whether matrices that are packed in a way that MLX has too stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// They do.
    Kept,
    /// All are unpacked.
    Opened,
}

/// How a matrix is packed: the bits, and MLX's name of the mode.
type Form = (usize, &'static str);

/// A tensor of MLX that is put together from parts.
struct Target<'a> {
    how: How,
    pieces: BTreeMap<usize, Piece<'a>>,
    shape: Vec<usize>,
}

impl<'a> Weights<'a> {
    /// Finds a place for each tensor of the file; one that has none is an error.
    pub fn plan(
        gguf: &Gguf<'a>,
        model: &Model,
        wish: Option<Float>,
        packed: Packed,
    ) -> Result<Self, String> {
        let mut weights = Weights {
            entries: Vec::new(),
            float: wish.unwrap_or_else(|| natural(gguf)),
            jobs: HashMap::new(),
            quantized: BTreeMap::new(),
            packed,
        };
        for (name, target) in targets(gguf, model)? {
            weights.add(&name, target, model).map_err(|what| format!("{name}: {what}"))?;
        }
        for (name, number) in (model.architecture.numbers)(model)? {
            weights.put(
                &name,
                weights.float.dtype(),
                Vec::new(),
                Job::number(number, weights.float),
            );
        }
        Ok(weights)
    }

    fn add(&mut self, name: &str, target: Target<'a>, model: &Model) -> Result<(), String> {
        let Target { how, pieces, shape } = target;
        if let Some(absent) = (0..pieces.len()).find(|part| !pieces.contains_key(part)) {
            return Err(format!("part {absent} of it is missing"));
        }
        let pieces: Vec<_> = pieces.into_values().collect();
        let mut job = Job::new(pieces, how.map)?;
        if let Some(order) = how.joined {
            job.joined = Some(order(model, job.rows())?);
        }
        if let Some(order) = how.columns {
            job.columns = Some(order(model, job.width())?);
        }
        let shape = match job.pieces.len() {
            1 => shape,
            _ if shape.len() == 1 => vec![job.rows()],
            _ => vec![job.rows(), job.width()],
        };
        let dtype = job.dtype();
        let matrix = shape.len() > 1 && how.shape == Shape::Same && name.ends_with(".weight");
        let moved = how.map == Map::Same && !how.turned;
        match dtype.filter(|_| matrix && moved) {
            Some(dtype) if self.keeps(dtype) => {
                let float = plain(dtype).unwrap_or(self.float);
                self.put(name, float.dtype(), shape, job.made(Made::Kept));
            }
            Some(dtype) if self.repacks(dtype) && job.is_blockwise(dtype) => {
                self.repack(name, dtype, &shape, &job);
            }
            _ if shape.len() == 1 && job.is_packed() => return Err("a vector is packed".into()),
            _ => {
                let wide = WIDE.iter().any(|end| name.ends_with(end));
                let float = if wide { Float::F32 } else { self.float };
                self.put(name, float.dtype(), how.shape.of(&shape), job.made(Made::Cast(float)));
            }
        }
        Ok(())
    }

    /// Whether plain matrices of this type stay as they are: f32 ones only where all are.
    fn keeps(&self, dtype: Type) -> bool {
        plain(dtype).is_some_and(|float| float == self.float || float != Float::F32)
    }

    fn repacks(&self, dtype: Type) -> bool {
        self.packed == Packed::Kept && form(dtype).is_some()
    }

    fn repack(&mut self, name: &str, dtype: Type, shape: &[usize], job: &Job<'a>) {
        let Some((form, module)) = form(dtype).zip(name.strip_suffix(".weight")) else { return };
        let (columns, outs) = shape.split_last().map_or((0, &[][..]), |(last, outs)| (*last, outs));
        let shape = |last: usize| [outs, &[last]].concat();
        let [codes, groups] = [shape(columns * form.0 / 32), shape(columns / GROUP)];
        let scale = if form.1 == "affine" { Dtype::F16 } else { Dtype::U8 };
        let mut put = |field: &str, dtype, shape, part| {
            self.put(
                &format!("{module}.{field}"),
                dtype,
                shape,
                job.clone().made(Made::Part(part)),
            );
        };
        put("weight", Dtype::U32, codes, Part::Codes);
        put("scales", scale, groups.clone(), Part::Scales);
        if form.1 == "affine" {
            put("biases", scale, groups, Part::Biases);
        }
        self.quantized.insert(module.to_owned(), form);
    }

    fn put(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>, job: Job<'a>) {
        self.jobs.insert(name.to_owned(), job);
        self.entries.push(Entry { name: name.to_owned(), dtype, shape });
    }

    /// The `quantization` of `config.json`: the commonest form, and the modules with another.
    pub fn quantization(&self) -> Option<Value> {
        let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
        self.quantized.values().for_each(|form| *counts.entry(*form).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, count)| *count)?.0;
        let fields = |form: Form| json!({ "group_size": GROUP, "bits": form.0, "mode": form.1 });
        let mut table = fields(most);
        for (module, other) in self.quantized.iter().filter(|(_, other)| **other != most) {
            table[module] = fields(*other);
        }
        Some(table)
    }

    /// The rows of one of the entries, in ranges that take little memory each.
    pub fn parts(&self, entry: &Entry) -> impl Iterator<Item = Range<usize>> {
        self.jobs[&entry.name].parts()
    }

    /// The bytes of one of these ranges.
    pub fn bytes(&self, entry: &Entry, rows: Range<usize>) -> Result<Cow<'a, [u8]>, String> {
        let job = &self.jobs[&entry.name];
        job.bytes(rows).map_err(|what| format!("tensor {:?}: {what}", job.name()))
    }
}

/// The tensors of MLX in the order of the file, each with what it is made of.
fn targets<'a>(gguf: &Gguf<'a>, model: &Model) -> Result<Vec<(String, Target<'a>)>, String> {
    let mut order: Vec<(String, Target<'a>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for tensor in &gguf.tensors {
        let (names, how) = match model.architecture.place(tensor.name, model.layers, model.further)
        {
            Some(Place::To(names, how)) => (names, how),
            Some(Place::Nowhere) => continue,
            None => return Err(homeless(tensor, model)),
        };
        let at = |what: String| format!("tensor {:?}: {what}", tensor.name);
        for (name, piece, shape) in apart(tensor, names, how, model).map_err(at)? {
            let number = *known.entry(name.clone()).or_insert(order.len());
            if number == order.len() {
                order.push((name, Target { how, pieces: BTreeMap::new(), shape }));
            }
            let target = &mut order[number].1;
            if how.joined.is_some() {
                target.how = how;
            }
            if target.pieces.insert(how.part.unwrap_or(0), piece).is_some() {
                return Err(at("another tensor has its place".into()));
            }
        }
    }
    Ok(order)
}

fn homeless(tensor: &Tensor, model: &Model) -> String {
    format!(
        "tensor {:?} has no place in a model of {} layers of the architecture {:?}",
        tensor.name, model.layers, model.architecture.gguf
    )
}

/// What a tensor of the file is in MLX: one tensor, or several that lie in it.
fn apart<'a>(
    tensor: &Tensor<'a>,
    names: Vec<String>,
    how: How,
    model: &Model,
) -> Result<Vec<(String, Piece<'a>, Vec<usize>)>, String> {
    let whole = Piece::new(tensor.clone(), how.turned)?;
    let rows = whole.rows();
    let shape = &whole.shape;
    if names.len() == 1 {
        let order = how.rows.map(|order| order(model, rows)).transpose()?;
        let shape = shape.clone();
        return Ok(names
            .into_iter()
            .map(|name| (name, whole.with(order.clone()), shape.clone()))
            .collect());
    }
    // Parts lie one after another, or so within each expert.
    let (sizes, groups) = match how.split {
        Some(split) => (split(model), 1),
        None => (vec![rows_of_expert(shape)? / names.len(); names.len()], experts(shape)),
    };
    let each: usize = sizes.iter().sum();
    if each * groups != rows || sizes.len() != names.len() || sizes.contains(&0) {
        return Err(format!("{rows} rows cannot be {groups} times {sizes:?}"));
    }
    let mut start = 0;
    let part = |(name, size): (String, &usize)| {
        let order =
            (0..groups).flat_map(|group| (start..start + size).map(move |row| group * each + row));
        let order: Vec<_> = order.collect();
        start += size;
        let shape = match shape[..] {
            [experts, _, columns] if groups > 1 || how.split.is_none() => {
                vec![experts, *size, columns]
            }
            [_] => vec![*size],
            _ => vec![*size, whole.width()],
        };
        (name, whole.with(Some(order)), shape)
    };
    Ok(names.into_iter().zip(&sizes).map(part).collect())
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

/// The type that goes with what the file holds: its largest plain matrix, unless something packed
/// meets it, with whose scales MLX would compute in f32 if all else were of another type.
fn natural(gguf: &Gguf) -> Float {
    let matrices = || gguf.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    if matrices().any(|tensor| plain(tensor.dtype).is_none()) {
        return Float::F16;
    }
    let largest = matrices().max_by_key(|tensor| tensor.data.len());
    largest.and_then(|tensor| plain(tensor.dtype)).unwrap_or(Float::F16)
}

/// The type of plain numbers, if it is one.
pub fn plain(dtype: Type) -> Option<Float> {
    match dtype {
        Type::F16 => Some(Float::F16),
        Type::BF16 => Some(Float::BF16),
        Type::F32 => Some(Float::F32),
        _ => None,
    }
}

/// The form in MLX of a type that is packed alike.
fn form(dtype: Type) -> Option<Form> {
    match dtype {
        Type::MXFP4 => Some((4, "mxfp4")),
        dtype => affine::bits(dtype).map(|bits| (bits, "affine")),
    }
}
