//! Interface of speech networks with a decoder that attends to the encoded audio.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlxk_tensor::cache::{Cache, Sequences};

/// Encoder of audio, and decoder that attends to it and writes token after token. Rows are those of
/// one sequence after those of another.
pub trait EncoderDecoder {
    /// Sizes of the network.
    fn sizes(&self) -> &Sizes;

    /// Hidden states [1, positions, hidden] of audio in the form that [`Sizes::input`] names.
    fn encode(&self, audio: &Array) -> Result<Array>;

    /// What the decoder attends to in the hidden states [1, positions, hidden] of audio.
    fn hear(&self, states: &Array) -> Result<Heard>;

    /// Cache of one sequence, without any token.
    fn cache(&self) -> Cache;

    /// Hidden states [1, rows, hidden] of `ids` [1, rows], the next tokens of `sequences`, each of
    /// which attends to the audio at its place in `heard`.
    fn forward(&self, ids: &Array, sequences: &mut Sequences, heard: &[&Heard]) -> Result<Array>;

    /// Logits [1, rows, vocabulary] of the token after each row of `h` [1, rows, hidden].
    fn head(&self, h: &Array) -> Result<Array>;

    /// Hidden states of a whole sequence `ids` [1, rows] that attends to `heard`, and the scores of
    /// `heads`, each a layer and a head. Errors if the network does not offer them.
    fn align(&self, _ids: &Array, _heard: &Heard, _heads: &[[usize; 2]]) -> Result<Aligned> {
        Err(Exception::custom("models of this architecture do not tell the times of words"))
    }
}

/// Sizes of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Form of the audio.
    pub input: Input,
    /// Number of tokens that the decoder knows; ids are below this.
    pub vocabulary: usize,
    /// Largest number of tokens of a sequence.
    pub tokens: usize,
    /// Layers and heads of the decoder whose attention to the audio follows the words; empty if none
    /// are known.
    pub alignment_heads: Vec<[usize; 2]>,
}

/// Form of the audio that a network encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Logarithms of mel bands, [1, frames, bands].
    Mel {
        /// Number of bands.
        bands: usize,
        /// Number of frames of a window, which is never shorter.
        frames: usize,
    },
    /// Samples, [1, samples], as many as there are.
    Samples,
}

/// What the decoder attends to of a window of audio.
pub struct Heard {
    /// Keys and values of each layer, [1, heads, positions, head size].
    pub layers: Vec<[Array; 2]>,
}

/// Attention of a sequence of tokens to the audio.
pub struct Aligned {
    /// Hidden states [1, rows, hidden], as of [`EncoderDecoder::forward`].
    pub h: Array,
    /// Scores of each head before the softmax, [1, rows, positions].
    pub scores: Vec<Array>,
}
