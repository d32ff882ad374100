//! DeepSeek V4.1: attention to a sliding window and to compressed rows of older tokens, mixtures of
//! experts, and several residual streams.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use mlxk_tensor::cache::{Cache, CompressedKv, Kv, Sequences, Slot};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde::Deserialize;
use serde_json::{Value, json};

use super::deepseek_native;
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::config::given;
use crate::language::{Inputs, Language, Spliced, splice};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::hyper_connections::{self, HyperConnectionSizes, HyperConnections};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::MlpArch;
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::norm::{Norm, NormArch, NormKind};
use crate::nn::sparse::{Candidates, CompressSizes, IndexSizes, Selection, Sparse, SparseSizes};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[deepseek_native::translate],
    experts: ExpertLayout { to: "experts.switch_mlp", ..ExpertLayout::DEFAULT },
    convert: Rules {
        plain: &["mlp.gate"],
        keep: &[
            "_hc.fn",
            "_hc.base",
            "_hc.scale",
            "self_attn.sinks",
            "e_score_correction_bias",
            "compressor.kv_proj.weight",
            "compressor.gate_proj.weight",
            "compressor.kv_norm.weight",
        ],
        ..Rules::NONE
    },
    ..Spec::new(Architecture::DeepseekV41, load)
}];

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    head_dim: usize,
    q_lora_rank: usize,
    qk_rope_head_dim: usize,
    o_groups: usize,
    o_lora_rank: usize,
    moe_intermediate_size: usize,
    n_routed_experts: usize,
    num_experts_per_tok: usize,
    scoring_func: String,
    gate_temp: f32,
    norm_topk_prob: bool,
    routed_scaling_factor: f32,
    swiglu_limit: f32,
    rms_norm_eps: f32,
    sliding_window: usize,
    compress_ratios: Vec<usize>,
    kv_source_layer_ids: Vec<usize>,
    index_source_layer_ids: Vec<usize>,
    compress_rope_theta: f64,
    candidate_source_layer_id: i64,
    candidate_topk_blocks: i64,
    candidate_block_size: usize,
    index_n_heads: usize,
    index_head_dim: usize,
    index_topk: usize,
    rope_theta: f64,
    rope_scaling: Option<Value>,
    max_position_embeddings: u64,
    hc_mult: usize,
    hc_sinkhorn_iters: usize,
    hc_eps: f32,
}

struct DeepseekV41 {
    ends: EmbedHead,
    layers: Vec<Layer>,
    memories: Vec<Memory>,
    streams: usize,
}

struct Layer {
    attn_hc: HyperConnections,
    input_layernorm: Norm,
    self_attn: Sparse,
    ffn_hc: HyperConnections,
    post_attention_layernorm: Norm,
    mlp: Moe,
}

/// Kind of a cache slot.
#[derive(Clone, Copy)]
enum Memory {
    /// Sliding window of this many tokens.
    Window(usize),
    /// Compressed cache with one row for this many tokens.
    Compressed(usize),
}

/// Loads the language model of a `deepseek_v41`; skips the vision tower.
fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
    let c = read(config)?;
    w.rename(&[("shared_expert", "shared_experts"), ("switch_mlp", "experts.switch_mlp")]);
    let norm = NormArch { kind: NormKind::Rms, eps: c.rms_norm_eps };
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: false,
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let (sizes, memories) = c.attention(norm)?;
    let moe = c.moe()?;
    let layer = |(i, sizes): (usize, SparseSizes)| {
        let mut w = w.at(&format!("model.layers.{i}"));
        Layer::load(&mut w, &c, sizes, &moe)
    };
    let layers = sizes.into_iter().enumerate().map(layer).collect::<mlxk_core::Result<_>>()?;
    Ok(Box::new(DeepseekV41 { ends, layers, memories, streams: c.hc_mult }))
}

fn read(config: &Value) -> mlxk_core::Result<Config> {
    let text = config.get("text_config").filter(|text| text.is_object()).unwrap_or(config);
    let defaults = json!({"vocab_size": 129_280, "hidden_size": 5120, "num_hidden_layers": 40,
        "num_attention_heads": 64, "head_dim": 512, "q_lora_rank": 1280, "qk_rope_head_dim": 64,
        "o_groups": 8, "o_lora_rank": 1024, "moe_intermediate_size": 2304,
        "n_routed_experts": 384, "num_experts_per_tok": 6, "scoring_func": "sqrtsoftplus",
        "gate_temp": 1.0, "norm_topk_prob": true, "routed_scaling_factor": 1.5,
        "swiglu_limit": 10.0, "rms_norm_eps": 1e-20, "sliding_window": 128, "compress_ratios": [],
        "kv_source_layer_ids": [], "index_source_layer_ids": [], "compress_rope_theta": 160_000.0,
        "candidate_source_layer_id": -1, "candidate_topk_blocks": 2048,
        "candidate_block_size": 8, "index_n_heads": 32, "index_head_dim": 128, "index_topk": 512,
        "rope_theta": 10_000.0, "max_position_embeddings": 1_048_576, "hc_mult": 4,
        "hc_sinkhorn_iters": 20, "hc_eps": 1e-6});
    let c: Config = fields(&given(text, defaults))?;
    c.check()?;
    Ok(c)
}

