//! A model in a GGUF file: its architecture, its dimensions, and what its metadata says.

use serde_json::{Value, json};

use crate::architecture::{self, Architecture};
use crate::read::{Gguf, Tensor};
use crate::rope::{self, Rope};
use crate::value::Get;

/// More than any model has; a larger number in a file is a mistake or an attack.
const MOST_LAYERS: usize = 10_000;

/// A model's architecture and dimensions.
#[derive(Debug)]
pub struct Model<'g, 'a> {
    /// What it is built like.
    pub architecture: &'static Architecture,
    /// The number of layers, without those that predict further tokens.
    pub layers: usize,
    /// Those.
    pub further: usize,
    /// The width of what goes from layer to layer.
    pub hidden: usize,
    /// The heads of queries, 0 if there are none.
    pub heads: usize,
    /// The heads of keys and values in the layer that has most.
    pub kv_heads: usize,
    /// The elements of a head.
    pub head: usize,
    /// The rows of the embedding.
    pub vocabulary: usize,
    /// The longest context, in tokens.
    pub context: usize,
    /// Rotary positions.
    pub rope: Rope,
    gguf: &'g Gguf<'a>,
}

impl<'g, 'a> Model<'g, 'a> {
    /// Reads the dimensions out of the metadata.
    pub fn read(gguf: &'g Gguf<'a>) -> Result<Model<'g, 'a>, String> {
        let architecture = architecture::of(gguf)?;
        let embedding = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let embedding = embedding.ok_or("the tensor \"token_embd.weight\" is missing")?;
        let mut model = Model {
            architecture,
            layers: 0,
            further: 0,
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
        model.heads = model.most("attention.head_count")?.unwrap_or(0);
        model.kv_heads = model.most("attention.head_count_kv")?.unwrap_or(model.heads);
        let even = model.hidden.checked_div(model.heads).unwrap_or(0);
        model.head = model.size("attention.key_length")?.unwrap_or(even);
        model.check()?;
        model.further = model.whole("nextn_predict_layers")?.unwrap_or(0);
        model.layers = model.count_layers()?;
        model.rope = rope::read(&model)?;
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
            all.checked_sub(self.further).filter(|layers| (1..=MOST_LAYERS).contains(layers));
        let layers = layers.ok_or_else(|| format!("{all} layers are impossible"))?;
        // The file decides how much is done for each layer, so it has to have it.
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

    /// The metadata `key` of the architecture.
    pub fn find<T: Get<'g, 'a>>(&self, key: &str) -> Result<Option<T>, String> {
        self.gguf.find(&self.key(key))
    }

    /// The same where it cannot be missing.
    pub fn need<T: Get<'g, 'a>>(&self, key: &str) -> Result<T, String> {
        self.gguf.need(&self.key(key))
    }

    /// The full name of the metadata `key`.
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.gguf)
    }

    /// A whole number that no product can overflow with; zero is one.
    pub fn whole(&self, key: &str) -> Result<Option<usize>, String> {
        match self.find(key)? {
            Some(size) if size > 1 << 28 => Err(format!("impossible `{}`: {size}", self.key(key))),
            size => Ok(size),
        }
    }

    /// A dimension: neither zero nor so large that products with others could overflow.
    pub fn size(&self, key: &str) -> Result<Option<usize>, String> {
        match self.whole(key)? {
            Some(0) => Err(format!("impossible `{}`: 0", self.key(key))),
            size => Ok(size),
        }
    }

    /// The same where it cannot be missing.
    pub fn need_size(&self, key: &str) -> Result<usize, String> {
        self.size(key)?.ok_or_else(|| format!("the metadata `{}` is missing", self.key(key)))
    }

    /// A number for each layer, or the one for all.
    pub fn each(&self, key: &str) -> Result<Option<Vec<usize>>, String> {
        let full = self.key(key);
        if let Ok(one) = self.whole(key) {
            return Ok(one.map(|one| vec![one]));
        }
        let impossible = |n: &i64| format!("impossible `{full}`: {n}");
        let list: Option<&[i64]> = self.gguf.find(&full)?;
        let checked = |n: &i64| match usize::try_from(*n) {
            Ok(size) if size <= 1 << 28 => Ok(size),
            _ => Err(impossible(n)),
        };
        list.map(|list| list.iter().map(checked).collect()).transpose()
    }

