//! Steps that convert a checkpoint of another form to MLX's.

use mlxk_core::Result;

use super::checkpoint::{Checkpoint, trained};
use super::experts::{self, ExpertLayout};
use super::packed;

/// Step that changes names, shapes or elements. Errors name the tensor that cannot be changed.
pub type Sanitize = fn(&mut Checkpoint) -> Result<()>;

/// Converts `checkpoint` to MLX's form, with the steps and the expert layout of its architecture.
/// Errors name the tensor that does not fit.
pub fn sanitize(
    checkpoint: &mut Checkpoint,
    steps: &[Sanitize],
    experts: &ExpertLayout,
) -> Result<()> {
    checkpoint.remove(|name| {
        ["rotary_emb.inv_freq", "rope.inv_freq"].iter().any(|end| name.ends_with(end))
    });
    packed::unpack(checkpoint)?;
    steps.iter().try_for_each(|step| step(checkpoint))?;
    convolutions(checkpoint);
    experts::gather(checkpoint, experts)
}

/// Transposes convolutions in training form [channels, 1, taps] to [channels, taps, 1].
fn convolutions(all: &mut Checkpoint) {
    let ends = ["conv1d.weight", "conv.conv.weight"];
    all.change(
        |name| ends.iter().any(|end| name.ends_with(end)),
        |tensor| match (trained(&tensor), tensor.shape.as_slice()) {
            (true, &[channels, _, taps]) => tensor.shaped(vec![channels, taps, 1]),
            _ => tensor,
        },
    );
}
