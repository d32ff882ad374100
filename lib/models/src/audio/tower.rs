//! Interface of towers for audio.

use mlx_rs::Array;
use mlx_rs::error::Result;

/// Network for audio, with the projector to a language model.
pub trait AudioTower {
    /// Number of mel bands of the spectrum.
    fn bands(&self) -> usize;

    /// Features [tokens, hidden size of the language model] of a spectrum [1, frames, bands] of 100
    /// frames a second.
    fn encode(&self, mel: &Array) -> Result<Array>;
}
