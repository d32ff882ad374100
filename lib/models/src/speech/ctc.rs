//! Interface of networks of connectionist temporal classification (CTC, doi
//! 10.1145/1143844.1143891).

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::nemo::Nemo;

/// Encoder of audio, each of whose rows stands for a token or for none.
pub trait Ctc {
    /// Spectrum, vocabulary and times.
    fn nemo(&self) -> &Nemo;

    /// Hidden states [1, rows, hidden] of a spectrum [1, frames, bands].
    fn encode(&self, mel: &Array) -> Result<Array>;

    /// Logits [1, rows, tokens + 1] of hidden states [1, rows, hidden]: those of tokens, and of the
    /// blank.
    fn head(&self, states: &Array) -> Result<Array>;
}
