//! Properties of a mixture of experts that its weights do not show.

use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Groups, Routing};

use crate::checkpoint::config_error::invalid;
use crate::nn::mlp::MlpArch;

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
