//! Parameters of a mixture of experts that its weights do not show.

use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Groups, Routing};

use crate::checkpoint::config_error::invalid;
use crate::nn::mlp::MlpArch;

/// Parameters of a mixture of experts that its weights do not show.
#[derive(Clone, Debug)]
pub struct MoeArch {
    /// Number of experts.
    pub count: usize,
    /// Elements of an expert's inner vectors (`moe_intermediate_size`).
    pub inner: usize,
    /// True if experts are gated linear units.
    pub gated: bool,
    /// Activation of an expert's gate, or of its up projection without a gate.
    pub activation: Activation,
    /// Parameters of the router.
    pub routing: Routing,
    /// Shared expert, which every token is routed to.
    pub shared: Option<SharedArch>,
}

/// Parameters of a shared expert.
#[derive(Clone, Copy, Debug)]
pub struct SharedArch {
    /// Feed-forward layer of the shared expert.
    pub mlp: MlpArch,
    /// True if the shared expert is weighted by a sigmoid gate.
    pub weighed: bool,
}

impl MoeArch {
    /// Errors if no mixture can have these parameters.
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
