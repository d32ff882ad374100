//! Language model as an encoder: hidden states after its final norm, with causal attention or with
//! attention to the whole sequence.

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::array::elements;
use mlxk_tensor::cache::{Cache, Sequences};

use super::encode::{Encoder, Packed};
use super::score_head::ScoreHead;
use crate::language::Language;

/// Language model whose hidden states are embeddings.
pub struct LanguageEncoder {
    network: Box<dyn Language>,
    /// Head that scores a sequence by the vector of its last token.
    score: Option<ScoreHead>,
    options: LanguageOptions,
    hidden: usize,
}

/// Use of a language model as an encoder.
#[derive(Clone, Copy, Debug)]
pub struct LanguageOptions {
    /// True if a token attends only to those before it.
    pub causal: bool,
    /// Largest number of tokens of a sequence.
    pub max_length: usize,
    /// True if the network has the form for a CPU.
    pub on_cpu: bool,
}

impl LanguageEncoder {
    /// Encoder of `network`, with a head for scores.
    ///
    /// # Errors
    /// If the network cannot take a token.
    pub fn new(
        network: Box<dyn Language>,
        score: Option<ScoreHead>,
        options: LanguageOptions,
    ) -> Result<LanguageEncoder> {
        let token = network.embed(&super::encode::row(&[0]), &[])?;
        network.states(&token.h)?;
        let hidden = token.h.dim(2) as usize;
        Ok(LanguageEncoder { network, score, options, hidden })
    }

    /// Cache of a sequence.
    fn cache(&self) -> Cache {
        match self.options.causal {
            true => self.network.cache(),
            false => self.network.cache().with_layout(|layout| layout.both_ways()),
        }
    }
}

impl Encoder for LanguageEncoder {
    fn vocabulary(&self) -> usize {
        self.network.vocabulary()
    }

    fn hidden_size(&self) -> usize {
        self.hidden
    }

    fn max_length(&self) -> usize {
        self.options.max_length
    }

    fn encode(&self, packed: &Packed) -> Result<Array> {
        self.network.states(&self.forward(packed)?)
    }

    fn next(&self, packed: &Packed, tokens: [u32; 2]) -> Result<Vec<[f32; 2]>> {
        let last = last(&self.forward(packed)?, packed)?;
        let logits = self.network.head(&last)?.as_type::<f32>()?;
        let columns = Array::from_slice(&tokens, &[2]);
        let both = logits.take_axis(columns, 2)?.contiguous()?;
        Ok(elements(&both)?.as_chunks().0.to_vec())
    }

    fn labels(&self) -> Option<usize> {
        self.score.as_ref().map(|score| score.labels)
    }

    fn scores(&self, packed: &Packed) -> Result<Vec<f32>> {
        let score = self.score.as_ref();
        let score = score.ok_or_else(|| Exception::custom("no head for scores"))?;
        score.forward(&last(&self.encode(packed)?, packed)?)
    }
}

/// Vectors [1, sequences, hidden] of the last tokens of packed sequences, of `h` [1, rows, hidden].
fn last(h: &Array, packed: &Packed) -> Result<Array> {
    let ends = packed.lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end as i32 - 1)
    });
    let ends: Vec<i32> = ends.collect();
    h.take_axis(Array::from_slice(&ends, &[ends.len() as i32]), 1)
}

impl LanguageEncoder {
    /// Hidden states [1, rows, hidden] before the final norm.
    fn forward(&self, packed: &Packed) -> Result<Array> {
        let mut inputs = self.network.embed(&packed.array(), &[])?;
        if self.options.on_cpu {
            inputs.h = inputs.h.as_dtype(Dtype::Float32)?;
        }
        let mut caches: Vec<Cache> = packed.lengths.iter().map(|_| self.cache()).collect();
        let lengths = packed.lengths.iter().map(|&length| length as i32);
        let sequences = Sequences::new(caches.iter_mut().zip(lengths).collect());
        self.network.forward(inputs, &mut sequences.at_once(self.options.on_cpu))
    }
}
