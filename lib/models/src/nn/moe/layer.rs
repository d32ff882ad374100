//! Feed-forward layer that is a mixture of experts.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::sigmoid;
use mlxk_tensor::ops::Ops;

use super::{Experts, MoeArch, Router, SharedArch};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::Mlp;
use crate::nn::norm::NormArch;

/// Mixture of experts, with the shared expert if there is one.
pub struct Moe {
    gate: Router,
    /// Projections to the smaller vectors of the experts and back, if the checkpoint has them.
    latent: Option<[Linear; 2]>,
    switch_mlp: Experts,
    shared_expert: Option<SharedExpert>,
    ops: &'static dyn Ops,
}

/// Shared expert, which every token is routed to.
struct SharedExpert {
    mlp: Mlp,
    /// Projection to the logit of the sigmoid that weights the shared expert.
    gate: Option<Linear>,
}

impl Moe {
    /// Loads the layer at `w`, for hidden vectors of `hidden` elements.
    pub fn load(
        w: &mut Cursor,
        hidden: usize,
        arch: &MoeArch,
        norm: NormArch,
    ) -> mlxk_core::Result<Moe> {
        arch.check()?;
        let fewer = w.at("fc1_latent_proj").has("weight");
        let latent = fewer.then(|| latent(w, hidden)).transpose()?;
        let seen = latent.as_ref().map_or(hidden, |(size, _)| *size);
        let shared = |SharedArch { mlp, weighed }: &SharedArch| {
            let gate = weighed.then(|| Linear::load(w, "shared_expert_gate", 1, hidden));
            let mlp = Mlp::load(&mut w.at("shared_expert"), hidden, mlp, norm)?;
            Ok(SharedExpert { mlp, gate: gate.transpose()? })
        };
        Ok(Moe {
            shared_expert: arch.shared.as_ref().map(shared).transpose()?,
            gate: Router::load(w, "gate", hidden, arch.count, arch.routing)?,
            switch_mlp: Experts::load(&mut w.at("switch_mlp"), seen, arch)?,
            latent: latent.map(|(_, layers)| layers),
            ops: w.ops(),
        })
    }
}

impl FeedForward for Moe {
    fn forward(&self, x: &Array) -> Result<Array> {
        let choice = self.gate.forward(x)?;
        let y = match &self.latent {
            Some([into, back]) => {
                back.forward(&self.switch_mlp.forward(&into.forward(x)?, &choice)?)?
            }
            None => self.switch_mlp.forward(x, &choice)?,
        };
        let Some(shared) = &self.shared_expert else {
            return Ok(y);
        };
        let mut all = shared.mlp.forward(x)?;
        if let Some(gate) = &shared.gate {
            all = all.multiply(sigmoid(gate.forward(x)?)?)?;
        }
        self.ops.add(&y, &all)
    }
}

/// Size of the experts' vectors, and the projections to them and back.
fn latent(w: &mut Cursor, hidden: usize) -> mlxk_core::Result<(usize, [Linear; 2])> {
    let (shape, _) = w.at("fc1_latent_proj").form("weight")?;
    let size = shape.first().copied().unwrap_or_default();
    let into = Linear::load(w, "fc1_latent_proj", size, hidden)?;
    Ok((size, [into, Linear::load(w, "fc2_latent_proj", hidden, size)?]))
}
