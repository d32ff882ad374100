//! MPNet (arXiv 2004.09297): a BERT without token types, with learned positions and with biases of
//! scores by distance, which all layers share.

use mlxk_core::Architecture;
use serde_json::Value;

use super::bert;
use super::classifier::ClassifierArch;
use super::encode::Encoder;
use super::roberta::after_padding;
use super::transformer::Transformer;
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::spec::{Rules, Spec};

/// Rows of the family. The table of biases, a few numbers for each head, is never quantised.
pub const SPECS: &[Spec] = &[Spec {
    convert: Rules { plain: &["relative_attention_bias"], ..Rules::NONE },
    ..Spec::encoder(Architecture::Mpnet, load)
}];

/// Names in a checkpoint.
const NAMES: &[(&str, &str)] = &[
    ("layers", "encoder.layer"),
    ("relative_attention_bias", "encoder.relative_attention_bias"),
    ("attn.q_proj", "attention.attn.q"),
    ("attn.k_proj", "attention.attn.k"),
    ("attn.v_proj", "attention.attn.v"),
    ("attn.o_proj", "attention.attn.o"),
    ("attn_norm", "attention.LayerNorm"),
    ("mlp.up_proj", "intermediate.dense"),
    ("mlp.down_proj", "output.dense"),
    ("mlp_norm", "output.LayerNorm"),
];

/// Loads an `mpnet`, whose names may begin with `mpnet.`. Positions always begin after token 1.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let buckets = config.get("relative_attention_num_buckets").and_then(Value::as_u64);
    let mut own = given(config, serde_json::json!({ "type_vocab_size": 0 }));
    own["pad_token_id"] = 1.into();
    let mut arch = after_padding(bert::arch(&own)?, &own)?;
    arch.names = NAMES;
    arch.prefixes = &["mpnet"];
    arch.types = 0;
    arch.buckets = Some(buckets.map_or(32, |count| count.clamp(4, 4096) as usize));
    arch.classifier = ClassifierArch::ROBERTA;
    Transformer::load(arch, w)
}
