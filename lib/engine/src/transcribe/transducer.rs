//! Greedy decoding of transducers (RNN-T, arXiv 1211.3711; TDT, arXiv 2304.06795).

use mlx_rs::Array;
use mlxk_core::Result;
use mlxk_models::speech::Transducer;
use mlxk_tensor::mlx;

use super::logits::{best, numbers};
use super::timed::TimedToken;

/// Tokens of a spectrum [1, frames, bands], with the rows of the encoder that they cover.
///
/// # Errors
/// If MLX fails.
pub fn decode(network: &dyn Transducer, mel: &Array) -> Result<Vec<TimedToken>> {
    tokens(network, mel).map_err(mlx::failed)
}

fn tokens(network: &dyn Transducer, mel: &Array) -> mlx_rs::error::Result<Vec<TimedToken>> {
    let rows = network.project(&network.encode(mel)?)?;
    let count = rows.dim(1) as usize;
    let blank = network.nemo().vocabulary.len();
    let (mut prediction, mut state) = network.predict(None, None)?;
    let mut tokens = Vec::new();
    let (mut at, mut here) = (0, 0);
    while at < count {
        let row = mlx::columns(&rows, at as i32..at as i32 + 1)?.contiguous()?;
        let logits = numbers(&network.join(&row, &prediction)?)?;
        let (of_tokens, of_durations) = logits.split_at(blank + 1);
        let (token, probability) = best(of_tokens);
        let duration = match of_durations {
            [] => usize::from(token == blank),
            durations => network.durations().get(best(durations).0).copied().unwrap_or(1),
        };
        if token != blank {
            // A token without a duration of its own is as long as a row.
            let length = if of_durations.is_empty() { 1 } else { duration };
            let id = token as u32;
            tokens.push(TimedToken::new(id, at..at + length, probability));
            (prediction, state) = network.predict(Some(id), Some(&state))?;
            here += 1;
        }
        // A blank that stays would be decided again and again.
        let stuck = duration == 0 && (token == blank || here >= network.most_symbols());
        let on = if stuck || of_durations.is_empty() && here >= network.most_symbols() {
            1
        } else {
            duration
        };
        if on > 0 {
            here = 0;
        }
        at += on;
    }
    Ok(tokens)
}
