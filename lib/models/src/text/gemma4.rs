//! Gemma 4: layers that share the kv cache of earlier ones, per-layer embeddings, and wider heads
//! in layers with full attention.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use mlxk_tensor::cache::{Cache, Kv, KvLayout, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{ExpertChoice, Routing, Score};
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde_json::{Value, json};

use crate::checkpoint::config_error::{invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::{Inputs, Language, Spliced, splice, text_ids};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Experts, MoeArch, Router};
use crate::nn::norm::{Norm, NormArch};
use crate::nn::per_layer::{PerLayer, PerLayerGate, PerLayerSizes};
use crate::nn::shared_kv::{self, SharedKv, SharedKvArch};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec {
        sanitize: &[text_part::under_language_model],
        experts: EXPERTS,
        convert: RULES,
        ..Spec::new(Architecture::Gemma4, load)
    },
    Spec { experts: EXPERTS, convert: RULES, ..Spec::new(Architecture::Gemma4Text, load_text) },
];

const EXPERTS: ExpertLayout = ExpertLayout { to: "experts.switch_glu", ..ExpertLayout::DEFAULT };

const RULES: Rules = Rules { eight: &["router.proj"], ..Rules::NONE };

struct Gemma4 {
    ends: EmbedHead,
    per_layer: Option<PerLayer>,
    layers: Vec<Layer>,
    /// Layouts of the kv caches of the layers that own one.
    layouts: Vec<KvLayout>,
    hidden: i32,
}

struct Layer {
    input_layernorm: Norm,
    self_attn: SharedKv,
    post_attention_layernorm: Norm,
    pre_feedforward_layernorm: Norm,
    mlp: Mlp,
    mixture: Option<Mixture>,
    post_feedforward_layernorm: Norm,
    gate: Option<PerLayerGate>,
    layer_scalar: Array,
    ops: &'static dyn Ops,
}

/// Loads the language model of Gemma 4; skips the vision and audio towers.
fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let mut text = text_part::text(config)?;
    text["vocab_size"] = config.get("vocab_size").cloned().unwrap_or(json!(262_144));
    load_text(&text, w)
}

/// Loads a text-only Gemma 4.
fn load_text(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
    let arch = Arch::read(config)?;
    w.discard(|name| RANGES.iter().any(|range| name.ends_with(range)));
    w.discard(|name| shared_kv::is_unused(name, arch.c.num_hidden_layers - arch.shared));
    w.rename(&[("switch_mlp", "experts.switch_glu"), ("router.norm.weight", "router.scale")]);
    let Arch { c, norm, .. } = &arch;
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", *norm),
        tied: c.tie_word_embeddings != Some(false),
        scale: 1.0,
        softcap: c.get("final_logit_softcapping")?,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut w = w.at("model");
    let per_layer = arch.per_layer.map(|sizes| PerLayer::load(&mut w, sizes, *norm)).transpose()?;
    let layers = (0..c.num_hidden_layers)
        .map(|i| Layer::load(&mut w.at(&format!("layers.{i}")), &arch, i))
        .collect::<mlxk_core::Result<_>>()?;
    Ok(Box::new(Gemma4 {
        ends,
        per_layer,
        layers,
        layouts: (0..c.num_hidden_layers - arch.shared).map(|i| arch.layout(i)).collect(),
        hidden: c.hidden_size as i32,
    }))
}

/// Suffixes of the activation ranges that checkpoints of quantisation-aware training carry.
const RANGES: [&str; 4] = ["input_max", "input_min", "output_max", "output_min"];

/// Hyperparameters that the weights do not determine.
struct Arch {
    c: Config,
    norm: NormArch,
    kinds: Vec<String>,
    /// Cache slot of the keys and values of each layer.
    slots: Vec<usize>,
    /// Number of last layers without keys and values of their own.
    shared: usize,
    per_layer: Option<PerLayerSizes>,
    moe: Option<MoeArch>,
    /// True if the tokens of a picture attend to each other.
    blocks: bool,
}

const KINDS: [&str; 2] = ["sliding_attention", "full_attention"];

