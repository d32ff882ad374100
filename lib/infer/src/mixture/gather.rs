//! Experts as checkpoints of other forms have them, brought into one.
//!
//! MLX stacks the matrices of all experts into one tensor under `switch_mlp`. Transformers writes a
//! tensor for each expert, or stacks them with gate and rest in one.

use mlx_rs::Dtype;
use mlxk_core::Result;

use crate::weights::{Cursor, Tensor, reshape};

/// Names of an expert's layers: ours, and those of mixtral.
const LAYERS: [(&str, &str); 3] = [("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")];

/// Makes MLX's tensors of whatever `count` experts with `inner` elements between their halves are
/// made of at `w`. Leaves what is in no form that is known.
pub fn from_other_forms(w: &mut Cursor, count: usize, inner: usize) -> Result<()> {
    for (ours, theirs) in LAYERS {
        for name in [ours, theirs] {
            if w.has(&format!("experts.0.{name}.weight")) {
                let expert = |n| format!("experts.{n}.{name}");
                w.stack(&format!("switch_mlp.{ours}"), count, expert)?;
            }
        }
    }
    for (fused, down) in [
        ("experts.gate_up_proj", "experts.down_proj"),
        ("input_linear.weight", "output_linear.weight"),
    ] {
        if w.has(fused) {
            let fused = Fused { name: fused, count, inner, interleaved: false };
            let all = turned(w, fused.name, 2 * inner, 1)?;
            fused.split(w, "weight", all)?;
            let down = turned(w, down, inner, 2)?;
            w.put("switch_mlp.down_proj.weight", down);
        }
    }
    if w.has("experts.gate_up_proj_blocks") {
        from_blocks(w, count, inner)?;
    }
    Ok(())
}

/// The blocks of 32 codes, in bytes, and the scales that gpt_oss was published with; gate and rest take
/// turns row by row.
fn from_blocks(w: &mut Cursor, count: usize, inner: usize) -> Result<()> {
    for (theirs, ours) in [("blocks", "weight"), ("scales", "scales"), ("bias", "bias")] {
        let name = format!("experts.gate_up_proj_{theirs}");
        let fused = Fused { name: &name, count, inner, interleaved: true };
        let all = packed(w.take(fused.name)?);
        fused.split(w, ours, all)?;
        let down = packed(w.take(&format!("experts.down_proj_{theirs}"))?);
        w.put(&format!("switch_mlp.down_proj.{ours}"), down);
    }
    Ok(())
}

/// Rows of blocks of 16 bytes as rows of integers; anything else as it is.
fn packed(tensor: Tensor) -> Tensor {
    match *tensor.shape {
        [count, rows, blocks, 16] if tensor.dtype == Dtype::Uint8 => {
            tensor.viewed(Dtype::Uint32, vec![count, rows, blocks * 4])
        }
        _ => tensor,
    }
}

/// Takes a tensor of matrices of which axis `axis` should have `size` elements; if the other one does,
/// transposed.
fn turned(w: &mut Cursor, name: &str, size: usize, axis: usize) -> Result<Tensor> {
    let tensor = w.take(name)?;
    match *tensor.shape {
        [_, rows, columns]
            if [rows, columns][axis - 1] != size && [rows, columns][2 - axis] == size =>
        {
            Ok(reshape::transposed(tensor))
        }
        _ => Ok(tensor),
    }
}

/// Gates and what they let pass in one tensor, [count, 2 * inner, ..].
struct Fused<'a> {
    name: &'a str,
    count: usize,
    inner: usize,
    /// Whether they take turns row by row.
    interleaved: bool,
}

impl Fused<'_> {
    /// Puts both halves of `all` at `w`.
    fn split(&self, w: &mut Cursor, tensor: &str, all: Tensor) -> Result<()> {
        let &Fused { name, count, inner, interleaved } = self;
        let [n, rows, rest @ ..] = all.shape.as_slice() else {
            return Err(w.invalid(name, format!("expected experts, found shape {:?}", all.shape)));
        };
        if (*n, *rows) != (count, 2 * inner) {
            let message =
                format!("expected {count} experts of {} rows, found {:?}", 2 * inner, all.shape);
            return Err(w.invalid(name, message));
        }
        let rest = rest.to_vec();
        let flat = all.shaped([&[count * 2 * inner], rest.as_slice()].concat());
        let (repeats, size) = if interleaved { (count * inner, 1) } else { (count, inner) };
        for (half, layer) in ["gate_proj", "up_proj"].into_iter().enumerate() {
            let part = reshape::rows(&flat, repeats, half * size..(half + 1) * size);
            let part = part.shaped([&[count, inner], rest.as_slice()].concat());
            w.put(&format!("switch_mlp.{layer}.{tensor}"), part);
        }
        Ok(())
    }
}
