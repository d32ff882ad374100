//! Memory cost of a model, and the check that it can run, before it is loaded.

use mlxk_core::{Facts, Found, Inspected, Plan, Result, inspect};
use mlxk_tensor::mlx;

use crate::admission;
use crate::cost::Cost;

/// Model that can run, with its cost; it need not be loaded.
pub struct Costed {
    /// Content of the model's directory.
    pub facts: Facts,
    /// Plan by which the model runs.
    pub plan: Plan,
    /// Cost of the whole model in memory.
    pub cost: Cost,
}

/// Inspects a model without loading it.
///
/// # Errors
/// If the model cannot run, or its weights do not fit into memory.
pub fn read(found: &Found) -> Result<Costed> {
    let costed = read_part(found)?;
    admission::fit(&costed.facts, &costed.plan, &costed.cost)?;
    Ok(costed)
}

/// Inspects a model without loading it, for a process that will load only a part of it.
///
/// # Errors
/// If the model cannot run.
pub fn read_part(found: &Found) -> Result<Costed> {
    let Inspected { facts, health, plan } = inspect(found)?;
    admission::admit_part(&facts, &health, &plan)?;
    let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, None)?;
    Ok(Costed { facts, plan, cost })
}
