//! Mamba layer (arXiv 2312.00752).

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Sequences, Slot, State};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::conv1d::Conv1d;
use super::state_space::SelectiveScan;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::TokenMixer;
use crate::nn::norm::{Norm, NormArch};

/// Mamba layer: convolution, selective state space, gate.
pub struct Mamba {
    in_proj: Linear,
    conv1d: Conv1d,
    x_proj: Linear,
    dt_proj: Linear,
    space: SelectiveScan,
    out_proj: Linear,
    /// Norms of the steps `dt`, of `b` and of `c`, which some models have.
    norms: Option<[Norm; 3]>,
    sizes: MambaSizes,
    ops: &'static dyn Ops,
}

/// Parameters of the layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct MambaSizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Channels of the state space (`intermediate_size`).
    pub inner: usize,
    /// Elements of a channel's state.
    pub state: usize,
    /// Elements of the low-rank steps (`time_step_rank`).
    pub rank: usize,
    /// Kernel size of the convolution, in tokens.
    pub taps: usize,
    /// Norm of the steps `dt`, of `b` and of `c`; `None` if there is none.
    pub norm: Option<NormArch>,
}

impl Mamba {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, sizes: MambaSizes) -> mlxk_core::Result<Mamba> {
        let MambaSizes { hidden, inner, state, rank, taps, norm } = sizes;
        let norms = norm.map(|norm| {
            let mut load = |name, size| norm.load(w, name, size);
            Ok([
                load("dt_layernorm", rank)?,
                load("b_layernorm", state)?,
                load("c_layernorm", state)?,
            ])
        });
        Ok(Mamba {
            in_proj: Linear::load(w, "in_proj", 2 * inner, hidden)?,
            conv1d: Conv1d::load(w, "conv1d", inner, taps, true)?,
            x_proj: Linear::load(w, "x_proj", rank + 2 * state, inner)?,
            dt_proj: Linear::load(w, "dt_proj", inner, rank)?,
            space: SelectiveScan::load(w, inner, state)?,
            out_proj: Linear::load(w, "out_proj", hidden, inner)?,
            norms: norms.transpose()?,
            sizes,
            ops: w.ops(),
        })
    }
}

impl TokenMixer for Mamba {
    fn slot(&self) -> Slot {
        Slot::State(State::new(2))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [inner, rank, size] =
            [self.sizes.inner, self.sizes.rank, self.sizes.state].map(|n| n as i32);
        let [x, z] = self.ops.parts(&self.in_proj.forward(x)?, [inner; 2])?;
        let x = sequences.each_state(slot, [&x], |[x], state| {
            let [tail, _] = state.parts()?;
            self.conv1d.forward(x, tail)
        })?;
        let driven = self.x_proj.forward(&x)?;
        let [mut dt, mut b, mut c] = self.ops.parts(&driven, [rank, size, size])?;
        if let Some([dt_norm, b_norm, c_norm]) = &self.norms {
            (dt, b, c) = (dt_norm.forward(&dt)?, b_norm.forward(&b)?, c_norm.forward(&c)?);
        }
        let dt = self.dt_proj.forward(&dt)?;
        let y = sequences.each_state(slot, [&x, &dt, &b, &c], |inputs, state| {
            let [_, state] = state.parts()?;
            self.space.forward(inputs, state)
        })?;
        self.out_proj.forward(&self.ops.glu(&z, &y, Activation::Silu)?)
    }
}
