//! Whisper checkpoints of OpenAI and of transformers in the form of MLX, which has OpenAI's names.

use mlxk_core::{Architecture, Result};

use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::reshape::transposed;

/// Parts of names in transformers and OpenAI's, replaced in this order.
const PARTS: [(&str, &str); 16] = [
    (".layers.", ".blocks."),
    (".self_attn_layer_norm.", ".attn_ln."),
    (".encoder_attn_layer_norm.", ".cross_attn_ln."),
    (".final_layer_norm.", ".mlp_ln."),
    (".self_attn.", ".attn."),
    (".encoder_attn.", ".cross_attn."),
    (".q_proj.", ".query."),
    (".k_proj.", ".key."),
    (".v_proj.", ".value."),
    (".out_proj.", ".out."),
    (".fc1.", ".mlp1."),
    (".fc2.", ".mlp2."),
    ("encoder.layer_norm.", "encoder.ln_post."),
    ("decoder.layer_norm.", "decoder.ln."),
    ("decoder.embed_tokens.", "decoder.token_embedding."),
    (".embed_positions.weight", ".positional_embedding"),
];

/// Names of the feed-forward layers in OpenAI's own files.
const SEQUENTIAL: [(&str, &str); 2] = [(".mlp.0.", ".mlp1."), (".mlp.2.", ".mlp2.")];

/// Tensors without use: the head, which is the transposed embedding, and masks.
const UNUSED: [&str; 4] =
    ["proj_out.weight", "decoder.mask", "decoder._mask", "_positional_embedding"];

/// Renames tensors and turns the convolutions [outs, ins, taps] to [outs, taps, ins].
pub fn sanitize(all: &mut Checkpoint) -> Result<()> {
    if let Some(config) = all.config.as_object_mut() {
        // The form of OpenAI does not say what it is.
        config.entry("model_type").or_insert_with(|| Architecture::Whisper.name().into());
    }
    all.remove(|name| UNUSED.iter().any(|end| name.ends_with(end)));
    all.rename(|name| {
        let name = name.strip_prefix("model.").unwrap_or(name).to_owned();
        let parts = PARTS.iter().chain(&SEQUENTIAL);
        Some(parts.fold(name, |name, (theirs, ours)| name.replace(theirs, ours)))
    });
    all.change(
        |name| name.ends_with("conv1.weight") || name.ends_with("conv2.weight"),
        |tensor| match tensor.shape.as_slice() {
            [_, ins, 3] if *ins != 3 => transposed(tensor),
            _ => tensor,
        },
    );
    Ok(())
}
