//! Trait of encoders, which map the tokens of whole sequences to hidden states.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

use super::classifier::Classifier;

/// Encoder of whole sequences.
pub trait Encoder {
    /// Number of tokens in the vocabulary; ids are below this.
    fn vocabulary(&self) -> usize;

    /// Number of elements of a token's vector.
    fn hidden_size(&self) -> usize;

    /// Largest number of tokens of a sequence.
    fn max_length(&self) -> usize;

    /// Last hidden states [1, rows, hidden] of the tokens of `packed`.
    fn encode(&self, packed: &Packed) -> Result<Array>;

    /// Classifier of whole sequences; `None` if the checkpoint has none.
    fn classifier(&self) -> Option<&Classifier> {
        None
    }

    /// Logits of two tokens as the next one after each packed sequence, in the order of the
    /// sequences. Errors if the encoder is no language model.
    fn next(&self, _packed: &Packed, _tokens: [u32; 2]) -> Result<Vec<[f32; 2]>> {
        Err(Exception::custom("an encoder, which continues no text"))
    }

    /// Number of scores of a sequence by a language model; `None` if it has no head for them.
    fn labels(&self) -> Option<usize> {
        None
    }

    /// Scores of the packed sequences by a language model, [`labels`](Self::labels) of each. Errors if
    /// the encoder has no head for them.
    fn scores(&self, _packed: &Packed) -> Result<Vec<f32>> {
        Err(Exception::custom("an encoder without a head for scores"))
    }

    /// Tokens of a text that count, without special ones; `None` if all tokens count that the
    /// tokenizer makes, special ones included.
    fn words(&self) -> Option<Words> {
        None
    }
}

/// Tokens that an embedding without a network counts. None of them is special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// All tokens of the text.
    All,
    /// Tokens of the text that are not the unknown token.
    Known,
}

/// Sequences of tokens, packed one after another without padding.
pub struct Packed<'a> {
    /// Tokens of all sequences.
    pub ids: &'a [u32],
    /// Type of each token, 0 or 1; `None` if all are of type 0.
    pub types: Option<&'a [u32]>,
    /// Number of tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Packed<'_> {
    /// Tokens [1, rows].
    pub fn array(&self) -> Array {
        row(self.ids)
    }

    /// Place of each token in its sequence.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().flat_map(|&length| 0..length)
    }
}

/// Array [1, rows] of numbers.
pub fn row(numbers: &[u32]) -> Array {
    Array::from_slice(numbers, &[1, numbers.len() as i32])
}
