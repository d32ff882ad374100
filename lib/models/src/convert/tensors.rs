//! Tensors that a conversion writes, and how their bytes are made.

use std::collections::{BTreeMap, HashMap};

use mlxk_core::quantization::{Mode, QuantSpec};
use mlxk_core::tensors::{self, Entry};
use mlxk_core::{Error, Float, Kind, Result};
use mlxk_tensor::affine;
use mlxk_tensor::floats::{self, BLOCK, narrow, widen};
use serde_json::{Map, Value, json};

use super::small_floats;
use crate::checkpoint::tensor::{self, Tensor};

/// Tensors to write.
pub struct Tensors {
    /// Tensors in the order of writing.
    pub entries: Vec<Entry>,
    /// Work that makes each tensor.
    work: HashMap<String, Work>,
    /// Tensors that were made together with an earlier one.
    byproducts: HashMap<String, Vec<u8>>,
    /// Quantisation of each matrix that is quantised here.
    forms: BTreeMap<String, QuantSpec>,
}

/// Way to make the bytes of a tensor.
enum Work {
    /// Copy of a tensor.
    Same(Tensor),
    /// Conversion from one float type to another.
    Cast(Tensor, Float, Float),
    /// Quantisation of weights of type `from`, rounded to type `float` first; scales come with the
    /// codes.
    Pack { name: String, weights: Tensor, from: Float, float: Float, form: QuantSpec },
    /// Dequantisation to type `float`.
    Unpack { packed: QuantizedTensors, float: Float },
    /// Made together with another tensor.
    Byproduct,
}

/// Quantised matrix of the source.
pub struct QuantizedTensors {
    /// Codes.
    pub weight: Tensor,
    /// Scales of the groups.
    pub scales: Tensor,
    /// Biases of the groups, in affine mode.
    pub biases: Option<Tensor>,
    /// Quantisation of the matrix.
    pub form: QuantSpec,
}

impl Tensors {
    /// No tensors.
    pub fn new() -> Tensors {
        let (work, byproducts) = (HashMap::new(), HashMap::new());
        Tensors { entries: Vec::new(), work, byproducts, forms: BTreeMap::new() }
    }

    /// Adds a tensor as it is, or converted to `float` if it holds floats.
    pub fn plain(&mut self, name: &str, tensor: Tensor, float: Option<Float>) -> Result<()> {
        let (from, shape) = (floats::kind(tensor.dtype), tensor.shape.clone());
        match (from, float) {
            (Some(from), Some(to)) if from != to => {
                self.add(name, to.dtype(), shape, Work::Cast(tensor, from, to));
            }
            _ => {
                let dtype = tensor::on_disk(tensor.dtype).ok_or_else(|| {
                    let what = format!("elements of type {:?} cannot be written", tensor.dtype);
                    Error::new(Kind::InvalidModel, name, what)
                })?;
                self.add(name, dtype, shape, Work::Same(tensor));
            }
        }
        Ok(())
    }

    /// Adds the dense matrix `name` [.., outs, ins], quantised as `form`, and rounded to `float`
    /// before.
    pub fn packed(&mut self, name: &str, weights: Tensor, float: Option<Float>, form: QuantSpec) {
        let Some(from) = floats::kind(weights.dtype) else {
            return;
        };
        let float = float.unwrap_or(from);
        let (ins, outs) = weights.shape.split_last().map_or((0, &[][..]), |(&n, outs)| (n, outs));
        let shape = |last: usize| [outs, &[last]].concat();
        let [codes, groups] = [shape(ins * form.bits / 32), shape(ins / form.group_size)];
        let work = Work::Pack { name: name.to_owned(), weights, from, float, form };
        self.add(&format!("{name}.weight"), tensors::Dtype::U32, codes, work);
        let scales = match form.mode {
            Mode::Affine => float.dtype(),
            _ => tensors::Dtype::U8,
        };
        self.add(&format!("{name}.scales"), scales, groups.clone(), Work::Byproduct);
        if form.mode == Mode::Affine {
            self.add(&format!("{name}.biases"), scales, groups, Work::Byproduct);
        }
        self.forms.insert(name.to_owned(), form);
    }

