//! Metadata of a model in a GGUF file: dimensions, typed access to keys, and common config.json
//! fields.

use serde_json::{Value, json};

use crate::read::{Gguf, Tensor};
use crate::value::FromValue;

/// Maximum number of layers in a file; a larger number indicates damage or an attack.
const MAX_LAYERS: usize = 10_000;

/// Maximum integer in the metadata, so that no product of dimensions overflows.
const MAX_INTEGER: usize = 1 << 28;

/// Traits of an architecture that reading its metadata depends on.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Prefix of the architecture's metadata keys.
    pub prefix: &'static str,
    /// True if config.json has a field for heads that rotate only in part.
    pub partial_rotary: bool,
    /// True if the tensor of rope frequency factors holds those of Llama 3's scaling.
    pub llama3_factors: bool,
}

/// Rotary position embedding (RoPE) of a model.
#[derive(Debug, Default)]
pub struct Rope {
    /// Base of the frequencies (`rope_theta`).
    pub theta: f64,
    /// Elements of a head that rotate.
    pub rotated: usize,
    /// Value of `rope_scaling` in config.json.
    pub scaling: Option<Value>,
}

/// Dimensions and metadata of a model.
#[derive(Debug)]
pub struct Model<'g, 'a> {
    /// Traits of the architecture.
    pub traits: Traits,
    /// Number of layers, without multi-token prediction layers.
    pub layers: usize,
    /// Number of multi-token prediction layers.
    pub mtp_layers: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Number of query heads; 0 without attention.
    pub heads: usize,
    /// Number of key/value heads, in the layer that has most.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head: usize,
    /// Number of rows of the embedding.
    pub vocabulary: usize,
    /// Longest context in tokens; 0 if unknown.
    pub context: usize,
    /// Rotary position embedding; [`Model::read`] leaves it empty, `rope::read` reads it.
    pub rope: Rope,
    gguf: &'g Gguf<'a>,
}

impl<'g, 'a> Model<'g, 'a> {
    /// Reads the dimensions from the metadata.
    ///
    /// # Errors
    /// A phrase, if a dimension is missing or impossible, or a layer has no tensors.
    pub fn read(gguf: &'g Gguf<'a>, traits: Traits) -> Result<Model<'g, 'a>, String> {
        let embedding = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let embedding = embedding.ok_or("the tensor \"token_embd.weight\" is missing")?;
        let mut model = Model {
            traits,
            layers: 0,
            mtp_layers: 0,
            hidden: 0,
            heads: 0,
            kv_heads: 0,
            head: 0,
            vocabulary: embedding.shape[0],
            context: 0,
            rope: Rope::default(),
            gguf,
        };
        model.hidden = model.need_size("embedding_length")?;
        model.context = model.size("context_length")?.unwrap_or(0);
        model.heads = model.max("attention.head_count")?.unwrap_or(0);
        model.kv_heads = model.max("attention.head_count_kv")?.unwrap_or(model.heads);
        let even = model.hidden.checked_div(model.heads).unwrap_or(0);
        model.head = model.size("attention.key_length")?.unwrap_or(even);
        model.check()?;
        model.mtp_layers = model.integer("nextn_predict_layers")?.unwrap_or(0);
        model.layers = model.count_layers()?;
        Ok(model)
    }

    fn check(&self) -> Result<(), String> {
        let Model { heads, kv_heads, head, .. } = *self;
        let uneven = kv_heads == 0 || heads % kv_heads != 0 || head == 0 || head % 2 != 0;
        match heads > 0 && uneven {
            true => Err(format!("{heads} heads of {head} over {kv_heads} are impossible")),
            false => Ok(()),
        }
    }

    fn count_layers(&self) -> Result<usize, String> {
        let all = self.need_size("block_count")?;
        let layers =
            all.checked_sub(self.mtp_layers).filter(|layers| (1..=MAX_LAYERS).contains(layers));
        let layers = layers.ok_or_else(|| format!("{all} layers are impossible"))?;
        // Work per layer must be bounded by what the file holds.
        let absent = (0..layers).find(|layer| !self.has_layer(*layer));
        match absent {
            Some(layer) => {
                Err(format!("there are {layers} layers, but no tensors of layer {layer}"))
            }
            None => Ok(layers),
        }
    }

