//! Projector of two linear layers from a tower to a language model.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Result as Loaded;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Sizes and activation of a projector.
pub struct ProjectorArch {
    /// Names of the two layers.
    pub names: [&'static str; 2],
    /// Elements of a row of the tower.
    pub ins: usize,
    /// Elements between the layers.
    pub inner: usize,
    /// Elements of a row of the language model.
    pub outs: usize,
    /// Activation between the layers.
    pub activation: Activation,
}

/// Projector `second(act(first(x)))`.
pub struct Projector {
    first: Linear,
    second: Linear,
    activation: Activation,
    ops: &'static dyn Ops,
}

impl Projector {
    /// Loads the projector whose layers are at `w`.
    ///
    /// # Errors
    /// If tensors are missing, or of another shape or type.
    pub fn load(w: &mut Cursor, arch: &ProjectorArch) -> Loaded<Projector> {
        let [first, second] = arch.names;
        Ok(Projector {
            first: Linear::load(w, first, arch.inner, arch.ins)?,
            second: Linear::load(w, second, arch.outs, arch.inner)?,
            activation: arch.activation,
            ops: w.ops(),
        })
    }

    /// Rows [.., outs] for `x` [.., ins].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.second.forward(&self.ops.activate(&self.first.forward(x)?, self.activation)?)
    }
}
