//! Static embeddings: a vector of each token, without a network, in the forms of model2vec and of
//! `StaticEmbedding` of sentence-transformers.

use mlx_rs::error::Result;
use mlx_rs::ops::broadcast_to;
use mlx_rs::{Array, Dtype};
use mlxk_core::Architecture;
use mlxk_tensor::ops::Ops;
use serde_json::Value;

use super::encode::{Encoder, Packed, Words, row};
use crate::checkpoint::config_error::{invalid, positive};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::tensor::{Bytes, Tensor, size};
use crate::nn::linear::Embedding;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] =
    &[Spec { sanitize: &[as_layer], ..Spec::encoder(Architecture::StaticEmbedding, load) }];

/// Name of the table as a layer.
const TABLE: &str = "embedding";

/// Table of vectors.
struct StaticEmbedding {
    table: Embedding,
    /// Row of the table of each token; tokens are rows if absent.
    mapping: Option<Vec<u32>>,
    /// Weight of each token.
    weights: Option<Array>,
    words: Words,
    vocabulary: usize,
    hidden: usize,
    max_length: usize,
    ops: &'static dyn Ops,
}

/// Renames the table of model2vec, `embeddings`, to that of a layer, and widens types that layers do
/// not compute with.
fn as_layer(all: &mut Checkpoint) -> mlxk_core::Result<()> {
    let table = format!("{TABLE}.weight");
    all.rename(|name| (name == "embeddings").then(|| table.clone()));
    all.change(|name| name == table || name == "weights", widened);
    Ok(())
}

/// Loads a table of any form.
fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let (shape, _) = w.form(&format!("{TABLE}.weight"))?;
    let &[rows, columns] = shape.as_slice() else {
        return Err(invalid(format!("the table of vectors has the shape {shape:?}")));
    };
    let number = |value: Option<&Value>| {
        value.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
    };
    let groups =
        w.form(&format!("{TABLE}.scales")).ok().and_then(|(shape, _)| shape.last().copied());
    let hidden = match groups {
        None => columns,
        Some(groups) => {
            let size = number(config.get("quantization").and_then(|table| table.get("group_size")));
            groups.saturating_mul(size.unwrap_or(64))
        }
    };
    positive(&[("hidden_dim", hidden), ("vocab_size", rows)])?;
    let table = Embedding::load(&mut w, TABLE, rows, hidden)?;
    let mapping = w.has("mapping").then(|| mapping(&mut w, rows)).transpose()?;
    let vocabulary = mapping.as_ref().map_or(rows, Vec::len);
    let weights = w.optional("weights", &[vocabulary])?;
    // Only model2vec states that, or its type.
    let known = config.get("model_type").is_some_and(|kind| kind == "model2vec")
        || config.get("normalize").is_some();
    Ok(Box::new(StaticEmbedding {
        table,
        mapping,
        weights,
        words: if known { Words::Known } else { Words::All },
        vocabulary,
        hidden,
        max_length: number(config.get("seq_length")).unwrap_or(usize::MAX).max(1),
        ops: w.ops(),
    }))
}

impl Encoder for StaticEmbedding {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn hidden_size(&self) -> usize {
        self.hidden
    }

    fn max_length(&self) -> usize {
        self.max_length
    }

    fn encode(&self, packed: &Packed) -> Result<Array> {
        let ids = match &self.mapping {
            Some(mapping) => {
                row(&packed.ids.iter().map(|&id| mapping[id as usize]).collect::<Vec<_>>())
            }
            None => packed.array(),
        };
        let h = self.table.forward(&ids)?;
        let Some(weights) = &self.weights else { return Ok(h) };
        let weights = weights.take_axis(packed.array(), 0)?.expand_dims(-1)?;
        let weights = broadcast_to(&weights.as_dtype(h.dtype())?, h.shape())?.contiguous()?;
        self.ops.multiply(&h, &weights)
    }

    fn words(&self) -> Option<Words> {
        Some(self.words)
    }
}

/// Rows of the table of `rows` rows, by token.
fn mapping(w: &mut Cursor, rows: usize) -> mlxk_core::Result<Vec<u32>> {
    const NAME: &str = "mapping";
    let tensor = w.take(NAME)?;
    let width = match tensor.dtype {
        Dtype::Int64 | Dtype::Uint64 => 8,
        Dtype::Int32 | Dtype::Uint32 => 4,
        other => return Err(w.invalid(NAME, format!("expected integers, found {other:?}"))),
    };
    // Little-endian; the high half of a row's number is zero.
    let low = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let all: Vec<u32> = tensor.read(|bytes| bytes.chunks_exact(width).map(low).collect())?;
    match all.iter().find(|&&to| to as usize >= rows) {
        Some(to) => Err(w.invalid(NAME, format!("row {to} of a table of {rows}"))),
        None => Ok(all),
    }
}

/// The tensor as f32 if its elements are integers of 8 bits or floats of 64.
fn widened(tensor: Tensor) -> Tensor {
    let float: fn(&[u8]) -> f32 = match tensor.dtype {
        Dtype::Int8 => |bytes| f32::from(bytes[0] as i8),
        Dtype::Float64 => {
            |bytes| bytes.try_into().map_or(f32::NAN, |bytes| f64::from_le_bytes(bytes) as f32)
        }
        _ => return tensor,
    };
    let width = size(tensor.dtype);
    Tensor::made(Dtype::Float32, tensor.shape.clone(), move || {
        let floats = |bytes: &[u8]| -> Vec<u8> {
            bytes.chunks_exact(width).flat_map(|element| float(element).to_le_bytes()).collect()
        };
        Bytes::of(&tensor.read(floats)?)
    })
}