impl Arch {
    fn read(config: &Value) -> mlxk_core::Result<Arch> {
        let c = Config::read(&given(config, defaults()))?;
        let shared: usize = c.need("num_kv_shared_layers")?;
        let pattern: usize = c.need("sliding_window_pattern")?;
        let kind = |i: usize| KINDS[usize::from((i + 1).is_multiple_of(pattern))].to_owned();
        let layers = c.num_hidden_layers;
        let kinds = c.layer_types.clone().unwrap_or_else(|| (0..layers).map(kind).collect());
        if let Some(kind) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(unknown(format!("layers of type `{kind}` cannot run yet")));
        }
        if kinds.len() != layers || layers == 0 {
            return Err(invalid("`layer_types` does not name all layers".into()));
        }
        let slots = shared_kv::slots(&kinds, shared)
            .ok_or_else(|| invalid("a layer shares keys and values that none has".into()))?;
        let size: usize = c.need("hidden_size_per_layer_input")?;
        let vocabulary = c.need("vocab_size_per_layer_input")?;
        let per_layer = PerLayerSizes { hidden: c.hidden_size, size, layers, vocabulary };
        let per_layer = (size > 0).then_some(per_layer);
        let moe = c.need::<bool>("enable_moe_block")?.then(|| moe(&c)).transpose()?;
        let blocks = match c.get::<Value>("use_bidirectional_attention")? {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(kind)) if kind == "vision" => true,
            Some(kind) => {
                return Err(unknown(format!(
                    "`use_bidirectional_attention` {kind} cannot run yet"
                )));
            }
        };
        Ok(Arch { norm: c.rms_norm()?, kinds, slots, shared, per_layer, moe, blocks, c })
    }

    /// Layout of a layer's cache. The tokens of a picture attend to each other in layers with a
    /// window, if at all.
    fn layout(&self, layer: usize) -> KvLayout {
        let slides = self.kinds[layer] == KINDS[0];
        let layout = KvLayout::new(self.c.sliding_window.filter(|_| slides));
        KvLayout { blocks: slides && self.blocks, ..layout }
    }

    fn attention(&self, layer: usize) -> mlxk_core::Result<SharedKvArch> {
        let (c, full) = (&self.c, self.kinds[layer] == KINDS[1]);
        let wide = c.get::<usize>("global_head_dim")?.filter(|&wide| full && wide > 0);
        let head_dim = wide.unwrap_or(c.head_dim());
        let k_eq_v = full && c.need::<bool>("attention_k_eq_v")?;
        let fewer = c.get::<usize>("num_global_key_value_heads")?.filter(|_| k_eq_v);
        let slot = self.slots[layer];
        Ok(SharedKvArch {
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            kv_heads: fewer.unwrap_or(c.kv_heads()),
            head_dim,
            norm: self.norm,
            rope: self.rope(&self.kinds[layer], head_dim)?,
            slot,
            own: slot == layer,
            k_eq_v,
        })
    }

    fn rope(&self, kind: &str, head_dim: usize) -> mlxk_core::Result<Rope> {
        let scaling = self.c.scaling_of(kind)?.unwrap_or_else(Scaling::default);
        let theta = scaling.rope_theta.unwrap_or(10_000.0);
        Rope::new(head_dim, self.c.rope_traditional, theta, None, Some(&scaling))
    }

    fn mlp(&self, layer: usize) -> mlxk_core::Result<MlpArch> {
        let shared = self.slots[layer] != layer;
        let double = shared && self.c.need::<bool>("use_double_wide_mlp")?;
        let inner = self.c.intermediate_size * if double { 2 } else { 1 };
        Ok(MlpArch { inner, gated: true, fused: false, activation: Activation::GeluTanh })
    }
}

fn moe(c: &Config) -> mlxk_core::Result<MoeArch> {
    let routing = Routing::new(c.need("top_k_experts")?, Score::Softmax);
    Ok(MoeArch {
        count: c.need("num_experts")?,
        inner: c.need("moe_intermediate_size")?,
        gated: true,
        activation: Activation::GeluTanh,
        routing: Routing { normalised: true, ..routing },
        shared: None,
    })
}

/// Defaults of the fields of config.json.
fn defaults() -> Value {
    json!({
        "hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
        "global_head_dim": 512, "rms_norm_eps": 1e-6, "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144, "num_kv_shared_layers": 20,
        "hidden_size_per_layer_input": 256, "sliding_window": 512, "sliding_window_pattern": 5,
        "attention_k_eq_v": false, "final_logit_softcapping": 30.0, "use_double_wide_mlp": true,
        "enable_moe_block": false,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0,
                "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"},
        },
    })
}

impl Language for Gemma4 {
    fn vocabulary(&self) -> usize {
        self.ends.vocabulary
    }

    fn cache(&self) -> Cache {
        let slot = |&layout: &KvLayout| Slot::Kv(Kv::new(None).with_layout(|_| layout));
        Cache { slots: self.layouts.iter().map(slot).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        let h = self.ends.embed(ids)?;
        let h = h.multiply(mlx::number((self.hidden as f32).sqrt(), &h)?)?;
        let own = |per_layer: &PerLayer| per_layer.embed(&text_ids(ids, spliced)?);
        let side = self.per_layer.as_ref().map(own).transpose()?;
        Ok(Inputs { h: splice(h, spliced)?, side, deep: Vec::new() })
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let Inputs { mut h, side, .. } = inputs;
        let own = match (&self.per_layer, side) {
            (Some(per_layer), Some(side)) => per_layer.inputs(&h, &side)?,
            _ => Vec::new(),
        };
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h, own.get(i), sequences)?;
        }
        Ok(h)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        self.ends.head(h)
    }
}