impl Config {
    fn check(&self) -> mlxk_core::Result<()> {
        positive(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim),
            ("q_lora_rank", self.q_lora_rank),
            ("o_groups", self.o_groups),
            ("o_lora_rank", self.o_lora_rank),
            ("sliding_window", self.sliding_window),
            ("candidate_block_size", self.candidate_block_size),
            ("index_n_heads", self.index_n_heads),
            ("index_head_dim", self.index_head_dim),
            ("index_topk", self.index_topk),
            ("hc_mult", self.hc_mult),
            ("hc_sinkhorn_iters", self.hc_sinkhorn_iters),
        ])?;
        most_layers(self.num_hidden_layers)?;
        let rotated = self.qk_rope_head_dim;
        let least = self.head_dim.min(self.index_head_dim);
        if rotated == 0 || !rotated.is_multiple_of(2) || rotated > least {
            return Err(invalid(format!("`qk_rope_head_dim` cannot be {rotated}")));
        }
        if !(self.num_attention_heads * self.head_dim).is_multiple_of(self.o_groups) {
            return Err(invalid(format!("heads cannot be {} groups", self.o_groups)));
        }
        if self.hc_sinkhorn_iters > 1000 {
            return Err(invalid("`hc_sinkhorn_iters` is more than 1000".into()));
        }
        if let Some(ratio) = self.compress_ratios.iter().find(|&&ratio| ratio > 1 << 20) {
            return Err(invalid(format!("`compress_ratios` cannot hold {ratio}")));
        }
        Ok(())
    }

    fn moe(&self) -> mlxk_core::Result<MoeArch> {
        let score = match self.scoring_func.as_str() {
            "sqrtsoftplus" => Score::RootSoftplus,
            "sigmoid" => Score::Sigmoid,
            "softmax" => Score::Softmax,
            other => return Err(unknown(format!("experts scored by `{other}` cannot run yet"))),
        };
        let activation = match self.swiglu_limit {
            limit if limit > 0.0 => Activation::ClippedSilu { limit },
            _ => Activation::Silu,
        };
        let inner = self.moe_intermediate_size;
        let mlp = MlpArch { inner, gated: true, fused: false, activation };
        Ok(MoeArch {
            count: self.n_routed_experts,
            inner,
            gated: true,
            activation,
            routing: Routing {
                normalised: self.norm_topk_prob && self.num_experts_per_tok > 1,
                scale: self.routed_scaling_factor,
                temperature: self.gate_temp,
                wide: true,
                ..Routing::new(self.num_experts_per_tok, score)
            },
            shared: Some(SharedArch { mlp, weighed: false }),
        })
    }

    fn hyper(&self) -> HyperConnectionSizes {
        HyperConnectionSizes {
            hidden: self.hidden_size,
            streams: self.hc_mult,
            rounds: self.hc_sinkhorn_iters,
            eps: self.hc_eps,
            norm_eps: self.rms_norm_eps,
        }
    }

    /// Rotary embedding of queries and keys. Layers with compressed rows use a longer context,
    /// extended by YaRN without magnitude scaling.
    fn rope(&self, compressed: bool) -> mlxk_core::Result<Rope> {
        if !compressed {
            return Rope::new(self.qk_rope_head_dim, true, self.rope_theta, None, None);
        }
        let stated = self.rope_scaling.clone().filter(Value::is_object).unwrap_or(json!({}));
        let defaults = json!({"factor": 1.0,
            "original_max_position_embeddings": self.max_position_embeddings});
        let mut scaling = given(&stated, defaults);
        (scaling["type"], scaling["mscale"], scaling["mscale_all_dim"]) =
            ("yarn".into(), 0.into(), 0.into());
        let scaling: Scaling = fields(&scaling)?;
        Rope::new(self.qk_rope_head_dim, true, self.compress_rope_theta, None, Some(&scaling))
    }

    /// Tokens per compressed row that layer `layer` attends to; 0 if it only has the sliding
    /// window.
    fn ratio(&self, layer: usize) -> usize {
        self.compress_ratios.get(layer).copied().unwrap_or_default()
    }

    /// Attention sizes of all layers, and the kinds of their cache slots. Layers that compress or
    /// select rows do so for the layers after them as well.
    fn attention(&self, norm: NormArch) -> mlxk_core::Result<(Vec<SparseSizes>, Vec<Memory>)> {
        let mut memories = Vec::new();
        let mut add = |memory| {
            memories.push(memory);
            memories.len() - 1
        };
        let [plain, stretched] = [self.rope(false)?, self.rope(true)?];
        let (mut far, mut keys, mut blocks) = (None, None, None);
        let layer = |i| {
            let ratio = self.ratio(i);
            let near = add(Memory::Window(self.sliding_window));
            let chooses = ratio > 0 && self.index_source_layer_ids.contains(&i);
            let compress =
                (ratio > 0 && self.kv_source_layer_ids.contains(&i)).then(|| CompressSizes {
                    ratio,
                    open: (ratio > 1).then(|| add(Memory::Window(ratio))),
                    rows: add(Memory::Compressed(ratio)),
                    key: chooses.then_some(self.index_head_dim),
                });
            if let Some(CompressSizes { rows, .. }) = compress {
                far = Some((rows, ratio));
                keys = if chooses { far } else { keys };
            }
            let index = chooses.then(|| self.index(i, keys.map(|(slot, _)| slot)));
            if chooses && self.candidates(i).is_some() {
                blocks = keys;
            }
            let ratios = [(chooses, Some((0, ratio))), (chooses, blocks), (ratio > 0, far)];
            let other = |&(due, of): &(bool, Option<(usize, usize)>)| {
                due && of.zip(keys).is_some_and(|((_, a), (_, b))| a != b)
            };
            if ratios.iter().any(other) {
                let why = format!("layer {i} looks at rows of another length than it chooses");
                return Err(invalid(why));
            }
            Ok(SparseSizes {
                hidden: self.hidden_size,
                heads: self.num_attention_heads,
                head_dim: self.head_dim,
                query_rank: self.q_lora_rank,
                groups: self.o_groups,
                out_rank: self.o_lora_rank,
                window: self.sliding_window as i32,
                norm,
                rope: if ratio > 0 { &stretched } else { &plain }.clone(),
                rotated: self.qk_rope_head_dim,
                near,
                far: far.filter(|_| ratio > 0).map(|(slot, _)| slot),
                compress,
                index,
            })
        };
        let layers = (0..self.num_hidden_layers).map(layer).collect::<mlxk_core::Result<_>>()?;
        Ok((layers, memories))
    }

    fn index(&self, layer: usize, keys: Option<usize>) -> IndexSizes {
        IndexSizes {
            heads: self.index_n_heads,
            size: self.index_head_dim,
            chosen: self.index_topk,
            ratio: self.ratio(layer),
            keys,
            candidates: self.candidates(layer),
        }
    }

    /// Candidate blocks that layer `layer` selects for later layers; `None` for all layers but the
    /// source.
    fn candidates(&self, layer: usize) -> Option<Candidates> {
        let blocks = usize::try_from(self.candidate_topk_blocks).ok().filter(|&n| n > 0)?;
        let here = self.candidate_source_layer_id == layer as i64;
        here.then_some(Candidates { blocks, size: self.candidate_block_size })
    }
}

