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
    /// Whether experts have gates.
    pub gated: bool,
    /// What bends an expert's gate, or else the elements themselves.
    pub activation: Activation,
    /// How experts are chosen.
    pub routing: Routing,
    /// The feed-forward layer that every token runs through besides, if there is one.
    pub shared: Option<SharedArch>,
}

/// What the weights of a layer that every token runs through do not show.
#[derive(Clone, Copy, Debug)]
pub struct SharedArch {
    /// The layer.
    pub mlp: MlpArch,
    /// Whether another says how much of it counts.
    pub weighed: bool,
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
            Some(Groups { count: groups, kept, judged, .. })
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
    /// To the fewer elements that experts see and back, if the checkpoint has that.
    latent: Option<[Linear; 2]>,
    switch_mlp: Experts,
    shared_expert: Option<Shared>,
    kernels: &'static Kernels,
}

struct Shared {
    mlp: Mlp,
    /// How much of it counts, by a sigmoid.
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
        let fewer = w.at("fc1_latent_proj").has("weight");
        let latent = fewer.then(|| latent(w, hidden)).transpose()?;
        let seen = latent.as_ref().map_or(hidden, |(size, _)| *size);
        let shared = |SharedArch { mlp, weighed }: &SharedArch| {
            let gate = weighed.then(|| Linear::load(w, "shared_expert_gate", 1, hidden));
            let mlp = Mlp::load(&mut w.at("shared_expert"), hidden, mlp, norm)?;
            Ok(Shared { mlp, gate: gate.transpose()? })
        };
        Ok(Moe {
            shared_expert: arch.shared.as_ref().map(shared).transpose()?,
            gate: Router::load(w, "gate", hidden, arch.count, arch.routing)?,
            switch_mlp: Experts::load(&mut w.at("switch_mlp"), seen, arch)?,
            latent: latent.map(|(_, layers)| layers),
            kernels: w.kernels(),
        })
    }
}

impl Feed for Moe {
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
        (self.kernels.add)(&y, &all)
    }
}

/// How many elements experts see, and what leads there and back.
fn latent(w: &mut Cursor, hidden: usize) -> mlxk_core::Result<(usize, [Linear; 2])> {
    let (shape, _) = w.at("fc1_latent_proj").form("weight")?;
    let size = shape.first().copied().unwrap_or_default();
    let into = Linear::load(w, "fc1_latent_proj", size, hidden)?;
    Ok((size, [into, Linear::load(w, "fc2_latent_proj", hidden, size)?]))
}
