//! Embedding, final norm and head of a language model.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::tanh;
use mlxk_tensor::mlx;

use super::linear::{Embedding, Linear};
use super::norm::{Norm, NormArch};
use crate::checkpoint::cursor::Cursor;

/// Embedding before the first layer, and norm and head after the last.
pub struct EmbedHead {
    embeddings: Embedding,
    norm: Norm,
    /// Head; `None` if it is the transposed embedding.
    lm_head: Option<Linear>,
    scale: f32,
    softcap: Option<f32>,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
}

/// Parameters of [`EmbedHead`] that its weights do not show.
pub struct EmbedHeadArch<'a> {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Name of the embedding tensor, from the root of the checkpoint.
    pub embeddings: &'a str,
    /// Name of the final norm, and its kind.
    pub norm: (&'a str, NormArch),
    /// True if the head is the transposed embedding (`tie_word_embeddings`).
    pub tied: bool,
    /// Factor of the logits.
    pub scale: f32,
    /// Bound of the scaled logits: `softcap * tanh(logits / softcap)`.
    pub softcap: Option<f32>,
}

impl EmbedHead {
    /// Loads the tensors from the root `w` of the checkpoint. A head in a checkpoint with tied
    /// embeddings is discarded.
    pub fn load(w: &mut Cursor, arch: &EmbedHeadArch) -> mlxk_core::Result<EmbedHead> {
        let &EmbedHeadArch { vocabulary, hidden, scale, softcap, .. } = arch;
        if arch.tied {
            w.discard(|name| name == "lm_head.weight");
        }
        let lm_head = (!arch.tied).then(|| Linear::load(w, "lm_head", vocabulary, hidden));
        let (name, norm) = arch.norm;
        Ok(EmbedHead {
            embeddings: Embedding::load(w, arch.embeddings, vocabulary, hidden)?,
            norm: norm.load(w, name, hidden)?,
            lm_head: lm_head.transpose()?,
            scale,
            softcap,
            vocabulary,
        })
    }

    /// Embeddings [1, rows, hidden] of `ids` [1, rows].
    pub fn embed(&self, ids: &Array) -> Result<Array> {
        self.embeddings.forward(ids)
    }

    /// Logits [1, rows, vocabulary] of the last layer's output.
    pub fn head(&self, h: &Array) -> Result<Array> {
        let h = self.norm.forward(h)?;
        let mut logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(&h)?,
            None => self.embeddings.as_linear(&h)?,
        };
        if self.scale != 1.0 {
            logits = logits.multiply(mlx::number(self.scale, &logits)?)?;
        }
        match self.softcap {
            Some(cap) => {
                let cap = mlx::number(cap, &logits)?;
                tanh(logits.divide(&cap)?)?.multiply(cap)
            }
            None => Ok(logits),
        }
    }
}
