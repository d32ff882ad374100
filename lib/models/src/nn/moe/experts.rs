//! Experts of a mixture of experts.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::collective::all_sum;
use mlxk_tensor::ops::expert_stack::ExpertStack;
use mlxk_tensor::ops::moe_route::ExpertChoice;
use mlxk_tensor::ops::{Ops, moe_experts};

use super::arch::MoeArch;
use crate::checkpoint::cursor::Cursor;
use crate::nn::matrix::load_weight;
use crate::nn::shard;

/// Feed-forward layers of all experts.
pub struct Experts {
    op: moe_experts::Experts,
    /// True if other ranks have the rest of each expert, so that outputs are summed over ranks.
    partial: bool,
    ops: &'static dyn Ops,
}

impl Experts {
    /// Loads the experts at `w`, for vectors of `hidden` elements.
    ///
    /// # Errors
    /// If a tensor is missing, or of another shape or type.
    pub fn load(w: &mut Cursor, hidden: usize, arch: &MoeArch) -> mlxk_core::Result<Experts> {
        let &MoeArch { count, gated, activation, routing, .. } = arch;
        let inner = shard::experts(w, arch.inner)?;
        let partial = w.at("down_proj").partial();
        let mut load = |name, outs, ins| stack(w, name, count, outs, ins);
        let gate_proj = gated.then(|| load("gate_proj", inner, hidden)).transpose()?;
        let op = moe_experts::Experts {
            gate_proj,
            up_proj: load("up_proj", inner, hidden)?,
            down_proj: load("down_proj", hidden, inner)?,
            activation,
            before: routing.before,
        };
        Ok(Experts { op, partial, ops: w.ops() })
    }

    /// Weighted sum [1, rows, hidden] of the outputs of the chosen experts for `x` of that shape.
    pub fn forward(&self, x: &Array, choice: &ExpertChoice) -> Result<Array> {
        let y = self.ops.moe_experts(&self.op, x, choice)?;
        if self.partial { all_sum(&y) } else { Ok(y) }
    }
}

/// Loads the weights [count, outs, ins] of all experts, and their biases if the checkpoint has
/// them.
fn stack(
    w: &mut Cursor,
    name: &str,
    count: usize,
    outs: usize,
    ins: usize,
) -> mlxk_core::Result<ExpertStack> {
    let mut w = w.at(name);
    let weight = load_weight(&mut w, &[count, outs], ins)?;
    Ok(ExpertStack { weight, bias: w.optional("bias", &[count, outs])?, outs, ins })
}
