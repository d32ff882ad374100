//! Gated DeltaNet layer (arXiv 2412.06464) of Qwen3-Next.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::concatenate;
use mlxk_tensor::cache::{Sequences, Slot, State};
use mlxk_tensor::ops::gated_delta::DeltaSizes;
use mlxk_tensor::ops::gated_norm::Order;

use super::conv1d::Conv1d;
use super::delta_rule::GatedDelta;
use super::gated_norm::GatedNorm;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::TokenMixer;

/// Gated DeltaNet layer: convolution, gated delta rule, gated norm.
pub struct DeltaNet {
    /// Projections to queries, keys and values: one matrix, or three.
    in_proj_qkv: Vec<Linear>,
    in_proj_z: Linear,
    in_proj_b: Linear,
    in_proj_a: Linear,
    conv1d: Conv1d,
    rule: GatedDelta,
    norm: GatedNorm,
    out_proj: Linear,
}

/// Parameters of the layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct DeltaNetArch {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Sizes of the gated delta rule.
    pub rule: DeltaSizes,
    /// Kernel size of the convolution, in tokens.
    pub taps: usize,
    /// Epsilon of the gated norm.
    pub norm_eps: f32,
}

impl DeltaNet {
    /// Loads the layer at `w`. Some checkpoints have the projections of each key head, with its
    /// value heads, side by side in two matrices, `in_proj_qkvz` and `in_proj_ba`.
    pub fn load(w: &mut Cursor, arch: &DeltaNetArch) -> mlxk_core::Result<DeltaNet> {
        let DeltaNetArch { hidden, rule, taps, norm_eps } = *arch;
        let [queries, keys, values] = rule.widths();
        let mut qkv = vec![("in_proj_qkv", queries + keys + values)];
        let (b, a) = (("in_proj_b", rule.value_heads), ("in_proj_a", rule.value_heads));
        if w.at("in_proj_qkvz").has("weight") {
            qkv = vec![("in_proj_q", queries), ("in_proj_k", keys), ("in_proj_v", values)];
            let parts = [qkv.as_slice(), &[("in_proj_z", values)]].concat();
            w.split("in_proj_qkvz", rule.key_heads, &parts)?;
            w.split("in_proj_ba", rule.key_heads, &[b, a])?;
        }
        let qkv = qkv.into_iter().map(|(name, outs)| Linear::load(w, name, outs, hidden));
        Ok(DeltaNet {
            in_proj_qkv: qkv.collect::<mlxk_core::Result<_>>()?,
            in_proj_z: Linear::load(w, "in_proj_z", values, hidden)?,
            in_proj_b: Linear::load(w, b.0, b.1, hidden)?,
            in_proj_a: Linear::load(w, a.0, a.1, hidden)?,
            conv1d: Conv1d::load(w, "conv1d", queries + keys + values, taps, true)?,
            rule: GatedDelta::load(w, rule)?,
            norm: GatedNorm::load(
                w,
                "norm",
                rule.value_dim,
                rule.value_dim,
                norm_eps,
                Order::Norm,
            )?,
            out_proj: Linear::load(w, "out_proj", hidden, values)?,
        })
    }

    /// Concatenated queries, keys and values [1, rows, widths].
    fn qkv(&self, x: &Array) -> Result<Array> {
        let mut parts = self.in_proj_qkv.iter().map(|proj| proj.forward(x));
        match self.in_proj_qkv.len() {
            1 => parts.next().unwrap_or(Ok(x.clone())),
            _ => concatenate(&parts.collect::<Result<Vec<_>>>()?, -1),
        }
    }
}

impl TokenMixer for DeltaNet {
    fn slot(&self) -> Slot {
        Slot::State(State::new(2))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [z, b, a] = [&self.in_proj_z, &self.in_proj_b, &self.in_proj_a].map(|p| p.forward(x));
        let y = sequences.each_state(slot, [&self.qkv(x)?, &a?, &b?], |[qkv, a, b], state| {
            let [tail, state] = state.parts()?;
            self.rule.forward([&self.conv1d.forward(qkv, tail)?, a, b], state)
        })?;
        self.out_proj.forward(&self.norm.forward(&y, &z?)?)
    }
}
