//! Feed-forward layer.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::linear::Linear;
use super::norm::{Norm, NormArch};
use super::shard;
use crate::checkpoint::cursor::Cursor;

/// Parameters of a feed-forward layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct MlpArch {
    /// Elements of the inner vectors (`intermediate_size`).
    pub inner: usize,
    /// True if the layer is a gated linear unit.
    pub gated: bool,
    /// True if the checkpoint has gate and up projection in one matrix, `gate_up_proj`.
    pub fused: bool,
    /// Activation of the gate, or of the up projection without a gate.
    pub activation: Activation,
}

/// Feed-forward layer `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
pub struct Mlp {
    gate_proj: Option<Linear>,
    up_proj: Linear,
    down_proj: Linear,
    /// Norm before `down_proj`, if the checkpoint has it.
    ffn_sub_norm: Option<Norm>,
    activation: Activation,
    ops: &'static dyn Ops,
}

impl Mlp {
    /// Loads the layer at `w`, for hidden vectors of `hidden` elements.
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
        let inner = shard::inner(w, inner)?;
        let gate = gated.then(|| Linear::load(w, "gate_proj", inner, hidden)).transpose()?;
        let normed = w.at("ffn_sub_norm").offers("weight");
        Ok(Mlp {
            gate_proj: gate,
            up_proj: Linear::load(w, "up_proj", inner, hidden)?,
            down_proj: Linear::load(w, "down_proj", hidden, inner)?,
            ffn_sub_norm: normed.then(|| norm.load(w, "ffn_sub_norm", inner)).transpose()?,
            activation: learned(activation, &mut w.at("act_fn"))?,
            ops: w.ops(),
        })
    }

    /// Output [.., hidden] for `x` of that shape.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let up = self.up_proj.forward(x)?;
        let mut inner = match &self.gate_proj {
            Some(gate) => self.ops.glu(&gate.forward(x)?, &up, self.activation)?,
            None => self.ops.activate(&up, self.activation)?,
        };
        if let Some(norm) = &self.ffn_sub_norm {
            inner = norm.forward(&inner)?;
        }
        self.down_proj.forward(&inner)
    }
}

/// Activation with the parameters that the checkpoint holds at `w`, which xIELU has.
///
/// # Errors
/// If a parameter is missing.
pub fn learned(activation: Activation, w: &mut Cursor) -> mlxk_core::Result<Activation> {
    let Activation::Xielu { beta, eps, .. } = activation else {
        return Ok(activation);
    };
    let mut stated = |name, usual| if w.has(name) { w.number(name) } else { Ok(usual) };
    let (beta, eps) = (stated("beta", beta)?, stated("eps", eps)?);
    let mut softened = |name| w.number(name).map(|x| x.exp().ln_1p());
    let positive = softened("alpha_p")?;
    Ok(Activation::Xielu { positive, negative: beta + softened("alpha_n")?, beta, eps })
}
