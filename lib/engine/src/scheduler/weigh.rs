//! Weighing of a model: whether it can run, and its cost in memory, known before it is loaded.

use mlxk_core::{Facts, Found, Inspected, Plan, Result, inspect};
use mlxk_tensor::mlx;

use crate::admission;
use crate::cost::Cost;

/// Model that can run and is not loaded.
pub struct Weighed {
    /// Content of the model's directory.
    pub facts: Facts,
    /// Plan by which the model runs.
    pub plan: Plan,
    /// Cost of the whole model in memory.
    pub cost: Cost,
}

/// Reads what a model is, without loading it.
///
/// # Errors
/// If the model cannot run, or its weights do not fit into memory.
pub fn weigh(found: &Found) -> Result<Weighed> {
    let weighed = weigh_part(found)?;
    admission::fit(&weighed.facts, &weighed.plan, &weighed.cost)?;
    Ok(weighed)
}

/// Reads what a model is of which only a part will be loaded here.
///
/// # Errors
/// If the model cannot run.
pub fn weigh_part(found: &Found) -> Result<Weighed> {
    let Inspected { facts, health, plan } = inspect(found)?;
    admission::admit_part(&facts, &health, &plan)?;
    let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, None)?;
    Ok(Weighed { facts, plan, cost })
}
