//! What each text brings to a step.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::concatenate;

use super::state::{Batch, Queued, Text};

/// What a text brings to a step.
pub struct Part {
    /// Its place among the texts.
    pub text: usize,
    /// Its row among the queued tokens, if its next token is one of them.
    pub queued: Option<usize>,
    /// How many tokens.
    pub rows: usize,
    /// Whether they are all it has, so that the next one is due.
    pub whole: bool,
    /// After how many of the last of them logits are wanted, if it is whole.
    pub wanted: usize,
}

impl Batch {
    /// What each text brings to the next step: the token that comes next, or some of its prompt.
    pub(super) fn parts(&self, due: Option<&Queued>, chunk: usize) -> Vec<Part> {
        let queued = |text: &Text| due?.texts.iter().position(|number| *number == text.number);
        let mut parts = Vec::new();
        let mut budget = chunk.max(1);
        for (place, text) in self.texts.iter().enumerate() {
            if let Some(row) = queued(text) {
                parts.push(Part {
                    text: place,
                    queued: Some(row),
                    rows: 1,
                    whole: true,
                    wanted: 1,
                });
                continue;
            }
            if text.cache.is_none() {
                continue;
            }
            let left = text.tokens.len() - text.fed;
            let rows = left.min(budget.max(usize::from(left == 1)));
            budget -= rows.min(budget);
            if rows > 0 {
                parts.push(Part {
                    text: place,
                    queued: None,
                    rows,
                    whole: rows == left,
                    wanted: 1,
                });
            }
        }
        parts.sort_by_key(|part| part.queued.is_none());
        parts
    }

    /// The last token [rows, 1] of each part that is whole.
    pub(super) fn last(&self, parts: &[Part], due: Option<&Queued>) -> Result<Array> {
        let whole = known(parts).filter(|part| part.whole);
        let known: Vec<u32> =
            whole.filter_map(|part| self.texts[part.text].tokens.last().copied()).collect();
        joined(due.zip(queued(parts)), &known, 0)
    }
}

/// The parts whose tokens are known.
pub fn known(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|part| part.queued.is_none())
}

/// The rows of the others; `None` if there are no others.
pub fn queued(parts: &[Part]) -> Option<Vec<usize>> {
    let rows: Vec<usize> = parts.iter().filter_map(|part| part.queued).collect();
    (!rows.is_empty()).then_some(rows)
}

/// Some of the queued tokens, then those that are known, along an axis of two.
pub fn joined(queued: Option<(&Queued, Vec<usize>)>, known: &[u32], axis: i32) -> Result<Array> {
    let shape = |count: usize| match axis {
        0 => [count as i32, 1],
        _ => [1, count as i32],
    };
    let known_ids = Array::from_slice(known, &shape(known.len()));
    let Some((queued, rows)) = queued else { return Ok(known_ids) };
    let all = rows.len() == queued.texts.len() && rows.iter().enumerate().all(|(n, row)| n == *row);
    let ids = if all {
        queued.choice.ids.clone()
    } else {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        queued.choice.ids.take_axis(Array::from_slice(&rows, &[rows.len() as i32]), 0)?
    };
    let ids = ids.reshape(&shape(ids.size()))?;
    match known {
        [] => Ok(ids),
        _ => concatenate(&[ids, known_ids], axis),
    }
}
