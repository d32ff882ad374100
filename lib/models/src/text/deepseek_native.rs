//! DeepSeek's native checkpoint form from V4.1 on: its tensor names, and 8- and 4-bit weights with
//! power-of-two scales, whose layout differs from MLX's.

use mlx_rs::Dtype;
use mlxk_core::Result;
use mlxk_tensor::floats::{self, widen};

use crate::checkpoint::formats::checkpoint::{Checkpoint, invalid};
use crate::checkpoint::tensor::{Bytes, Tensor};

/// Prefixes of tensors that the language model does not use.
const ASIDE: [&str; 4] = ["vision.", "aligner.", "image_", "mtp."];

/// Path components in DeepSeek's checkpoints and their names in MLX.
const NAMES: [(&str, &str); 21] = [
    ("attn", "self_attn"),
    ("ffn", "mlp"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_sink", "sinks"),
    ("wq_a", "q_a_proj"),
    ("q_norm", "q_a_norm"),
    ("wq_b", "q_b_proj"),
    ("wk", "k_proj"),
    ("wkv", "kv_proj"),
    ("wgate", "gate_proj"),
    ("wo_a", "o_a_proj"),
    ("wo_b", "o_b_proj"),
    ("w1", "gate_proj"),
    ("w2", "down_proj"),
    ("w3", "up_proj"),
    ("hc_attn_fn", "attn_hc.fn"),
    ("hc_attn_base", "attn_hc.base"),
    ("hc_attn_scale", "attn_hc.scale"),
    ("hc_ffn_fn", "ffn_hc.fn"),
    ("hc_ffn_base", "ffn_hc.base"),
];

/// Converts a checkpoint in DeepSeek's form to MLX's, except that experts are not stacked.
pub fn translate(all: &mut Checkpoint) -> Result<()> {
    if all.tensors.keys().any(|name| name.starts_with("model.")) {
        return Ok(());
    }
    all.remove(|name| {
        ASIDE.iter().any(|start| name.starts_with(start))
            || name.contains(".engram.")
            || name.ends_with(".gate.bias_vl")
    });
    repack(all)?;
    all.rename(|name| Some(renamed(name)));
    groups(all)
}

fn renamed(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("head.") {
        return format!("lm_head.{rest}");
    }
    let mut path = vec!["model"];
    for part in name.split('.') {
        path.push(match (path.last().copied().unwrap_or_default(), part) {
            ("model", "embed") => "embed_tokens",
            ("compressor", "norm") => "kv_norm",
            ("gate", "bias") => "e_score_correction_bias",
            (_, "hc_ffn_scale") => "ffn_hc.scale",
            _ => NAMES.iter().find(|(theirs, _)| *theirs == part).map_or(part, |(_, ours)| ours),
        });
    }
    path.join(".")
}

/// Packs the codes of each quantised matrix into words, and expands its scales to one per group and
/// row: in some matrices a scale covers a block of `GROUP` rows.
fn repack(all: &mut Checkpoint) -> Result<()> {
    /// Weights of a row that share a scale, and rows of a block.
    const GROUP: usize = 32;
    let packed = |name: &String| {
        let stem = name.strip_suffix(".scale")?;
        all.tensors.contains_key(&format!("{stem}.weight")).then(|| stem.to_owned())
    };
    let stems: Vec<String> = all.tensors.keys().filter_map(packed).collect();
    for stem in stems {
        let name = format!("{stem}.weight");
        let (codes, scales) = (all.take(&name)?, all.take(&format!("{stem}.scale"))?);
        let (&[rows, bytes], &[by, groups]) = (codes.shape.as_slice(), scales.shape.as_slice())
        else {
            return Err(invalid(
                &name,
                format!("expected a matrix, found shape {:?}", codes.shape),
            ));
        };
        let small = [Dtype::Uint8, Dtype::Int8].contains(&codes.dtype);
        let of_8_or_4_bits = [1, 2].contains(&(groups * GROUP / bytes.max(1)));
        let fits = (groups * GROUP).is_multiple_of(bytes.max(1)) && bytes.is_multiple_of(4);
        if !small || !of_8_or_4_bits || !fits || ![rows, rows.div_ceil(GROUP)].contains(&by) {
            let message = format!(
                "expected a scale for 32 codes of 8 or 4 bits, found shape {:?} with scales {:?}",
                codes.shape, scales.shape
            );
            return Err(invalid(&name, message));
        }
        let of_each = if by == rows { 1 } else { GROUP };
        all.tensors.insert(name, codes.viewed(Dtype::Uint32, vec![rows, bytes / 4]));
        all.tensors.insert(format!("{stem}.scales"), spread(powers(scales), rows, of_each));
    }
    Ok(())
}

/// Biased exponents (log2 + 127) of power-of-two scales, as bytes.
fn powers(scales: Tensor) -> Tensor {
    let Some(float) = floats::kind(scales.dtype) else { return scales };
    Tensor::made(Dtype::Uint8, scales.shape.clone(), move || {
        let scales = scales.read(|bytes| widen(bytes, float))?;
        Bytes::of(&scales.iter().map(|x| (x.log2() + 127.0) as u8).collect::<Vec<u8>>())
    })
}

/// Repeats each row of bytes `each` times, up to `rows` rows.
fn spread(scales: Tensor, rows: usize, each: usize) -> Tensor {
    let columns = scales.shape[1];
    if each == 1 {
        return scales;
    }
    Tensor::made(Dtype::Uint8, vec![rows, columns], move || {
        scales.read(|all| {
            Bytes::joined((0..rows).map(|row| &all[row / each * columns..][..columns]))
        })?
    })
}

/// Splits the first output projection of attention into a matrix per group of heads.
fn groups(all: &mut Checkpoint) -> Result<()> {
    let names: Vec<String> = { all.tensors.keys() }
        .filter(|name| name.contains(".self_attn.o_a_proj."))
        .cloned()
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let count: usize = all.number("o_groups")?;
    for name in names {
        let whole = all.take(&name)?;
        let &[rows, columns] = whole.shape.as_slice() else {
            return Err(invalid(&name, format!("expected a matrix, found {:?}", whole.shape)));
        };
        if count == 0 || rows % count != 0 {
            return Err(invalid(&name, format!("{rows} rows cannot be {count} groups")));
        }
        let shape = vec![count, rows / count, columns];
        all.tensors.insert(name, whole.shaped(shape));
    }
    Ok(())
}
