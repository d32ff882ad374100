//! Weight of a linear layer, dense or quantised as in the checkpoint.

use mlx_rs::error::Result;
use mlx_rs::{Array, Dtype};
use mlxk_core::quantization::{Mode, QuantSpec};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::weight::{Quantized, Weight};

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::quantization::{Entry, Stated};

/// Weights [outs, ins] and the backend that multiplies with them.
pub struct Matrix {
    weights: Weight,
    ops: &'static dyn Ops,
}

impl Matrix {
    /// Loads the weights at `w`. Errors name the tensor that is missing, or of another shape or
    /// type.
    pub fn load(w: &mut Cursor, outs: usize, ins: usize) -> mlxk_core::Result<Matrix> {
        Ok(Matrix { weights: load_weight(w, &[outs], ins)?, ops: w.ops() })
    }

    /// Product `x W.T`: [.., ins] to [.., outs].
    pub fn times(&self, x: &Array) -> Result<Array> {
        self.ops.linear(&self.weights, x)
    }

    /// Rows `ids` [..], as [.., ins].
    pub fn rows(&self, ids: &Array) -> Result<Array> {
        self.ops.embedding(&self.weights, ids)
    }
}

/// Loads the weights [.., outs, ins] at `w`, with leading axes and rows `outs`.
pub fn load_weight(w: &mut Cursor, outs: &[usize], ins: usize) -> mlxk_core::Result<Weight> {
    let Some(stated) = w.quantized() else {
        w.matrix(None);
        return Ok(Weight::Dense(w.stored("weight", &[outs, &[ins]].concat())?));
    };
    Ok(Weight::Quantized(load_packed(w, stated, outs, ins)?))
}

/// Loads the quantised weights [.., outs, ins] at `w`; `stated` is their quantisation in
/// config.json.
pub fn load_packed(
    w: &mut Cursor,
    stated: Entry,
    outs: &[usize],
    ins: usize,
) -> mlxk_core::Result<Quantized> {
    let form = shown(w, ins)?;
    agree(form, w, stated)?;
    w.matrix(Some(form));
    let QuantSpec { group_size, bits, mode } = form;
    let shape = |last: usize| [outs, &[last]].concat();
    let weight = w.take("weight")?;
    w.expect("weight", &weight, &[Dtype::Uint32], &shape(ins * bits / 32))?;
    let groups = shape(ins / group_size);
    let (scales, biases) = if mode == Mode::Affine {
        (w.stored("scales", &groups)?, Some(w.stored("biases", &groups)?))
    } else {
        let scales = w.take("scales")?;
        w.expect("scales", &scales, &[Dtype::Uint8], &groups)?;
        (w.array(&scales)?, None)
    };
    let (group_size, bits) = (group_size as i32, bits as i32);
    let weight = w.array(&weight)?;
    Ok(Quantized { weight, scales, biases, group_size, bits, mode })
}

/// Quantisation that the shapes of tensors and the type of scales imply.
fn shown(w: &Cursor, ins: usize) -> mlxk_core::Result<QuantSpec> {
    let (shape, _) = w.form("weight")?;
    let packed = shape.last().copied().unwrap_or_default() * 32;
    let (scales, dtype) = w.form("scales")?;
    let groups = scales.last().copied().unwrap_or_default();
    let all = Mode::ALL.into_iter().flat_map(|mode| {
        mode.supported().map(move |(bits, group_size)| QuantSpec { group_size, bits, mode })
    });
    let fits = |form: &QuantSpec| {
        let affine = form.mode == Mode::Affine;
        ins * form.bits == packed
            && groups * form.group_size == ins
            && affine == (dtype != Dtype::Uint8)
    };
    { all }.find(fits).ok_or_else(|| {
        let message = format!(
            "expected rows of {ins} quantised weights, found {shape:?} with scales {scales:?} of \
             type {dtype:?}"
        );
        w.invalid("weight", message)
    })
}

/// Errors if the quantisation in config.json differs from that of the tensors.
fn agree(form: QuantSpec, w: &Cursor, stated: Entry) -> mlxk_core::Result<()> {
    let Entry::Quantized(Stated { group_size, bits, mode }) = stated else {
        return Ok(());
    };
    let other = group_size.is_some_and(|n| n != form.group_size)
        || bits.is_some_and(|n| n != form.bits)
        || mode.is_some_and(|mode| mode != form.mode);
    if !other {
        return Ok(());
    }
    let QuantSpec { group_size, bits, mode } = form;
    let message = format!(
        "packed in {bits} bits and groups of {group_size} ({}), which is not what config.json says",
        mode.name()
    );
    Err(w.invalid("weight", message))
}
