//! Interface of transducers (RNN-T, arXiv 1211.3711; TDT, arXiv 2304.06795).

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::nemo::Nemo;
use crate::nn::lstm::LstmState;

/// Encoder of audio, predictor of the next token from the tokens before it, and a joint network that
/// decides for a row of the encoder and a prediction.
pub trait Transducer {
    /// Spectrum, vocabulary and times.
    fn nemo(&self) -> &Nemo;

    /// Rows that a decision may go on by, in the order of their logits; empty if a blank goes on by
    /// one row and other tokens by none.
    fn durations(&self) -> &[usize];

    /// Largest number of tokens of a row.
    fn most_symbols(&self) -> usize;

    /// Hidden states [1, rows, hidden] of a spectrum [1, frames, bands].
    fn encode(&self, mel: &Array) -> Result<Array>;

    /// Rows [1, rows, size] as they enter the joint network, of the hidden states of all rows.
    fn project(&self, states: &Array) -> Result<Array>;

    /// Prediction [1, 1, size] as it enters the joint network, after `token` and those before it,
    /// which `state` stands for; `None` before the first token.
    fn predict(&self, token: Option<u32>, state: Option<&LstmState>) -> Result<(Array, LstmState)>;

    /// Logits [1, 1, tokens + 1 + durations] of a row [1, 1, size] and a prediction of that shape:
    /// those of tokens, of the blank, and of durations.
    fn join(&self, row: &Array, prediction: &Array) -> Result<Array>;
}