impl Layer {
    fn load(w: &mut Cursor, arch: &Arch, i: usize) -> mlxk_core::Result<Layer> {
        let (norm, hidden) = (arch.norm, arch.c.hidden_size);
        let mixture = arch.moe.as_ref().map(|moe| Mixture::load(w, hidden, moe, norm));
        let gate = arch.per_layer.map(|sizes| PerLayerGate::load(w, &sizes, norm));
        Ok(Layer {
            gate: gate.transpose()?,
            mixture: mixture.transpose()?,
            input_layernorm: norm.load(w, "input_layernorm", hidden)?,
            self_attn: SharedKv::load(&mut w.at("self_attn"), arch.attention(i)?)?,
            post_attention_layernorm: norm.load(w, "post_attention_layernorm", hidden)?,
            pre_feedforward_layernorm: norm.load(w, "pre_feedforward_layernorm", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &arch.mlp(i)?, norm)?,
            post_feedforward_layernorm: norm.load(w, "post_feedforward_layernorm", hidden)?,
            layer_scalar: w.floats("layer_scalar", &[1])?,
            ops: w.ops(),
        })
    }

    fn forward(
        &self,
        x: &Array,
        input: Option<&Array>,
        sequences: &mut Sequences,
    ) -> Result<Array> {
        let add = |a: &Array, b: &Array| self.ops.add(a, b);
        let attended = self.self_attn.forward(&self.input_layernorm.forward(x)?, sequences)?;
        let h = add(x, &self.post_attention_layernorm.forward(&attended)?)?;
        let mut fed = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&h)?)?;
        if let Some(mixture) = &self.mixture {
            fed = mixture.beside(&fed, &h)?;
        }
        let mut h = add(&h, &self.post_feedforward_layernorm.forward(&fed)?)?;
        if let (Some(gate), Some(input)) = (&self.gate, input) {
            h = add(&h, &gate.forward(&h, input)?)?;
        }
        h.multiply(&self.layer_scalar)
    }
}

/// Mixture of experts parallel to the dense feed-forward layer, each with its own norms.
struct Mixture {
    post_feedforward_layernorm_1: Norm,
    pre_feedforward_layernorm_2: Norm,
    router_norm: Norm,
    router: Router,
    per_expert_scale: Array,
    experts: Experts,
    post_feedforward_layernorm_2: Norm,
    ops: &'static dyn Ops,
}

impl Mixture {
    fn load(
        w: &mut Cursor,
        hidden: usize,
        moe: &MoeArch,
        norm: NormArch,
    ) -> mlxk_core::Result<Mixture> {
        moe.check()?;
        let named = |w: &mut Cursor, name| norm.load(w, name, hidden);
        Ok(Mixture {
            post_feedforward_layernorm_1: named(w, "post_feedforward_layernorm_1")?,
            pre_feedforward_layernorm_2: named(w, "pre_feedforward_layernorm_2")?,
            router_norm: named(w, "router.norm")?,
            router: Router::load(&mut w.at("router"), "proj", hidden, moe.count, moe.routing)?,
            per_expert_scale: w.floats("router.per_expert_scale", &[moe.count])?,
            experts: Experts::load(&mut w.at("switch_mlp"), hidden, moe)?,
            post_feedforward_layernorm_2: named(w, "post_feedforward_layernorm_2")?,
            ops: w.ops(),
        })
    }

    /// Sum of `fed`, the output of the dense layer, and of the experts' output for hidden states
    /// `h`, both normed.
    fn beside(&self, fed: &Array, h: &Array) -> Result<Array> {
        let asked = self.router_norm.forward(h)?;
        let root = mlx::number((h.dim(-1) as f32).powf(-0.5), &asked)?;
        let ExpertChoice { ids, weights } = self.router.forward(&asked.multiply(root)?)?;
        let scale = self.per_expert_scale.take_axis(&ids, 0)?.as_dtype(weights.dtype())?;
        let choice = ExpertChoice { ids, weights: weights.multiply(scale)? };
        let y = self.experts.forward(&self.pre_feedforward_layernorm_2.forward(h)?, &choice)?;
        let y = self.post_feedforward_layernorm_2.forward(&y)?;
        self.ops.add(&self.post_feedforward_layernorm_1.forward(fed)?, &y)
    }
}
