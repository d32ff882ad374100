//! The architectures that can be imported: their dimensions, and what their tensors are called.

use serde_json::{Value, json};

use crate::read::Gguf;
use crate::rope;

/// A name in `general.architecture` and what MLX calls it.
#[derive(Debug)]
pub struct Architecture {
    /// The name in GGUF, which is also the prefix of its metadata.
    pub gguf: &'static str,
    /// The `model_type`.
    pub mlx: &'static str,
    class: &'static str,
    /// True if the rows of q and k stand in the order of interleaved rotary pairs.
    pub interleaved: bool,
    extra: fn(&Model, &mut Value),
}

const ARCHITECTURES: [Architecture; 4] = [
    Architecture {
        gguf: "llama",
        mlx: "llama",
        class: "LlamaForCausalLM",
        interleaved: true,
        extra: |model, config| {
            config["attention_bias"] = model.has_bias("attn_q").into();
            config["mlp_bias"] = model.has_bias("ffn_up").into();
        },
    },
    Architecture {
        gguf: "qwen2",
        mlx: "qwen2",
        class: "Qwen2ForCausalLM",
        interleaved: false,
        extra: |_, config| config["use_sliding_window"] = false.into(),
    },
    Architecture {
        gguf: "qwen3",
        mlx: "qwen3",
        class: "Qwen3ForCausalLM",
        interleaved: false,
        extra: |_, config| config["attention_bias"] = false.into(),
    },
    Architecture {
        gguf: "smollm3",
        mlx: "smollm3",
        class: "SmolLM3ForCausalLM",
        interleaved: true,
        extra: |model, config| {
            // Not in the file: every fourth layer of this architecture has no rotary positions.
            let rotary = |layer| u8::from((layer + 1) % 4 != 0);
            config["no_rope_layer_interval"] = 4.into();
            config["no_rope_layers"] = (0..model.layers).map(rotary).collect();
            config["attention_bias"] = model.has_bias("attn_q").into();
            config["mlp_bias"] = model.has_bias("ffn_up").into();
        },
    },
];

/// A model's architecture and dimensions.
#[derive(Debug)]
pub struct Model {
    /// What it is built like.
    pub architecture: &'static Architecture,
    /// The number of layers.
    pub layers: usize,
    /// True if the embedding is also the output matrix.
    pub tied: bool,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    vocabulary: usize,
    context: usize,
    epsilon: f64,
    rope_theta: f64,
    rope_scaling: Option<Value>,
    biased: Vec<String>,
}

/// A tensor that a model of these dimensions has.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name in GGUF.
    pub gguf: String,
    /// Its name in MLX, without `.weight` or `.bias`.
    pub module: String,
    /// `weight` or `bias`.
    pub field: &'static str,
    /// Its shape, rows first.
    pub shape: Vec<usize>,
    /// The heads whose rows are interleaved, if they are.
    pub heads: Option<usize>,
    /// False if the model may lack it.
    pub needed: bool,
}

impl Model {
    /// Reads the dimensions out of the metadata.
    pub fn read(gguf: &Gguf) -> Result<Model, String> {
        let name: &str = gguf.need("general.architecture")?;
        let architecture = ARCHITECTURES.iter().find(|a| a.gguf == name).ok_or_else(|| {
            let known: Vec<_> = ARCHITECTURES.iter().map(|a| a.gguf).collect();
            format!("the architecture {name:?} cannot be imported; these can: {}", known.join(", "))
        })?;
        let key = |key: &str| format!("{name}.{key}");
        if gguf.find::<usize>(&key("expert_count"))?.is_some_and(|count| count > 0) {
            return Err(format!(
                "a mixture of experts of the architecture {name:?} cannot be imported"
            ));
        }
        let find = |name: &str| size(gguf, &key(name));
        let need = |name: &str| {
            find(name)?.ok_or_else(|| format!("the metadata `{}` is missing", key(name)))
        };
        let (hidden, heads) = (need("embedding_length")?, need("attention.head_count")?);
        let kv_heads = find("attention.head_count_kv")?.unwrap_or(heads);
        let head = find("attention.key_length")?.unwrap_or(hidden / heads);
        if heads % kv_heads != 0 || head == 0 || head % 2 != 0 {
            return Err(format!("{heads} heads of {head} over {kv_heads} are impossible"));
        }
        let tensor = |name: &str| gguf.tensors.iter().find(|tensor| tensor.name == name);
        let embedding =
            tensor("token_embd.weight").ok_or("the tensor \"token_embd.weight\" is missing")?;
        let (rope_theta, rope_scaling) = rope::read(gguf, name, head)?;
        Ok(Model {
            architecture,
            layers: need("block_count")?,
            tied: tensor("output.weight").is_none(),
            hidden,
            intermediate: need("feed_forward_length")?,
            heads,
            kv_heads,
            head,
            vocabulary: embedding.shape[0],
            context: need("context_length")?,
            epsilon: gguf.need(&key("attention.layer_norm_rms_epsilon"))?,
            rope_theta,
            rope_scaling,
            biased: biased(gguf),
        })
    }

