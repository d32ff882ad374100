//! Router of a mixture of experts.

use mlx_rs::error::Result;
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::moe_route::{ExpertChoice, Routing};

use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Linear layer from hidden states to a logit per expert, and the choice of experts by these
/// logits.
pub struct Router {
    gate: Linear,
    /// Correction `[experts]` that is added to scores to choose experts, not to weight them.
    e_score_correction_bias: Option<Array>,
    routing: Routing,
    ops: &'static dyn Ops,
}

impl Router {
    /// Loads the layer `name` of `w` for `count` experts, with a correction if the checkpoint has
    /// one.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        hidden: usize,
        count: usize,
        routing: Routing,
    ) -> mlxk_core::Result<Router> {
        let correction = w.at(name).optional("e_score_correction_bias", &[count])?;
        let wide = |bias: Array| bias.as_dtype(Dtype::Float32).map_err(mlx::failed);
        Ok(Router {
            e_score_correction_bias: correction.map(wide).transpose()?,
            gate: Linear::load(w, name, count, hidden)?,
            routing,
            ops: w.ops(),
        })
    }

    /// Experts of each row of `x` [1, rows, hidden], and their weights.
    pub fn forward(&self, x: &Array) -> Result<ExpertChoice> {
        let logits = match self.routing.wide {
            true => self.gate.forward(&x.as_dtype(Dtype::Float32)?)?,
            false => self.gate.forward(x)?,
        };
        let logits = logits.reshape(&[-1, logits.dim(-1)])?;
        self.ops.moe_route(&self.routing, &logits, self.e_score_correction_bias.as_ref())
    }
}
