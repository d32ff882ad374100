//! config.json of the llama family; fields are named as in the file.

use mlxk_core::Result;
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::checkpoint::config_error::{even, fields, invalid, most_layers, positive, unknown};
use crate::nn::norm::{NormArch, NormKind};

/// Fields of config.json that the llama family shares; a model reads others by [`Config::get`].
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fields are the keys of config.json, documented by transformers")]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f32>,
    pub hidden_act: Option<String>,
    max_position_embeddings: Option<u64>,
    rope_theta: Option<f64>,
    #[serde(default)]
    pub rope_traditional: bool,
    rope_scaling: Option<Scaling>,
    pub rope_parameters: Option<Scaling>,
    original_max_position_embeddings: Option<f64>,
    pub partial_rotary_factor: Option<f64>,
    pub tie_word_embeddings: Option<bool>,
    pub sliding_window: Option<i32>,
    pub use_sliding_window: Option<bool>,
    pub max_window_layers: Option<usize>,
    pub layer_types: Option<Vec<String>>,
    pub no_rope_layers: Option<Vec<u8>>,
    pub no_rope_layer_interval: Option<usize>,
    /// All fields of the file.
    #[serde(skip)]
    all: Map<String, Value>,
}

impl Config {
    /// Reads `config`. Errors name the field that is missing, of another type, or out of range.
    pub fn read(config: &Value) -> Result<Config> {
        let mut read: Config = fields(config)?;
        read.check()?;
        read.all = config.as_object().cloned().unwrap_or_default();
        Ok(read)
    }

    /// Reads `config` with `defaults` for absent fields.
    pub fn read_or(config: &Value, defaults: Value) -> Result<Config> {
        Config::read(&given(config, defaults))
    }

    /// Field `name`; `None` if it is absent. Errors if it is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let value = self.all.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| invalid(format!("`{name}`: {e}")))
    }

    /// Field `name`. Errors if it is absent or of another type.
    pub fn need<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.get(name)?.ok_or_else(|| invalid(format!("missing field `{name}`")))
    }

    /// RMS norm with the epsilon `rms_norm_eps`. Errors if that is absent.
    pub fn rms_norm(&self) -> Result<NormArch> {
        let eps =
            self.rms_norm_eps.ok_or_else(|| invalid("missing field `rms_norm_eps`".into()))?;
        Ok(NormArch { kind: NormKind::Rms, eps })
    }

    /// Layer norm with the epsilon in field `eps`. Errors if that is absent.
    pub fn layer_norm(&self, eps: &str) -> Result<NormArch> {
        Ok(NormArch { kind: NormKind::Layer, eps: self.need(eps)? })
    }

    /// Heads of keys and values; by default those of queries.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Elements of a head; by default `hidden_size / num_attention_heads`.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Base of the rotary position embedding, `theta` by default. Errors if neither is given.
    pub fn theta(&self, theta: Option<f64>) -> Result<f64> {
        let within = self.rope_parameters.as_ref();
        let theta = self.rope_theta.or(within.and_then(|r| r.rope_theta)).or(theta);
        theta.ok_or_else(|| invalid("`rope_theta` is missing".into()))
    }

    /// Rotary position embedding with the scaling that the file states; the base is `theta` by
    /// default.
    pub fn rope(&self, theta: Option<f64>) -> Result<Rope> {
        let scaling = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let mut scaling = scaling.cloned().unwrap_or_default();
        let length = &mut scaling.original_max_position_embeddings;
        *length = length.or(self.original_max_position_embeddings);
        self.rope_of(self.theta(theta)?, &scaling)
    }

    /// RoPE parameters of layers of type `kind`, if the file states them by layer type.
    pub fn scaling_of(&self, kind: &str) -> Result<Option<Scaling>> {
        let types: Option<Map<String, Value>> = self.get("rope_parameters")?;
        let of = |value: &Value| {
            let place = format!("`rope_parameters.{kind}`");
            Scaling::deserialize(value).map_err(|e| invalid(format!("{place}: {e}")))
        };
        types.as_ref().and_then(|types| types.get(kind)).map(of).transpose()
    }

    /// Number of rotated elements of a head. Errors if it is zero, odd or larger than a head.
    pub fn rotary(&self, dims: usize) -> Result<usize> {
        if dims == 0 || !dims.is_multiple_of(2) || dims > self.head_dim() {
            return Err(invalid(format!("{dims} elements of a head cannot rotate")));
        }
        Ok(dims)
    }

    /// Rotary position embedding with a given base and scaling.
    pub fn rope_of(&self, theta: f64, scaling: &Scaling) -> Result<Rope> {
        let part = self.partial_rotary_factor.or(scaling.partial_rotary_factor);
        let part = part.filter(|_| scaling.kind() != "proportional").unwrap_or(1.0);
        let dims = self.rotary((self.head_dim() as f64 * part) as usize)?;
        Rope::new(dims, self.rope_traditional, theta, self.max_position_embeddings, Some(scaling))
    }

    /// Sliding window of layer `layer`: by `layer_types`, or if that is absent by `family`, which
    /// is true if the layer slides in this family. Errors if the type is unknown or missing.
    pub fn window(&self, layer: usize, family: bool) -> Result<Option<i32>> {
        let slides = match self.layer_types.as_ref().map(|types| types.get(layer)) {
            None => family,
            Some(Some(kind)) if kind == "full_attention" => false,
            Some(Some(kind)) if kind == "sliding_attention" => true,
            Some(Some(kind)) => {
                return Err(unknown(format!("layers of type `{kind}` cannot run yet")));
            }
            Some(None) => return Err(invalid("`layer_types` does not name all layers".into())),
        };
        Ok(self.sliding_window.filter(|_| slides))
    }

    /// Errors if a field is out of range.
    fn check(&self) -> Result<()> {
        let of_head = self.hidden_size.checked_div(self.num_attention_heads);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("head_dim", self.head_dim.or(of_head).unwrap_or_default()),
        ];
        positive(&sizes)?;
        if let Some(eps) = self.rms_norm_eps.filter(|eps| !(0.0..=1.0).contains(eps)) {
            return Err(invalid(format!("`rms_norm_eps` cannot be {eps}")));
        }
        most_layers(self.num_hidden_layers)?;
        even(self.num_attention_heads, self.kv_heads())?;
        if self.sliding_window.is_some_and(|window| window < 1) {
            return Err(invalid("`sliding_window` is not positive".into()));
        }
        Ok(())
    }
}

/// Configuration `config` with `defaults` for absent fields.
pub fn given(config: &Value, defaults: Value) -> Value {
    let mut all = config.clone();
    if let (Value::Object(all), Value::Object(defaults)) = (&mut all, defaults) {
        for (name, value) in defaults {
            let there = all.entry(name).or_insert(Value::Null);
            if there.is_null() {
                *there = value;
            }
        }
    }
    all
}

/// Configuration with fields renamed; `names` are pairs of the old and the new name.
pub fn renamed(config: &Value, names: &[(&str, &str)]) -> Value {
    let mut all = config.clone();
    if let Value::Object(all) = &mut all {
        for (theirs, ours) in names {
            if let Some(value) = all.remove(*theirs) {
                all.insert((*ours).to_owned(), value);
            }
        }
    }
    all
}
