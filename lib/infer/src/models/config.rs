//! config.json of the llama family, in the words of the file.

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::rope::{Rope, Scaling};

/// More than any model has; a larger number in a file is a mistake or an attack.
const MOST_LAYERS: usize = 10_000;
/// Larger dimensions do not fit MLX's shapes.
const LARGEST: usize = i32::MAX as usize;

/// The fields that the family reads; others are for others.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    pub rms_norm_eps: f32,
    hidden_act: Option<String>,
    max_position_embeddings: Option<u64>,
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<Scaling>,
    rope_parameters: Option<Scaling>,
    partial_rotary_factor: Option<f64>,
    pub tie_word_embeddings: Option<bool>,
    pub sliding_window: Option<i32>,
    pub use_sliding_window: Option<bool>,
    pub max_window_layers: Option<usize>,
    pub layer_types: Option<Vec<String>>,
    pub no_rope_layers: Option<Vec<u8>>,
    pub no_rope_layer_interval: Option<usize>,
}

impl Config {
    /// Reads `config`. Errors name the field that is missing or that no model of the family can have.
    pub fn read(config: &Value) -> Result<Config> {
        let config: Config =
            serde_path_to_error::deserialize(config).map_err(|e| match e.path().iter().next() {
                None => invalid(e.inner().to_string()),
                Some(_) => invalid(format!("`{}`: {}", e.path(), e.inner())),
            })?;
        config.check()?;
        Ok(config)
    }

    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// The position embeddings, with the base `theta` unless the file states one.
    pub fn rope(&self, theta: Option<f64>) -> Result<Rope> {
        let scaling = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let within = self.rope_parameters.as_ref();
        let theta = self.rope_theta.or(within.and_then(|r| r.rope_theta)).or(theta);
        let theta = theta.ok_or_else(|| invalid("`rope_theta` is missing".into()))?;
        let part = self.partial_rotary_factor.or(within.and_then(|r| r.partial_rotary_factor));
        let dims = (self.head_dim() as f64 * part.unwrap_or(1.0)) as usize;
        if dims == 0 || !dims.is_multiple_of(2) || dims > self.head_dim() {
            return Err(invalid(format!("{dims} elements of a head cannot rotate")));
        }
        Rope::new(dims, self.rope_traditional, theta, self.max_position_embeddings, scaling)
    }

    /// The window of layer `layer`: as `layer_types` says, or else as the family does.
    pub fn window(&self, layer: usize, family: bool) -> Result<Option<i32>> {
        let slides = match self.layer_types.as_ref().map(|types| types.get(layer)) {
            None => family,
            Some(Some(kind)) if kind == "full_attention" => false,
            Some(Some(kind)) if kind == "sliding_attention" => true,
            Some(Some(kind)) => {
                let message = format!("layers of type `{kind}` cannot run yet");
                return Err(Error::new(Kind::RuntimeIncompatible, "config.json", message));
            }
            Some(None) => return Err(invalid("`layer_types` does not name all layers".into())),
        };
        Ok(self.sliding_window.filter(|_| slides))
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("head_dim", self.head_dim.unwrap_or(1)),
        ];
        if let Some((name, size)) = sizes.into_iter().find(|&(_, n)| n == 0 || n > LARGEST) {
            return Err(invalid(format!("`{name}` cannot be {size}")));
        }
        if !(0.0..=1.0).contains(&self.rms_norm_eps) {
            return Err(invalid(format!("`rms_norm_eps` cannot be {}", self.rms_norm_eps)));
        }
        if self.num_hidden_layers > MOST_LAYERS {
            return Err(invalid(format!(
                "`num_hidden_layers` cannot be {}",
                self.num_hidden_layers
            )));
        }
        if !self.num_attention_heads.is_multiple_of(self.kv_heads()) {
            let (heads, kv) = (self.num_attention_heads, self.kv_heads());
            return Err(invalid(format!("{heads} query heads cannot share {kv} key heads")));
        }
        if self.sliding_window.is_some_and(|window| window < 1) {
            return Err(invalid("`sliding_window` is not positive".into()));
        }
        match self.hidden_act.as_deref() {
            None | Some("silu" | "swish") => Ok(()),
            Some(other) => {
                let message = format!("activation `{other}` cannot run yet");
                Err(Error::new(Kind::RuntimeIncompatible, "config.json", message))
            }
        }
    }
}

/// An error about what config.json says.
pub fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidModel, "config.json", message)
}