    /// The tensors, in the order in which they are used.
    pub fn tensors(&self) -> impl Iterator<Item = Expected> + '_ {
        let around = |gguf: &str, module: &str, shape, needed| Expected {
            gguf: format!("{gguf}.weight"),
            module: module.to_owned(),
            field: "weight",
            shape,
            heads: None,
            needed,
        };
        let matrix = || vec![self.vocabulary, self.hidden];
        let first = [around("token_embd", "model.embed_tokens", matrix(), true)];
        let last = [
            around("output_norm", "model.norm", vec![self.hidden], true),
            around("output", "lm_head", matrix(), false),
        ];
        let layers = (0..self.layers).flat_map(|layer| self.layer(layer));
        first.into_iter().chain(layers).chain(last)
    }

    fn layer(&self, layer: usize) -> Vec<Expected> {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let (query, key) = (self.heads * self.head, self.kv_heads * self.head);
        let turned = |heads| self.architecture.interleaved.then_some(heads);
        let mut tensors = Vec::new();
        let mut add = |gguf: &str, module: &str, field, shape, heads, needed| {
            let gguf = format!("blk.{layer}.{gguf}.{field}");
            let module = format!("model.layers.{layer}.{module}");
            tensors.push(Expected { gguf, module, field, shape, heads, needed });
        };
        add("attn_norm", "input_layernorm", "weight", vec![hidden], None, true);
        for (gguf, module, rows, columns, heads) in [
            ("attn_q", "self_attn.q_proj", query, hidden, turned(self.heads)),
            ("attn_k", "self_attn.k_proj", key, hidden, turned(self.kv_heads)),
            ("attn_v", "self_attn.v_proj", key, hidden, None),
            ("attn_output", "self_attn.o_proj", hidden, query, None),
            ("ffn_gate", "mlp.gate_proj", inner, hidden, None),
            ("ffn_up", "mlp.up_proj", inner, hidden, None),
            ("ffn_down", "mlp.down_proj", hidden, inner, None),
        ] {
            add(gguf, module, "weight", vec![rows, columns], heads, true);
            add(gguf, module, "bias", vec![rows], heads, false);
        }
        add("ffn_norm", "post_attention_layernorm", "weight", vec![hidden], None, true);
        if self.architecture.gguf == "qwen3" {
            add("attn_q_norm", "self_attn.q_norm", "weight", vec![self.head], None, true);
            add("attn_k_norm", "self_attn.k_norm", "weight", vec![self.head], None, true);
        }
        tensors
    }

    /// The `config.json`, as far as the architecture decides it.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "architectures": [self.architecture.class],
            "model_type": self.architecture.mlx,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "hidden_act": "silu",
            "rms_norm_eps": self.epsilon,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
        });
        if let Some(scaling) = &self.rope_scaling {
            config["rope_scaling"] = scaling.clone();
        }
        (self.architecture.extra)(self, &mut config);
        config
    }

    /// The longest context, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The rows of the embedding.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn has_bias(&self, name: &str) -> bool {
        self.biased.iter().any(|biased| biased == name)
    }
}

/// A dimension: neither zero nor so large that products with others could overflow.
fn size(gguf: &Gguf, key: &str) -> Result<Option<usize>, String> {
    match gguf.find(key)? {
        Some(size) if !(1..=1 << 28).contains(&size) => Err(format!("impossible `{key}`: {size}")),
        size => Ok(size),
    }
}

/// Which matrices of the first layer have biases.
fn biased(gguf: &Gguf) -> Vec<String> {
    let names = gguf.tensors.iter().map(|tensor| tensor.name);
    let biased = names.filter_map(|name| name.strip_prefix("blk.0.")?.strip_suffix(".bias"));
    biased.map(str::to_owned).collect()
}
