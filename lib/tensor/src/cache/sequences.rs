//! Sequences that a step advances, packed one after another along the length axis.
//!
//! Most layers treat each token independently and ignore sequence boundaries. Layers that mix
//! tokens process the rows of each sequence separately, with its cache. Sequences of any lengths
//! share a step without padding, and may join or leave between any two steps.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::concatenate;

use super::{Cache, Kv, Slot, State};
use crate::array;
use crate::mlx;
use crate::positions::RowPositions;

/// Caches of the sequences of a step, and the number of rows of each.
pub struct Sequences<'a> {
    sequences: Vec<(&'a mut Cache, i32)>,
    /// Positions of the rows of each sequence; consecutive positions if empty.
    positions: Vec<RowPositions<'a>>,
    at_once: bool,
}

impl<'a> Sequences<'a> {
    /// Sequences in the order of their rows: the cache and the number of rows of each.
    pub fn new(sequences: Vec<(&'a mut Cache, i32)>) -> Sequences<'a> {
        Sequences { sequences, positions: Vec::new(), at_once: false }
    }

    /// Sets whether rows are copied immediately (true) or queued as MLX operations (false).
    pub fn at_once(self, at_once: bool) -> Sequences<'a> {
        Sequences { at_once, ..self }
    }

    /// Sets the positions of the rows, one item per sequence.
    pub fn positioned(self, positions: Vec<RowPositions<'a>>) -> Sequences<'a> {
        Sequences { positions, ..self }
    }

    /// Positions of the rows of each sequence; none if they are consecutive in all.
    pub fn positions(&self) -> &[RowPositions<'a>] {
        &self.positions
    }

    /// Single sequence of `rows` rows.
    pub fn one(cache: &'a mut Cache, rows: i32) -> Sequences<'a> {
        Sequences::new(vec![(cache, rows)])
    }

    /// Identifiers of the sequences on other ranks, and the number of rows of each.
    pub fn remote(&self) -> Vec<(u64, usize)> {
        let named = |(cache, rows): &(&mut Cache, i32)| Some((cache.remote()?, *rows as usize));
        self.sequences.iter().filter_map(named).collect()
    }

    /// Calls `mix` with the rows of each sequence in `inputs` [1, rows of all, ..] and the keys and
    /// values in its cache slot `slot`; returns the results, [1, rows, ..] each, concatenated.
    pub fn each_kv<const N: usize>(
        &mut self,
        slot: usize,
        inputs: [&Array; N],
        mut mix: impl FnMut([&Array; N], &mut Kv) -> Result<Array>,
    ) -> Result<Array> {
        let mixed = self.each_sequence(inputs, |inputs, cache| mix(inputs, cache.kv(slot)?))?;
        self.joined(mixed)
    }

    /// Calls `mix` like [`each_kv`](Self::each_kv), with the positions of the rows of each
    /// sequence.
    pub fn each_positioned<const N: usize>(
        &mut self,
        slot: usize,
        inputs: [&Array; N],
        mut mix: impl FnMut([&Array; N], &mut Kv, RowPositions) -> Result<Array>,
    ) -> Result<Array> {
        let positions = std::mem::take(&mut self.positions);
        let mut next = positions.iter();
        let mixed = self.each_sequence(inputs, |inputs, cache| {
            mix(inputs, cache.kv(slot)?, next.next().copied().unwrap_or_default())
        });
        self.positions = positions;
        self.joined(mixed?)
    }

    /// Calls `mix` like [`each_kv`](Self::each_kv), with the arrays of a recurrent layer in slot
    /// `slot`.
    pub fn each_state<const N: usize>(
        &mut self,
        slot: usize,
        inputs: [&Array; N],
        mut mix: impl FnMut([&Array; N], &mut State) -> Result<Array>,
    ) -> Result<Array> {
        let mixed = self.each_sequence(inputs, |inputs, cache| match &mut cache.slots[slot] {
            Slot::State(state) => mix(inputs, state),
            _ => Err(Exception::custom("the slot holds no state")),
        })?;
        self.joined(mixed)
    }

    /// Calls `work` with the rows of each sequence in `inputs` [1, rows of all, ..] and its cache;
    /// returns the results in the order of the sequences.
    pub fn each_sequence<const N: usize, T>(
        &mut self,
        inputs: [&Array; N],
        mut work: impl FnMut([&Array; N], &mut Cache) -> Result<T>,
    ) -> Result<Vec<T>> {
        if let [(cache, _)] = self.sequences.as_mut_slice() {
            return Ok(vec![work(inputs, cache)?]);
        }
        let rows_of: Rows = if self.at_once { array::columns } else { mlx::columns };
        let mut first = 0;
        let mut results = Vec::with_capacity(self.sequences.len());
        for (cache, rows) in &mut self.sequences {
            let range = first..first + *rows;
            first = range.end;
            let own = inputs.map(|input| rows_of(input, range.clone()));
            let own: Vec<Array> = own.into_iter().collect::<Result<_>>()?;
            results.push(work(std::array::from_fn(|i| &own[i]), cache)?);
        }
        Ok(results)
    }

    /// Concatenates the results of the sequences, [1, rows, ..] each.
    pub fn joined(&self, mut parts: Vec<Array>) -> Result<Array> {
        match (parts.len(), self.at_once) {
            (1, _) => Ok(parts.swap_remove(0)),
            (_, true) => array::joined(&parts),
            (_, false) => concatenate(&parts, 1),
        }
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.sequences.len()
    }
}

/// Slice of the length axis: `x[:, range]`.
type Rows = fn(&Array, Range<i32>) -> Result<Array>;
