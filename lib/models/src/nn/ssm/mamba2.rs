//! Mamba 2 layer (arXiv 2405.21060), which hybrid models have beside attention.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Sequences, Slot, State};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::gated_norm::Order;
use mlxk_tensor::ops::ssd::SsdSizes;
use serde::Deserialize;

use super::conv1d::Conv1d;
use super::gated_norm::GatedNorm;
use super::state_space::Ssd;
use crate::checkpoint::config_error::{invalid, positive};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::TokenMixer;

/// Mamba 2 layer: convolution, state space, gated norm.
pub struct Mamba2 {
    in_proj: Linear,
    conv1d: Conv1d,
    ssd: Ssd,
    /// Gated norm; `None` if there is only a gate.
    norm: Option<GatedNorm>,
    out_proj: Linear,
    /// Elements of the gate, of the convolution's input, and of the steps.
    projected: [i32; 3],
    /// Elements of the state space's input, of `b` and of `c` after the convolution.
    convolved: [i32; 3],
    ops: &'static dyn Ops,
}

/// Parameters of the layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct Mamba2Arch {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Sizes of the state space.
    pub ssd: SsdSizes,
    /// Kernel size of the convolution, in tokens.
    pub taps: usize,
    /// Norm of the state space's output; `None` if there is only a gate.
    pub norm: Option<Mamba2Norm>,
}

/// Gated norm of the output of Mamba 2's state space.
#[derive(Clone, Copy, Debug)]
pub struct Mamba2Norm {
    /// Epsilon of the RMS norm.
    pub eps: f32,
    /// Order of gate and norm.
    pub order: Order,
    /// True if each group of heads is normed by itself.
    pub grouped: bool,
}

/// Least and largest step, as config.json has them (`time_step_limit`): `null`, as which `Infinity`
/// is read, is no limit.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Limits(Option<f32>, Option<f32>);

impl Limits {
    /// Least and largest step as numbers.
    pub fn range(self) -> (f32, f32) {
        (self.0.unwrap_or(0.0), self.1.unwrap_or(f32::INFINITY))
    }
}

impl Mamba2Arch {
    /// Errors if no layer can have these parameters.
    pub fn check(&self) -> mlxk_core::Result<()> {
        let SsdSizes { heads, head_dim, groups, state, dt: (least, most) } = self.ssd;
        positive(&[
            ("hidden_size", self.hidden),
            ("heads of a state space", heads),
            ("elements of a head", head_dim),
            ("groups of heads", groups),
            ("elements of a state", state),
            ("taps of a convolution", self.taps),
        ])?;
        if !heads.is_multiple_of(groups) {
            return Err(invalid(format!("{heads} heads cannot be {groups} groups")));
        }
        if least.is_nan() || most.is_nan() || least > most {
            return Err(invalid(format!("steps cannot be from {least} to {most}")));
        }
        Ok(())
    }
}

impl Mamba2 {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, arch: &Mamba2Arch) -> mlxk_core::Result<Mamba2> {
        let Mamba2Arch { hidden, ssd, taps, norm } = *arch;
        let (inner, shared) = (ssd.heads * ssd.head_dim, ssd.groups * ssd.state);
        let channels = inner + 2 * shared;
        let normed = |w: &mut Cursor, norm: Mamba2Norm| {
            let group = if norm.grouped { inner / ssd.groups } else { inner };
            GatedNorm::load(w, "norm", inner, group, norm.eps, norm.order)
        };
        Ok(Mamba2 {
            in_proj: Linear::load(w, "in_proj", inner + channels + ssd.heads, hidden)?,
            conv1d: Conv1d::load(w, "conv1d", channels, taps, true)?,
            norm: norm.map(|norm| normed(w, norm)).transpose()?,
            out_proj: Linear::load(w, "out_proj", hidden, inner)?,
            projected: [inner, channels, ssd.heads].map(|n| n as i32),
            convolved: [inner, shared, shared].map(|n| n as i32),
            ssd: Ssd::load(w, ssd)?,
            ops: w.ops(),
        })
    }
}

impl TokenMixer for Mamba2 {
    /// State of the convolution, and of the state space.
    fn slot(&self) -> Slot {
        Slot::State(State::new(2))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [gate, xbc, dt] = self.ops.parts(&self.in_proj.forward(x)?, self.projected)?;
        let y = sequences.each_state(slot, [&xbc, &dt], |[xbc, dt], state| {
            let [tail, state] = state.parts()?;
            let xbc = self.conv1d.forward(xbc, tail)?;
            let [x, b, c] = self.ops.parts(&xbc, self.convolved)?;
            self.ssd.forward([&x, &b, &c, dt], state)
        })?;
        let y = match &self.norm {
            Some(norm) => norm.forward(&y, &gate)?,
            None => self.ops.glu(&gate, &y, Activation::Silu)?,
        };
        self.out_proj.forward(&y)
    }
}
