//! Stacking of the matrices of all experts of a mixture.
//!
//! MLX stacks them under `switch_mlp`. Transformers writes a tensor per expert, or stacks them with
//! gate and up projections fused.

use std::collections::BTreeSet;

use mlx_rs::Dtype;
use mlxk_core::Result;
use serde_json::Value;

use super::checkpoint::{Checkpoint, invalid};
use crate::checkpoint::reshape;
use crate::checkpoint::tensor::Tensor;

/// Names and layout of the experts of an architecture.
#[derive(Clone, Copy)]
pub struct ExpertLayout {
    /// Part of the names of a checkpoint that has a tensor for each expert: `experts.0.`.
    pub from: &'static str,
    /// Part of the names that MLX has instead, for all experts at once.
    pub to: &'static str,
    /// Name of the projection into the feed-forward layer, in MLX.
    pub up: &'static str,
    /// Name of the projection out of the feed-forward layer, in MLX.
    pub down: &'static str,
    /// True if transformers stacks matrices as [experts, ins, outs] instead of [experts, outs,
    /// ins].
    pub transposed: bool,
    /// True if the rows of gate and up projections alternate in stacked matrices.
    pub interleaved: bool,
}

impl ExpertLayout {
    /// Layout of most architectures.
    pub const DEFAULT: ExpertLayout = ExpertLayout {
        from: "experts",
        to: "switch_mlp",
        up: "up_proj",
        down: "down_proj",
        transposed: false,
        interleaved: false,
    };

    /// MLX's name of the layer that a checkpoint names `theirs`, as in Mixtral or Phixtral.
    fn layer(&self, theirs: &str) -> Option<&'static str> {
        match theirs {
            "gate_proj" | "w1" => Some("gate_proj"),
            "down_proj" | "w2" | "fc2" => Some(self.down),
            "up_proj" | "w3" | "fc1" => Some(self.up),
            _ => None,
        }
    }
}

/// Converts experts to MLX's stacked tensors. Tensors in no known form stay unchanged.
pub fn gather(all: &mut Checkpoint, experts: &ExpertLayout) -> Result<()> {
    single(all, experts)?;
    for (fused, down) in [
        ("experts.gate_up_proj", "experts.down_proj"),
        ("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
        ("experts.gate_up_proj_blocks", "experts.down_proj_blocks"),
        ("experts.gate_up_proj_scales", "experts.down_proj_scales"),
        ("experts.gate_up_proj_bias", "experts.down_proj_bias"),
    ] {
        for base in bases(all, fused) {
            both(all, experts, &base, [fused, down])?;
        }
    }
    Ok(())
}

/// Stacks experts with a tensor each: `.experts.0.gate_proj.weight`.
fn single(all: &mut Checkpoint, experts: &ExpertLayout) -> Result<()> {
    let counts = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"];
    let stated = counts.iter().find_map(|key| all.text().get(key).and_then(Value::as_u64));
    let from = experts.from;
    let zeroth = format!(".{from}.0.");
    let first: Vec<(String, String, String)> = { all.tensors.keys() }
        .filter_map(|name| {
            let (base, rest) = name.split_once(&zeroth)?;
            let (layer, part) = rest.split_once('.')?;
            Some((base.to_owned(), layer.to_owned(), part.to_owned()))
        })
        .collect();
    for (base, layer, part) in first {
        let Some(ours) = experts.layer(&layer) else { continue };
        let name = |n: usize| format!("{base}.{from}.{n}.{layer}");
        let there = |n: &usize| all.tensors.contains_key(&format!("{}.{part}", name(*n)));
        let count = stated.map_or_else(|| (0..).take_while(there).count(), |count| count as usize);
        let mut parts: Vec<Tensor> = Vec::new();
        for n in 0..count {
            let path = format!("{}.{part}", name(n));
            let next = all.take(&path)?;
            let like = parts.first().unwrap_or(&next);
            if next.dtype != like.dtype {
                return Err(invalid(
                    &path,
                    format!("expected {:?}, found {:?}", like.dtype, next.dtype),
                ));
            }
            if next.shape != like.shape {
                let message = format!("expected shape {:?}, found {:?}", like.shape, next.shape);
                return Err(invalid(&path, message));
            }
            parts.push(next);
        }
        let to = format!("{base}.{}.{ours}", experts.to);
        all.alias(&to, &name(0));
        all.tensors.insert(format!("{to}.{part}"), reshape::stacked(parts));
    }
    Ok(())
}

/// Names of expert tensors that end in `end`, without this suffix.
fn bases(all: &Checkpoint, end: &str) -> BTreeSet<String> {
    let stacked = |tensor: &Tensor| tensor.shape.len() >= 2;
    { all.tensors.iter() }
        .filter(|(_, tensor)| stacked(tensor))
        .filter_map(|(name, _)| name.strip_suffix(end).map(str::to_owned))
        .collect()
}

/// Splits stacked experts in two tensors: fused gate and up projections, and down projections.
fn both(all: &mut Checkpoint, experts: &ExpertLayout, base: &str, names: [&str; 2]) -> Result<()> {
    let [fused, down] = names;
    let part = match fused.rsplit_once('_') {
        Some((_, "blocks")) => "weight",
        Some((_, part @ ("scales" | "bias"))) => part,
        _ => "weight",
    };
    let turned = |tensor: Tensor| match experts.transposed && fused == "experts.gate_up_proj" {
        true => reshape::transposed(tensor),
        false => packed(tensor),
    };
    let whole = turned(all.take(&format!("{base}{fused}"))?);
    let last = turned(all.take(&format!("{base}{down}"))?);
    // Shared experts have the same layer names, under another prefix.
    let moe = if fused.starts_with("block_sparse_moe") { "block_sparse_moe." } else { "" };
    let to = format!("{base}{moe}{}", experts.to);
    let [gate, up] = halves(whole, experts.interleaved)
        .ok_or_else(|| invalid(&format!("{base}{fused}"), "expected an even number of rows"))?;
    for (layer, tensor) in [("gate_proj", gate), (experts.up, up), (experts.down, last)] {
        all.tensors.insert(format!("{to}.{layer}.{part}"), tensor);
    }
    Ok(())
}

/// Views rows of blocks of 16 bytes as rows of 32-bit words; other tensors stay unchanged.
fn packed(tensor: Tensor) -> Tensor {
    match *tensor.shape {
        [count, rows, blocks, 16] if tensor.dtype == Dtype::Uint8 => {
            tensor.viewed(Dtype::Uint32, vec![count, rows, blocks * 4])
        }
        _ => tensor,
    }
}

/// Halves of the rows of [count, rows, ..]: contiguous, or alternating rows if `interleaved`.
fn halves(all: Tensor, interleaved: bool) -> Option<[Tensor; 2]> {
    let [count, rows, rest @ ..] = all.shape.as_slice() else { return None };
    let (count, half, rest) = (*count, rows / 2, rest.to_vec());
    if rows % 2 != 0 {
        return None;
    }
    let flat = all.shaped([&[count * 2 * half], rest.as_slice()].concat());
    let (repeats, size) = if interleaved { (count * half, 1) } else { (count, half) };
    Some([0, 1].map(|n| {
        let part = reshape::rows(&flat, repeats, n * size..(n + 1) * size);
        part.shaped([&[count, half], rest.as_slice()].concat())
    }))
}
