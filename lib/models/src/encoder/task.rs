//! Adapters of tasks inside a checkpoint (LoRA, arXiv 2106.09685), as Jina embeddings v3 has them: a
//! low-rank addition to each matrix for each task that config.json lists.

use mlx_rs::Dtype;
use mlxk_core::{Error, Result};
use mlxk_tensor::floats;
use serde_json::Value;

use crate::checkpoint::config_error::invalid;
use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::tensor::{Bytes, Tensor};

/// End of the name of the first factor, after that of its layer.
const FIRST: &str = "parametrizations.weight.0.lora_A";
/// End of the name of the second factor.
const SECOND: &str = "parametrizations.weight.0.lora_B";

/// Names of the tasks that `config` lists, in the order of their adapters.
pub fn tasks(config: &Value) -> Vec<&str> {
    let listed = config.get("lora_adaptations").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Adds the adapter of `task` to the matrices of a checkpoint.
///
/// # Errors
/// If config.json does not list the task, or an adapter does not fit its matrix.
pub fn adapt(all: &mut Checkpoint, task: &str) -> Result<()> {
    let known = tasks(&all.config);
    let Some(number) = known.iter().position(|known| *known == task) else {
        let message = format!("the model has no adapter for {task:?}");
        return Err(Error::validation(message).hint(format!("it has {}", known.join(", "))));
    };
    let alpha = all.config.get("lora_alpha").and_then(Value::as_f64).unwrap_or(1.0);
    let layers = all.tensors.keys().filter_map(|name| name.strip_suffix(FIRST).map(str::to_owned));
    for layer in layers.collect::<Vec<_>>() {
        let factors =
            [all.take(&format!("{layer}{FIRST}"))?, all.take(&format!("{layer}{SECOND}"))?];
        let name = format!("{layer}weight");
        let weight = all.take(&name)?;
        let [left, right] = ordered(&weight, factors, number)
            .ok_or_else(|| invalid(format!("the adapter of {name} does not fit it")))?;
        all.tensors.insert(name, sum(weight, left, right, number, alpha));
    }
    Ok(())
}

/// The factor [tasks, rows, rank] and the factor [tasks, rank, columns] of a matrix.
fn ordered(weight: &Tensor, factors: [Tensor; 2], task: usize) -> Option<[Tensor; 2]> {
    let [first, second] = factors;
    let &[rows, columns] = weight.shape.as_slice() else { return None };
    let fits = |left: &Tensor, right: &Tensor| match (left.shape.as_slice(), right.shape.as_slice())
    {
        (&[n, r, rank], &[m, other, c]) => {
            n == m && task < n && r == rows && c == columns && rank == other && rank > 0
        }
        _ => false,
    };
    let floats = [&weight.dtype, &first.dtype, &second.dtype];
    match () {
        () if floats.iter().any(|dtype| floats::kind(**dtype).is_none()) => None,
        () if fits(&second, &first) => Some([second, first]),
        () if fits(&first, &second) => Some([first, second]),
        () => None,
    }
}

/// `weight + alpha / rank * left[task] right[task]`, in f32.
fn sum(weight: Tensor, left: Tensor, right: Tensor, task: usize, alpha: f64) -> Tensor {
    let rank = left.shape[2];
    let (rows, columns) = (weight.shape[0], weight.shape[1]);
    let scale = (alpha / rank as f64) as f32;
    Tensor::made(Dtype::Float32, weight.shape.clone(), move || {
        let mut sum = elements(&weight)?;
        let left = &elements(&left)?[task * rows * rank..];
        let right = &elements(&right)?[task * rank * columns..];
        for (row, left) in sum.chunks_exact_mut(columns).zip(left.chunks_exact(rank)) {
            for (factor, right) in left.iter().zip(right.chunks_exact(columns)) {
                row.iter_mut().zip(right).for_each(|(sum, x)| *sum += scale * factor * x);
            }
        }
        Bytes::of(&sum.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
    })
}

/// Elements of a tensor of floats.
fn elements(tensor: &Tensor) -> Result<Vec<f32>> {
    let kind = floats::kind(tensor.dtype).ok_or_else(|| invalid("not floats".to_owned()))?;
    tensor.read(|bytes| floats::widen(bytes, kind))
}
