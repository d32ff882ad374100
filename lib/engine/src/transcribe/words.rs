//! Times of words: the path through the decoder's attention to the audio that follows it best
//! (dynamic time warping). Source: `timing` of openai-whisper.

use mlxk_core::Result;
use mlxk_models::speech::Heard;

use super::decode::{Prompt, WindowDecoder};
use super::split::{Piece, pieces};
use crate::forward::ids;

/// Positions of a second.
const POSITIONS: f64 = 50.0;
/// Positions that a median is taken over.
const MEDIAN: usize = 7;

/// Word with its time in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timed {
    /// Text with the space before it.
    pub text: String,
    /// Number of tokens.
    pub tokens: usize,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// Mean probability of the tokens.
    pub probability: f32,
}

impl WindowDecoder {
    /// Words of `tokens`, a text without times, and when each is heard in the first `frames` frames of a
    /// window. `spaced` is true if the language puts spaces between words.
    ///
    /// # Errors
    /// If the network fails.
    pub fn words(
        &self,
        heard: &Heard,
        prompt: &Prompt,
        tokens: &[u32],
        frames: usize,
        spaced: bool,
    ) -> Result<Vec<Timed>> {
        let words = &self.vocabulary;
        let positions = frames / 2;
        if tokens.is_empty() || positions == 0 {
            return Ok(Vec::new());
        }
        let request = self.request(prompt);
        let all = [&request, &[words.no_timestamps][..], tokens, &[words.end]].concat();
        let (logits, scores) = self.run(|| {
            let aligned = self.network.align(&ids(&all), heard, &self.alignment_heads)?;
            let rows: Vec<usize> = (request.len()..request.len() + tokens.len()).collect();
            let logits = self.logits(&aligned.h, &rows)?;
            let scores = aligned.scores.iter().map(|scores| {
                let all = scores.as_type::<f32>()?.to_vec_exact::<f32>();
                all.map_err(|e| mlx_rs::error::Exception::custom(e.to_string()))
            });
            Ok((logits, scores.collect::<std::result::Result<Vec<_>, _>>()?))
        })?;
        let likely = logits.iter().zip(tokens).map(|(logits, &token)| {
            let spoken = &logits[..words.end as usize];
            (spoken[token as usize] - super::rules::log_sum(spoken)).exp()
        });
        let likely: Vec<f32> = likely.collect();
        let rows = request.len()..all.len() - 1;
        let cost = cost(&scores, all.len(), positions, rows);
        let moments = moments(&cost, positions);
        let mut from = 0;
        let timed = pieces(words, tokens, spaced).into_iter().map(|Piece { text, tokens }| {
            let to = from + tokens;
            let probability = likely[from..to].iter().sum::<f32>() / tokens.max(1) as f32;
            let (start, end) = (moments[from], moments[to]);
            from = to;
            Timed { text, tokens, start, end, probability }
        });
        Ok(timed.collect())
    }
}

/// Costs [rows, positions] of hearing each of `rows` at each position, from the scores [tokens, all
/// positions] of the heads.
fn cost(
    scores: &[Vec<f32>],
    tokens: usize,
    positions: usize,
    rows: std::ops::Range<usize>,
) -> Vec<f32> {
    let mut sum = vec![0.0; rows.len() * positions];
    for scores in scores {
        let width = scores.len() / tokens;
        let mut weights: Vec<f32> = Vec::with_capacity(tokens * positions);
        for row in scores.chunks_exact(width) {
            let row = &row[..positions.min(width)];
            let total = super::rules::log_sum(row);
            weights.extend(row.iter().map(|score| (score - total).exp()));
            weights.resize(weights.len().next_multiple_of(positions), 0.0);
        }
        standardise(&mut weights, positions);
        let chosen = weights[rows.start * positions..rows.end * positions].chunks_exact(positions);
        for (sum, row) in sum.chunks_exact_mut(positions).zip(chosen) {
            smooth(row, sum);
        }
    }
    let count = scores.len().max(1) as f32;
    sum.iter().map(|sum| -sum / count).collect()
}

/// Gives each column of `weights` [tokens, positions] the mean 0 and the standard deviation 1.
fn standardise(weights: &mut [f32], positions: usize) {
    let tokens = (weights.len() / positions) as f32;
    for column in 0..positions {
        let values = || weights[column..].iter().step_by(positions);
        let mean = values().sum::<f32>() / tokens;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f32>() / tokens;
        let deviation = variance.sqrt();
        for value in weights[column..].iter_mut().step_by(positions) {
            *value = if deviation > 0.0 { (*value - mean) / deviation } else { 0.0 };
        }
    }
}

/// Adds the medians of `row` around each position, with the row mirrored at its ends, to `sum`.
fn smooth(row: &[f32], sum: &mut [f32]) {
    let half = (MEDIAN / 2) as i64;
    let last = row.len() as i64 - 1;
    if last < half {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        return;
    }
    for (at, sum) in sum.iter_mut().enumerate() {
        let mut near: [f32; MEDIAN] = std::array::from_fn(|shift| {
            let place = (at as i64 + shift as i64 - half).abs();
            row[(if place > last { 2 * last - place } else { place }) as usize]
        });
        near.sort_unstable_by(f32::total_cmp);
        *sum += near[MEDIAN / 2];
    }
}

/// Seconds at which the cheapest path through `cost` [rows, positions] enters each row.
fn moments(cost: &[f32], positions: usize) -> Vec<f64> {
    let rows = cost.len() / positions;
    // From where the cheapest path comes to a place: 0 from both before, 1 from the row before, 2 from
    // the position before.
    let mut from = vec![2u8; (rows + 1) * (positions + 1)];
    let mut before = vec![f32::INFINITY; rows + 1];
    before[0] = 0.0;
    for position in 1..=positions {
        let mut now = vec![f32::INFINITY; rows + 1];
        for row in 1..=rows {
            let [both, above, left] = [before[row - 1], now[row - 1], before[row]];
            let (way, least) = if both < above && both < left {
                (0, both)
            } else if above < both && above < left {
                (1, above)
            } else {
                (2, left)
            };
            now[row] = cost[(row - 1) * positions + position - 1] + least;
            from[row * (positions + 1) + position] = way;
        }
        before = now;
    }
    let mut moments = vec![0.0; rows];
    let (mut row, mut position) = (rows, positions);
    while row > 0 {
        // The last to be written is the first position of the row.
        moments[row - 1] = position.saturating_sub(1) as f64 / POSITIONS;
        match if position == 0 { 1 } else { from[row * (positions + 1) + position] } {
            0 => (row, position) = (row - 1, position - 1),
            1 => row -= 1,
            _ => position -= 1,
        }
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_path_enters_a_row_where_it_is_heard() {
        #[rustfmt::skip]
        let cost = [
            -1.0, -1.0, 1.0, 1.0, 1.0, 1.0,
            1.0, 1.0, -1.0, 1.0, 1.0, 1.0,
            1.0, 1.0, 1.0, -1.0, -1.0, -1.0,
        ];
        assert_eq!(moments(&cost, 6), [0.0, 0.04, 0.06]);
    }

    #[test]
    fn a_median_drops_what_stands_alone() {
        let mut sum = [0.0; 8];
        smooth(&[0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 1.0, 1.0], &mut sum);
        assert_eq!(sum, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    }
}