    /// Adds the quantised matrix `name`, dequantised to `float`, by default to the type of its
    /// scales.
    pub fn unpacked(&mut self, name: &str, packed: QuantizedTensors, float: Option<Float>) {
        let float = float.or(floats::kind(packed.scales.dtype)).unwrap_or(Float::BF16);
        let mut shape = packed.scales.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last *= packed.form.group_size;
        }
        let work = Work::Unpack { packed, float };
        self.add(&format!("{name}.weight"), float.dtype(), shape, work);
    }

    /// Passes the bytes of a tensor to `out`; each tensor is written once, in order.
    pub fn write(&mut self, entry: &Entry, out: Out) -> Result<()> {
        if let Some(bytes) = self.byproducts.remove(&entry.name) {
            return out(&bytes);
        }
        let missing = || Error::new(Kind::Internal, &entry.name, "nothing makes this tensor");
        match self.work.remove(&entry.name).ok_or_else(missing)? {
            Work::Same(tensor) => tensor.consume(BLOCK, out),
            Work::Cast(tensor, from, to) => tensor
                .consume(BLOCK * from.bytes(), &mut |block| out(&narrow(&widen(block, from), to))),
            Work::Pack { name, weights, from, float, form } => {
                self.pack(&name, &weights, from, float, form, out)
            }
            Work::Unpack { packed, float } => unpack(&packed, float, out),
            Work::Byproduct => Err(missing()),
        }
    }

    /// Quantisation table for config.json: `most` and the matrices that differ from it.
    pub fn table(&self, most: QuantSpec) -> Value {
        let mut table = fields(most);
        for (name, form) in self.forms.iter().filter(|(_, form)| **form != most) {
            table.insert(name.clone(), fields(*form).into());
        }
        table.into()
    }

    /// Adds a tensor and its work.
    fn add(&mut self, name: &str, dtype: tensors::Dtype, shape: Vec<usize>, work: Work) {
        self.entries.push(Entry { name: name.to_owned(), dtype, shape });
        self.work.insert(name.to_owned(), work);
    }

    /// Passes the codes of a matrix to `out`, and keeps its scales and biases until they are
    /// written.
    fn pack(
        &mut self,
        name: &str,
        weights: &Tensor,
        from: Float,
        float: Float,
        form: QuantSpec,
        out: Out,
    ) -> Result<()> {
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        weights.consume(BLOCK * from.bytes(), &mut |block| {
            let mut block = widen(block, from);
            if from != float {
                block = widen(&narrow(&block, float), float);
            }
            if form.mode == Mode::Affine {
                let packed = affine::quantize(&block, form.group_size, form.bits);
                scales.extend(narrow(&packed.scales, float));
                biases.extend(narrow(&packed.biases, float));
                out(&packed.codes)
            } else {
                let packed = small_floats::quantize(&block, form)?;
                scales.extend(packed.scales);
                out(&packed.codes)
            }
        })?;
        self.byproducts.insert(format!("{name}.scales"), scales);
        if form.mode == Mode::Affine {
            self.byproducts.insert(format!("{name}.biases"), biases);
        }
        Ok(())
    }
}

/// Receiver of bytes, block by block.
pub type Out<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Passes the dequantised weights of a matrix to `out`.
fn unpack(packed: &QuantizedTensors, float: Float, out: Out) -> Result<()> {
    let QuantizedTensors { weight, scales, biases, form } = packed;
    let kind = floats::kind(scales.dtype);
    let element = kind.map_or(1, Float::bytes);
    let scales = scales.bytes()?;
    let biases = biases.as_ref().map(Tensor::bytes).transpose()?;
    let mut at = 0;
    weight.consume(BLOCK * form.bits / 8, &mut |codes| {
        let end = at + codes.len() * 8 / form.bits / form.group_size * element;
        let part = |bytes: &[u8]| bytes.get(at..end).map(<[u8]>::to_vec).unwrap_or_default();
        let (scales, biases) =
            (part(scales.as_slice()), biases.as_ref().map(|b| part(b.as_slice())));
        at = end;
        let weights = match (kind, biases) {
            (Some(kind), Some(biases)) => {
                let mut weights = vec![0.0; codes.len() * 8 / form.bits];
                let (scales, biases) = (widen(&scales, kind), widen(&biases, kind));
                affine::dequantize(codes, &scales, &biases, form.bits, &mut weights);
                weights
            }
            _ => small_floats::dequantize(codes, &scales, *form)?,
        };
        out(&narrow(&weights, float))
    })
}

/// Fields of a quantisation in config.json.
fn fields(form: QuantSpec) -> Map<String, Value> {
    let QuantSpec { mode, bits, group_size } = form;
    let table = json!({ "group_size": group_size, "bits": bits, "mode": mode.name() });
    table.as_object().cloned().unwrap_or_default()
}
