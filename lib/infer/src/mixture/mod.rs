//! Mixtures of experts (arXiv 1701.06538): of many feed-forward layers each token runs through a few.
//!
//! The router and the experts are computed twice: lazily by MLX, for a GPU, and at once on a CPU,
//! where only the chosen experts' weights are read.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::sigmoid;

use crate::activation::Activation;
use crate::kernels::Kernels;
use crate::models::config::invalid;
use crate::nn::{Feed, Linear, Mlp, MlpArch, NormArch};
use crate::weights::Cursor;

pub mod experts;
mod gather;
pub mod router;
mod stack;

pub use experts::Experts;
pub use router::{Choice, Groups, Router, Routing, Score};

/// What the weights of a mixture do not show.
#[derive(Clone, Debug)]
pub struct MoeArch {
    /// Experts.
    pub count: usize,
    /// Elements of the vectors between the halves of an expert.
    pub inner: usize,
    /// What bends an expert's gate.
    pub activation: Activation,
    /// How experts are chosen.
    pub routing: Routing,
    /// The feed-forward layer that every token runs through besides, if there is one.
    pub shared: Option<MlpArch>,
}

impl MoeArch {
    /// Errors if no mixture can be like this.
    pub fn check(&self) -> mlxk_core::Result<()> {
        let &MoeArch { count, inner, routing: Routing { chosen, groups, .. }, .. } = self;
        let most = i32::MAX as usize / 2;
        if chosen == 0 || chosen > count || count > most {
            return Err(invalid(format!("a token cannot run through {chosen} of {count} experts")));
        }
        if inner == 0 || inner > most {
            return Err(invalid(format!("experts cannot be {inner} wide")));
        }
        match groups {
            Some(Groups { count: groups, kept, judged })
                if groups == 0
                    || !count.is_multiple_of(groups)
                    || kept == 0
                    || judged > count / groups
                    || chosen > kept.saturating_mul(count / groups) =>
            {
                Err(invalid(format!("{kept} of {groups} groups of experts cannot be chosen from")))
            }
            _ => Ok(()),
        }
    }
}

/// A mixture, with what all tokens share.
pub struct Moe {
    gate: Router,
    switch_mlp: Experts,
    shared_expert: Option<Shared>,
    kernels: &'static Kernels,
}

struct Shared {
    mlp: Mlp,
    /// How much of it counts, by a sigmoid, if the checkpoint has that.
    gate: Option<Linear>,
}

impl Moe {
    /// The layer at `w`, from `hidden` elements to those of experts and back.
    pub fn load(
        w: &mut Cursor,
        hidden: usize,
        arch: &MoeArch,
        norm: NormArch,
    ) -> mlxk_core::Result<Moe> {
        arch.check()?;
        gather::from_other_forms(w, arch.count, arch.inner)?;
        let shared = |mlp: &MlpArch| {
            let gated = w.at("shared_expert_gate").has("weight");
            let gate = gated.then(|| Linear::load(w, "shared_expert_gate", 1, hidden));
            let mlp = Mlp::load(&mut w.at("shared_expert"), hidden, mlp, norm)?;
            Ok(Shared { mlp, gate: gate.transpose()? })
        };
        Ok(Moe {
            shared_expert: arch.shared.as_ref().map(shared).transpose()?,
            gate: Router::load(w, "gate", hidden, arch.count, arch.routing)?,
            switch_mlp: Experts::load(&mut w.at("switch_mlp"), hidden, arch)?,
            kernels: w.kernels(),
        })
    }
}

impl Feed for Moe {
    fn forward(&self, x: &Array) -> Result<Array> {
        let y = self.switch_mlp.forward(x, &self.gate.forward(x)?)?;
        let Some(shared) = &self.shared_expert else {
            return Ok(y);
        };
        let mut all = shared.mlp.forward(x)?;
        if let Some(gate) = &shared.gate {
            all = all.multiply(sigmoid(gate.forward(x)?)?)?;
        }
        (self.kernels.add)(&y, &all)
    }
}