impl Layer {
    fn load(
        w: &mut Cursor,
        c: &Config,
        sizes: SparseSizes,
        moe: &MoeArch,
    ) -> mlxk_core::Result<Layer> {
        let (norm, hidden) = (sizes.norm, c.hidden_size);
        Ok(Layer {
            attn_hc: HyperConnections::load(&mut w.at("attn_hc"), c.hyper())?,
            input_layernorm: norm.load(w, "input_layernorm", hidden)?,
            self_attn: Sparse::load(&mut w.at("self_attn"), sizes)?,
            ffn_hc: HyperConnections::load(&mut w.at("ffn_hc"), c.hyper())?,
            post_attention_layernorm: norm.load(w, "post_attention_layernorm", hidden)?,
            mlp: Moe::load(&mut w.at("mlp"), hidden, moe, norm)?,
        })
    }

    /// Maps `streams` [1, rows, streams, hidden] to the same shape, read with the weights `read`
    /// [1, rows, streams]; also returns the read weights of the next layer.
    fn forward(
        &self,
        (streams, read): (Array, Array),
        sequences: &mut Sequences,
        selections: &mut [Selection],
    ) -> Result<(Array, Array)> {
        let links = self.attn_hc.weights(&streams)?;
        let h = self.input_layernorm.forward(&hyper_connections::read(&streams, &read)?)?;
        let streams = links.write(&streams, &self.self_attn.forward(&h, sequences, selections)?)?;
        let next = self.ffn_hc.weights(&streams)?;
        let h = hyper_connections::read(&streams, &links.read)?;
        let h = self.mlp.forward(&self.post_attention_layernorm.forward(&h)?)?;
        Ok((next.write(&streams, &h)?, next.read))
    }
}

impl Language for DeepseekV41 {
    fn vocabulary(&self) -> usize {
        self.ends.vocabulary
    }

    fn cache(&self) -> Cache {
        let slot = |memory: &Memory| match *memory {
            Memory::Window(tokens) => Slot::Kv(Kv::new(Some(tokens as i32))),
            Memory::Compressed(tokens) => Slot::CompressedKv(CompressedKv::new(tokens as i32)),
        };
        Cache { slots: self.memories.iter().map(slot).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        Ok(splice(self.ends.embed(ids)?, spliced)?.into())
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let mut selections: Vec<Selection> =
            (0..sequences.count()).map(|_| Selection::default()).collect();
        let mut streams = hyper_connections::expand(&inputs.h, self.streams)?;
        for layer in &self.layers {
            streams = layer.forward(streams, sequences, &mut selections)?;
        }
        hyper_connections::read(&streams.0, &streams.1)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        self.ends.head(h)
    }
}
