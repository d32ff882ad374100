//! Chunks of a step: the tokens that each sequence runs in it.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::concatenate;

use super::pace::Work;
use super::shares::shares;
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
    /// Chunks of the next step: the next token of each sequence that has one, and at most `budget` rows of
    /// prompts.
    pub(super) fn chunks(&mut self, due: Option<&Queued>, budget: usize) -> Vec<Chunk> {
        let queued = |sequence: &Sequence| {
            due?.sequences.iter().position(|number| *number == sequence.number)
        };
        let decoding = self.sequences.iter().enumerate().filter(|(_, own)| own.chosen > 0);
        let next = |(sequence, own)| {
            let queued = queued(own);
            Chunk { sequence, queued, rows: 1, complete: true, wanted: 1 }
        };
        let mut chunks: Vec<Chunk> = decoding.map(next).collect();
        let decoding = chunks.len();
        let (places, left): (Vec<usize>, Vec<usize>) = self.prompts().unzip();
        let shares = shares(&left, budget);
        for ((sequence, left), rows) in places.into_iter().zip(left).zip(shares) {
            let rows = self.sequences[sequence].uncut(rows);
            if rows > 0 {
                let complete = rows == left;
                chunks.push(Chunk { sequence, queued: None, rows, complete, wanted: 1 });
            }
        }
        self.work = Work {
            decoding,
            rows: chunks[decoding..].iter().map(|chunk| chunk.rows).sum(),
            partial: chunks.iter().any(|chunk| !chunk.complete),
        };
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
