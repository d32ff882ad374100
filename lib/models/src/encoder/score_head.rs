//! Head of a language model that scores whole sequences, `ForSequenceClassification` of transformers.

use mlx_rs::Array;
use mlxk_core::Result;
use mlxk_tensor::array::elements;
use serde_json::Value;

use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Name of the layer in a checkpoint.
const NAME: &str = "score";

/// Head in place of the one for the next token.
pub struct ScoreHead {
    linear: Linear,
    /// Number of scores of a sequence.
    pub labels: usize,
}

impl ScoreHead {
    /// Loads the head of the model that `config` describes; `None` if the checkpoint has none.
    ///
    /// # Errors
    /// If its tensors are of another shape.
    pub fn load(config: &Value, w: &mut Cursor) -> Result<Option<ScoreHead>> {
        let Ok((shape, _)) = w.form(&format!("{NAME}.weight")) else { return Ok(None) };
        let size = config.get("hidden_size").and_then(Value::as_u64);
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| invalid("`hidden_size` is missing".to_owned()))?;
        let labels = shape.first().copied().unwrap_or_default();
        let linear = Linear::load(w, NAME, labels, size)?;
        Ok(Some(ScoreHead { linear, labels }))
    }

    /// Scores of sequences, `labels` of each, of the vectors of their last tokens [1, sequences,
    /// hidden].
    ///
    /// # Errors
    /// If MLX fails.
    pub fn forward(&self, last: &Array) -> mlx_rs::error::Result<Vec<f32>> {
        Ok(elements(&self.linear.forward(last)?.as_type::<f32>()?)?.to_vec())
    }
}