    /// The largest number of [`each`](Self::each).
    pub fn most(&self, key: &str) -> Result<Option<usize>, String> {
        Ok(self.each(key)?.and_then(|list| list.into_iter().max()))
    }

    /// A truth value for each layer.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, String> {
        let list: Option<&[i64]> = self.find(key)?;
        Ok(list.map(|list| list.iter().take(self.layers).map(|flag| *flag != 0).collect()))
    }

    /// The tensor `name`.
    pub fn tensor(&self, name: &str) -> Option<&'g Tensor<'a>> {
        self.gguf.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Whether the layer `layer` has a tensor `name`, with its field or without.
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

    /// Whether some layer has a tensor of this name.
    pub fn any(&self, name: &str) -> bool {
        (0..self.layers).any(|layer| self.has(layer, name))
    }

    /// The layers that have a tensor of this name.
    pub fn with(&self, name: &str) -> Vec<bool> {
        (0..self.layers).map(|layer| self.has(layer, name)).collect()
    }

    /// True if the embedding is also the output matrix.
    pub fn tied(&self) -> bool {
        self.tensor("output.weight").is_none()
    }

    /// The epsilon of norms.
    pub fn epsilon(&self) -> Result<f64, String> {
        match self.find("attention.layer_norm_rms_epsilon")? {
            Some(epsilon) => Ok(epsilon),
            None => match self.find("attention.layer_norm_epsilon")? {
                Some(epsilon) => Ok(epsilon),
                None => self.need("attention.layer_norm_rms_epsilon"),
            },
        }
    }

    /// The epsilon of norms that take the mean away, where a file states others too.
    pub fn epsilon_of_layers(&self) -> Result<f64, String> {
        match self.find("attention.layer_norm_epsilon")? {
            Some(epsilon) => Ok(epsilon),
            None => self.epsilon(),
        }
    }

    /// The rows of the tensor `name`.
    pub fn rows(&self, name: &str) -> Result<usize, String> {
        let tensor = self.tensor(name);
        tensor
            .map(|tensor| tensor.shape[0])
            .ok_or_else(|| format!("the tensor {name:?} is missing"))
    }

    /// The file.
    pub fn gguf(&self) -> &'g Gguf<'a> {
        self.gguf
    }

    /// What most architectures have in config.json, and the fields `own`, which come first.
    pub fn config(&self, mlx: &str, class: &str, own: Value) -> Result<Value, String> {
        let mut config = json!({
            "architectures": [class],
            "model_type": mlx,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied(),
        });
        let epsilon = self.epsilon()?;
        config["rms_norm_eps"] = epsilon.into();
        if let Some(inner) = self.most("feed_forward_length")?.filter(|inner| *inner > 0) {
            config["intermediate_size"] = inner.into();
        }
        if self.heads > 0 {
            config["num_attention_heads"] = self.heads.into();
            config["num_key_value_heads"] = self.kv_heads.into();
            config["head_dim"] = self.head.into();
            config["attention_bias"] = self.has(0, "attn_q.bias").into();
            config["mlp_bias"] = self.has(0, "ffn_up.bias").into();
            self.rope.tell(self, &mut config)?;
        }
        merge(&mut config, own);
        Ok(config)
    }

    /// The experts of a layer, and how many are used for a token.
    pub fn experts(&self) -> Result<(usize, usize), String> {
        Ok((self.need_size("expert_count")?, self.need_size("expert_used_count")?))
    }

    /// True if the layers have experts.
    pub fn is_mixture(&self) -> Result<bool, String> {
        Ok(self.whole("expert_count")?.is_some_and(|count| count > 0))
    }
}

/// Puts the fields of `own` into `config`; null takes one away.
fn merge(config: &mut Value, own: Value) {
    let (Value::Object(config), Value::Object(own)) = (config, own) else { return };
    for (name, value) in own {
        match value {
            Value::Null => config.remove(&name),
            value => config.insert(name, value),
        };
    }
}
