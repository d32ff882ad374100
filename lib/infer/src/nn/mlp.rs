//! The feed-forward layer.

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::{Linear, Norm, NormArch};
use crate::distributed;
use crate::kernels::{Activation, Kernels};
use crate::weights::Cursor;

/// What the weights of a feed-forward layer do not show.
#[derive(Clone, Copy, Debug)]
pub struct MlpArch {
    /// Elements of the vectors between its halves.
    pub inner: usize,
    /// Whether a gate decides how much of each element passes.
    pub gated: bool,
    /// Whether gate and rest are one matrix on disk.
    pub fused: bool,
    /// What bends the gate, or else the elements themselves.
    pub activation: Activation,
}

/// `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
pub struct Mlp {
    gate_proj: Option<Linear>,
    up_proj: Linear,
    down_proj: Linear,
    /// Before `down_proj`, if the checkpoint has it.
    ffn_sub_norm: Option<Norm>,
    activation: Activation,
    kernels: &'static Kernels,
}

impl Mlp {
    /// The layer at `w`, from `hidden` elements to those between and back.
    pub fn load(
        w: &mut Cursor,
        hidden: usize,
        arch: &MlpArch,
        norm: NormArch,
    ) -> mlxk_core::Result<Mlp> {
        let &MlpArch { inner, gated, fused, activation } = arch;
        if fused {
            w.split("gate_up_proj", 1, &[("gate_proj", inner), ("up_proj", inner)])?;
        }
        let MlpArch { inner, .. } = distributed::inner(w, arch)?;
        let gate = gated.then(|| Linear::load(w, "gate_proj", inner, hidden)).transpose()?;
        let normed = w.at("ffn_sub_norm").offers("weight");
        Ok(Mlp {
            gate_proj: gate,
            up_proj: Linear::load(w, "up_proj", inner, hidden)?,
            down_proj: Linear::load(w, "down_proj", hidden, inner)?,
            ffn_sub_norm: normed.then(|| norm.load(w, "ffn_sub_norm", inner)).transpose()?,
            activation: activation.learned(&mut w.at("act_fn"))?,
            kernels: w.kernels(),
        })
    }

    /// Each row by itself.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let up = self.up_proj.forward(x)?;
        let mut inner = match &self.gate_proj {
            Some(gate) => (self.kernels.gate)(&gate.forward(x)?, &up, self.activation)?,
            None => (self.kernels.activate)(&up, self.activation)?,
        };
        if let Some(norm) = &self.ffn_sub_norm {
            inner = norm.forward(&inner)?;
        }
        self.down_proj.forward(&inner)
    }
}
