//! Partition of a model among ranks, by the memory that each has.

use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::checkpoint::part::{Part, Share, Split, Stage};
use mlxk_models::checkpoint::weights::Inventory;
use mlxk_models::sketch::Sketch;

/// Parts of ranks with `memory` bytes each, and the bytes of their weights: the kind of parts that
/// `split` names, or by default shares of all layers (tensor parallelism) if they fit, as all ranks
/// then work concurrently, or else stages of layers in proportion to memory (pipeline parallelism).
///
/// # Errors
/// If the model cannot be split in this way, or a part does not fit into the memory of its rank.
pub fn choose(
    facts: &Facts,
    plan: &Plan,
    memory: &[u64],
    split: Option<Split>,
) -> Result<Vec<(Part, u64)>> {
    let sketch = |part| Ok(Sketch::of(facts, plan, Some(part))?.inventory);
    match split {
        Some(Split::Tensor) => shares(sketch, memory),
        Some(Split::Pipeline) => stages(sketch, memory),
        None => shares(sketch, memory).or_else(|shared| {
            stages(sketch, memory).map_err(|staged| {
                let message = format!("{}; {}", shared.message, staged.message);
                Error::new(staged.kind, "", message)
            })
        }),
    }
}

/// Shares of every layer, one for each rank, and their bytes.
fn shares(sketch: impl Fn(Part) -> Result<Inventory>, memory: &[u64]) -> Result<Vec<(Part, u64)>> {
    let size = memory.len();
    let shares = memory.iter().enumerate().map(|(rank, &free)| {
        let part = Part::Share(Share { rank, size });
        let Inventory { bytes, partial, .. } = sketch(part)?;
        if partial.is_empty() {
            return Err(apart(format!("its layers cannot be shared by {size} ranks")));
        }
        fits(rank, bytes, free)?;
        Ok((part, bytes))
    });
    shares.collect()
}

/// Stages of a pipeline, one for each rank, and their bytes: layers in proportion to memory. The last
/// rank has the first layers.
fn stages(sketch: impl Fn(Part) -> Result<Inventory>, memory: &[u64]) -> Result<Vec<(Part, u64)>> {
    let size = memory.len();
    let staged = |rank, first, end, layers| Part::Stage(Stage { rank, first, end, layers });
    let of_all = sketch(staged(0, 0, usize::MAX, 0))?;
    let Some(layers) = of_all.layers else {
        return Err(apart("its layers cannot be loaded one without another".to_owned()));
    };
    if layers < size {
        return Err(apart(format!("{layers} layers are too few for {size} ranks")));
    }
    let ends = sketch(staged(0, 0, 0, layers))?.bytes;
    let room: Vec<u64> = memory.iter().map(|free| free.saturating_sub(ends)).collect();
    let mut end = layers;
    let stages = given_out(layers, &room).into_iter().enumerate().map(|(rank, count)| {
        let part = staged(rank, end - count, end, layers);
        end -= count;
        let bytes = sketch(part)?.bytes;
        fits(rank, bytes, memory[rank])?;
        Ok((part, bytes))
    });
    stages.collect()
}

/// Numbers of layers in proportion to `room`, each at least 1, that add up to `layers`.
fn given_out(layers: usize, room: &[u64]) -> Vec<usize> {
    let spare = (layers - room.len()) as u128;
    let all: u128 = room.iter().map(|&room| u128::from(room).max(1)).sum();
    let mut before = 0;
    let ends = room.iter().map(|&room| {
        before += u128::from(room).max(1);
        ((2 * before * spare + all) / (2 * all)) as usize
    });
    let ends: Vec<usize> = ends.collect();
    ends.iter().enumerate().map(|(i, end)| 1 + end - if i == 0 { 0 } else { ends[i - 1] }).collect()
}

fn fits(rank: usize, bytes: u64, free: u64) -> Result<()> {
    let message = format!("the part of rank {rank} needs {bytes} bytes, it may use {free}");
    match bytes <= free {
        true => Ok(()),
        false => Err(Error::new(Kind::InsufficientMemory, "", message)),
    }
}

fn apart(why: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_given_out_by_room_and_everyone_gets_one() {
        assert_eq!(given_out(30, &[100, 100]), [15, 15]);
        assert_eq!(given_out(30, &[300, 100]), [22, 8]);
        assert_eq!(given_out(4, &[1 << 40, 0, 0]), [2, 1, 1]);
        assert_eq!(given_out(2, &[0, 0]), [1, 1]);
        assert_eq!(given_out(7, &[u64::MAX; 3]), [2, 3, 2]);
    }
}
