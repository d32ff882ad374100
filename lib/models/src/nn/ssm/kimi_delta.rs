//! Kimi Delta Attention (KDA, arXiv 2510.26692): the gated delta rule with a decay for each element
//! of a key.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, sigmoid};
use mlxk_tensor::cache::{Sequences, Slot, State};
use mlxk_tensor::ops::gated_delta::{Decay, DeltaSizes};

use super::conv1d::Conv1d;
use super::delta_rule::GatedDelta;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::TokenMixer;
use crate::nn::norm::{Norm, NormArch};

/// KDA layer: convolutions of queries, keys and values, gated delta rule, norm, gate.
pub struct KimiDelta {
    qkv: [(Linear, Conv1d); 3],
    /// Projections to decay inputs, one or two (low-rank).
    f: Vec<Linear>,
    /// Projections to gates, one or two (low-rank).
    g: Vec<Linear>,
    b_proj: Linear,
    rule: GatedDelta,
    o_norm: Norm,
    o_proj: Linear,
    dim: i32,
}

/// Parameters of the layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct KimiDeltaArch {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Elements of a head.
    pub dim: usize,
    /// Kernel size of the convolutions, in tokens.
    pub taps: usize,
    /// Decay of the state, one factor for each element of a key.
    pub decay: Decay,
    /// Norm of a head's output, before the gate.
    pub norm: NormArch,
}

impl KimiDelta {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, arch: &KimiDeltaArch) -> mlxk_core::Result<KimiDelta> {
        let &KimiDeltaArch { hidden, heads, dim, taps, decay, norm } = arch;
        let all = heads * dim;
        let sizes = DeltaSizes {
            key_heads: heads,
            value_heads: heads,
            key_dim: dim,
            value_dim: dim,
            decay,
        };
        let mut part = |name: &str| {
            let proj = Linear::load(w, &format!("{name}_proj"), all, hidden)?;
            Ok((proj, Conv1d::load(w, &format!("{name}_conv1d"), all, taps, true)?))
        };
        Ok(KimiDelta {
            qkv: [part("q")?, part("k")?, part("v")?],
            f: through(w, "f", [hidden, dim, all])?,
            g: through(w, "g", [hidden, dim, all])?,
            b_proj: Linear::load(w, "b_proj", heads, hidden)?,
            rule: GatedDelta::load(w, sizes)?,
            o_norm: norm.load(w, "o_norm", dim)?,
            o_proj: Linear::load(w, "o_proj", hidden, all)?,
            dim: dim as i32,
        })
    }
}

/// Loads the linear layer `name` of `w`, or the two layers of its low-rank form.
fn through(
    w: &mut Cursor,
    name: &str,
    [ins, between, outs]: [usize; 3],
) -> mlxk_core::Result<Vec<Linear>> {
    let [whole, a, b] = ["", "a_", "b_"].map(|part| format!("{name}_{part}proj"));
    if w.at(&whole).has("weight") {
        return Ok(vec![Linear::load(w, &whole, outs, ins)?]);
    }
    Ok(vec![Linear::load(w, &a, between, ins)?, Linear::load(w, &b, outs, between)?])
}

impl TokenMixer for KimiDelta {
    fn slot(&self) -> Slot {
        Slot::State(State::new(4))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [(q_proj, q_conv), (k_proj, k_conv), (v_proj, v_conv)] = &self.qkv;
        let [q, k, v] = [q_proj, k_proj, v_proj].map(|proj| proj.forward(x));
        let through =
            |layers: &[Linear]| layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x));
        let (a, gate) = (through(&self.f)?, through(&self.g)?);
        let b = self.b_proj.forward(x)?;
        let y = sequences.each_state(slot, [&q?, &k?, &v?, &a, &b], |[q, k, v, a, b], state| {
            let [q_tail, k_tail, v_tail, state] = state.parts()?;
            let qkv = [
                q_conv.forward(q, q_tail)?,
                k_conv.forward(k, k_tail)?,
                v_conv.forward(v, v_tail)?,
            ];
            self.rule.forward([&concatenate(&qkv, -1)?, a, b], state)
        })?;
        let y = self.o_norm.forward(&y.reshape(&[1, y.dim(1), -1, self.dim])?)?;
        let y = y.reshape(&[1, y.dim(1), -1])?;
        self.o_proj.forward(&y.multiply(sigmoid(gate)?)?)
    }
}
