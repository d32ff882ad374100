//! Greedy decoding of connectionist temporal classification (doi 10.1145/1143844.1143891).

use mlx_rs::Array;
use mlxk_core::Result;
use mlxk_models::speech::Ctc;
use mlxk_tensor::mlx;

use super::logits::{best, numbers};
use super::timed::TimedToken;

/// Tokens of a spectrum [1, frames, bands], each with the rows of the encoder from its first to its
/// last. Equal tokens of adjacent rows are one; a blank between them makes them two.
///
/// # Errors
/// If MLX fails.
pub fn decode(network: &dyn Ctc, mel: &Array) -> Result<Vec<TimedToken>> {
    let logits = || numbers(&network.head(&network.encode(mel)?)?);
    let logits = logits().map_err(mlx::failed)?;
    let blank = network.nemo().vocabulary.len();
    let mut tokens: Vec<TimedToken> = Vec::new();
    let mut before = blank;
    for (row, logits) in logits.chunks_exact(blank + 1).enumerate() {
        let (token, probability) = best(logits);
        match tokens.last_mut().filter(|_| token == before) {
            Some(last) if token != blank => last.extend(row + 1, probability),
            _ if token != blank => {
                tokens.push(TimedToken::new(token as u32, row..row + 1, probability));
            }
            _ => {}
        }
        before = token;
    }
    Ok(tokens)
}