    fn has_layer(&self, layer: usize) -> bool {
        let prefix = format!("blk.{layer}.");
        self.gguf.tensors.iter().any(|tensor| tensor.name.starts_with(&prefix))
    }

    /// Value of the architecture's metadata `key`; an error if it has another type.
    pub fn find<T: FromValue<'g, 'a>>(&self, key: &str) -> Result<Option<T>, String> {
        self.gguf.find(&self.key(key))
    }

    /// Value of the architecture's metadata `key`; an error if it is missing.
    pub fn need<T: FromValue<'g, 'a>>(&self, key: &str) -> Result<T, String> {
        self.gguf.need(&self.key(key))
    }

    /// Full name of the architecture's metadata `key`.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.traits.prefix)
    }

    /// Integer `key`, at most 2^28; it may be zero.
    pub fn integer(&self, key: &str) -> Result<Option<usize>, String> {
        match self.find(key)? {
            Some(size) if size > MAX_INTEGER => {
                Err(format!("impossible `{}`: {size}", self.key(key)))
            }
            size => Ok(size),
        }
    }

    /// Dimension `key`: an integer from 1 to 2^28.
    pub fn size(&self, key: &str) -> Result<Option<usize>, String> {
        match self.integer(key)? {
            Some(0) => Err(format!("impossible `{}`: 0", self.key(key))),
            size => Ok(size),
        }
    }

    /// Dimension `key`; an error if it is missing.
    pub fn need_size(&self, key: &str) -> Result<usize, String> {
        self.size(key)?.ok_or_else(|| format!("the metadata `{}` is missing", self.key(key)))
    }

    /// Integers `key`: one for each layer, or one for all.
    pub fn per_layer(&self, key: &str) -> Result<Option<Vec<usize>>, String> {
        let full = self.key(key);
        if let Ok(one) = self.integer(key) {
            return Ok(one.map(|one| vec![one]));
        }
        let impossible = |n: &i64| format!("impossible `{full}`: {n}");
        let list: Option<&[i64]> = self.gguf.find(&full)?;
        let checked = |n: &i64| match usize::try_from(*n) {
            Ok(size) if size <= MAX_INTEGER => Ok(size),
            _ => Err(impossible(n)),
        };
        list.map(|list| list.iter().map(checked).collect()).transpose()
    }

    /// Largest of the integers `key`.
    pub fn max(&self, key: &str) -> Result<Option<usize>, String> {
        Ok(self.per_layer(key)?.and_then(|list| list.into_iter().max()))
    }

    /// Flags `key`, one for each layer.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, String> {
        let list: Option<&[i64]> = self.find(key)?;
        Ok(list.map(|list| list.iter().take(self.layers).map(|flag| *flag != 0).collect()))
    }

    /// Tensor `name` of the file.
    pub fn tensor(&self, name: &str) -> Option<&'g Tensor<'a>> {
        self.gguf.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// True if layer `layer` has a tensor `name` or `name.weight`.
    pub fn has(&self, layer: usize, name: &str) -> bool {
        let prefix = format!("blk.{layer}.{name}");
        let rest = |tensor: &Tensor| {
            tensor
                .name
                .strip_prefix(&prefix)
                .is_some_and(|rest| rest.is_empty() || rest == ".weight")
        };
        self.gguf.tensors.iter().any(rest)
    }

    /// True if any layer has a tensor `name` or `name.weight`.
    pub fn any_has(&self, name: &str) -> bool {
        (0..self.layers).any(|layer| self.has(layer, name))
    }

    /// For each layer, true if it has a tensor `name` or `name.weight`.
    pub fn layers_with(&self, name: &str) -> Vec<bool> {
        (0..self.layers).map(|layer| self.has(layer, name)).collect()
    }

    /// True if the output matrix is the embedding (`tie_word_embeddings`).
    pub fn tied(&self) -> bool {
        self.tensor("output.weight").is_none()
    }

    /// Epsilon of the norms: that of RMS norms, or else that of layer norms.
    pub fn epsilon(&self) -> Result<f64, String> {
        match self.find("attention.layer_norm_rms_epsilon")? {
            Some(epsilon) => Ok(epsilon),
            None => match self.find("attention.layer_norm_epsilon")? {
                Some(epsilon) => Ok(epsilon),
                None => self.need("attention.layer_norm_rms_epsilon"),
            },
        }
    }

    /// Epsilon of layer norms, or else that of RMS norms.
    pub fn layer_norm_epsilon(&self) -> Result<f64, String> {
        match self.find("attention.layer_norm_epsilon")? {
            Some(epsilon) => Ok(epsilon),
            None => self.epsilon(),
        }
    }

    /// Number of rows of the tensor `name`.
    pub fn rows(&self, name: &str) -> Result<usize, String> {
        let tensor = self.tensor(name);
        tensor
            .map(|tensor| tensor.shape[0])
            .ok_or_else(|| format!("the tensor {name:?} is missing"))
    }

    /// File that the model was read from.
    pub fn gguf(&self) -> &'g Gguf<'a> {
        self.gguf
    }

    /// The config.json with the fields that most architectures have, and the fields `own`, which
    /// take precedence; a null in `own` removes a field.
    pub fn config(&self, model_type: &str, class: &str, own: Value) -> Result<Value, String> {
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied(),
        });
        let epsilon = self.epsilon()?;
        config["rms_norm_eps"] = epsilon.into();
        if let Some(inner) = self.max("feed_forward_length")?.filter(|inner| *inner > 0) {
            config["intermediate_size"] = inner.into();
        }
        if self.heads > 0 {
            config["num_attention_heads"] = self.heads.into();
            config["num_key_value_heads"] = self.kv_heads.into();
            config["head_dim"] = self.head.into();
            config["attention_bias"] = self.has(0, "attn_q.bias").into();
            config["mlp_bias"] = self.has(0, "ffn_up.bias").into();
            self.add_rope(&mut config)?;
        }
        merge(&mut config, own);
        Ok(config)
    }

    /// Share of each head that rotates (`partial_rotary_factor`).
    pub fn rotary_factor(&self) -> f64 {
        self.rope.rotated as f64 / self.head as f64
    }

    /// Adds the fields of rotary positions to `config`; an error if heads rotate only in part and
    /// the architecture has no field for that.
    fn add_rope(&self, config: &mut Value) -> Result<(), String> {
        config["rope_theta"] = self.rope.theta.into();
        if let Some(scaling) = &self.rope.scaling {
            config["rope_scaling"] = scaling.clone();
        }
        if self.rope.rotated != self.head {
            if !self.traits.partial_rotary {
                let (key, rotated) = (self.key("rope.dimension_count"), self.rope.rotated);
                return Err(format!("`{key}` is {rotated}, but heads have {}", self.head));
            }
            config["partial_rotary_factor"] = self.rotary_factor().into();
        }
        Ok(())
    }

    /// Number of experts in a layer, and number of them used per token.
    pub fn experts(&self) -> Result<(usize, usize), String> {
        Ok((self.need_size("expert_count")?, self.need_size("expert_used_count")?))
    }

    /// True if the model is a mixture of experts.
    pub fn is_mixture(&self) -> Result<bool, String> {
        Ok(self.integer("expert_count")?.is_some_and(|count| count > 0))
    }
}

/// Sets the fields of `own` in `config`; a null removes a field.
fn merge(config: &mut Value, own: Value) {
    let (Value::Object(config), Value::Object(own)) = (config, own) else { return };
    for (name, value) in own {
        match value {
            Value::Null => config.remove(&name),
            value => config.insert(name, value),
        };
    }
}
