//! Chunks of a step: the tokens that each sequence runs in it.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::concatenate;

use super::state::{Batch, Queued, Sequence};

/// Chunk of a step: the tokens that one sequence runs in it.
pub struct Chunk {
    /// Index of the sequence in the batch.
    pub sequence: usize,
    /// Row of its token among the queued tokens, if that is not read yet.
    pub queued: Option<usize>,
    /// Number of tokens.
    pub rows: usize,
    /// True if no token of the sequence is left to run, so that its next one is sampled.
    pub complete: bool,
    /// Number of tokens at the end after which logits are wanted, if the chunk is complete.
    pub wanted: usize,
}

impl Batch {
    /// Chunks of the next step: for each sequence the token that comes next, or a piece of its prompt.
    /// All pieces of prompts together have at most `prefill_chunk` tokens.
    pub(super) fn chunks(&self, due: Option<&Queued>, prefill_chunk: usize) -> Vec<Chunk> {
        let queued = |sequence: &Sequence| {
            due?.sequences.iter().position(|number| *number == sequence.number)
        };
        let mut chunks = Vec::new();
        let mut budget = prefill_chunk.max(1);
        for (place, sequence) in self.sequences.iter().enumerate() {
            if let Some(row) = queued(sequence) {
                chunks.push(Chunk {
                    sequence: place,
                    queued: Some(row),
                    rows: 1,
                    complete: true,
                    wanted: 1,
                });
                continue;
            }
            if sequence.cache.is_none() {
                continue;
            }
            let left = sequence.tokens.len() - sequence.fed;
            let rows = left.min(budget.max(usize::from(left == 1)));
            budget -= rows.min(budget);
            if rows > 0 {
                chunks.push(Chunk {
                    sequence: place,
                    queued: None,
                    rows,
                    complete: rows == left,
                    wanted: 1,
                });
            }
        }
        chunks.sort_by_key(|chunk| chunk.queued.is_none());
        chunks
    }

    /// Last token [rows, 1] of each complete chunk.
    pub(super) fn last(&self, chunks: &[Chunk], due: Option<&Queued>) -> Result<Array> {
        let complete = known(chunks).filter(|chunk| chunk.complete);
        let known: Vec<u32> = complete
            .filter_map(|chunk| self.sequences[chunk.sequence].tokens.last().copied())
            .collect();
        joined(due.zip(queued(chunks)), &known, 0)
    }
}

/// Chunks whose tokens are known.
pub fn known(chunks: &[Chunk]) -> impl Iterator<Item = &Chunk> {
    chunks.iter().filter(|chunk| chunk.queued.is_none())
}

/// Rows of the queued tokens that chunks run; `None` if there are none.
pub fn queued(chunks: &[Chunk]) -> Option<Vec<usize>> {
    let rows: Vec<usize> = chunks.iter().filter_map(|chunk| chunk.queued).collect();
    (!rows.is_empty()).then_some(rows)
}

/// Token ids [length, 1] or [1, length], as `axis` is 0 or not: rows of the queued tokens, then the
/// `known` ones.
pub fn joined(queued: Option<(&Queued, Vec<usize>)>, known: &[u32], axis: i32) -> Result<Array> {
    let shape = |count: usize| match axis {
        0 => [count as i32, 1],
        _ => [1, count as i32],
    };
    let known_ids = Array::from_slice(known, &shape(known.len()));
    let Some((queued, rows)) = queued else { return Ok(known_ids) };
    let all =
        rows.len() == queued.sequences.len() && rows.iter().enumerate().all(|(n, row)| n == *row);
    let ids = if all {
        queued.sampled.ids.clone()
    } else {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        queued.sampled.ids.take_axis(Array::from_slice(&rows, &[rows.len() as i32]), 0)?
    };
    let ids = ids.reshape(&shape(ids.size()))?;
    match known {
        [] => Ok(ids),
        _ => concatenate(&[ids, known_ids], axis),
    }
}
