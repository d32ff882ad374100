//! Rows of weights, and how they become floats.

use std::marker::PhantomData;
use std::ops::Range;

use super::codec::{Bf16, Coding, E4M3, E8M0, F16};
use super::simd::{self, LANES, Task, Unit, WINDOW};
use super::{Floats, Packed, Scales};

/// A matrix of weights in a coding.
pub struct Rows<'a, C> {
    bytes: &'a [u8],
    scales: Option<Scales<'a>>,
    group_size: usize,
    ins: usize,
    outs: usize,
    coding: PhantomData<C>,
}

/// What is made of some rows to have it at hand.
#[derive(Default)]
pub struct Hand {
    /// Whose scales and biases they are; [`LANES`] zeros come after.
    rows: Range<usize>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    /// The row itself with zeros behind it, if more is read than there is.
    bytes: Vec<u8>,
}

/// Rows whose scales are made floats at a time.
const STRIP: usize = 16;

/// A row of weights.
pub struct Row<'a, C> {
    /// From its first code on, so many that all its blocks can be read, of [`LANES`] weights or of
    /// [`simd::BYTES`].
    pub bytes: &'a [u8],
    /// From that of its first group on, and [`LANES`] after the last.
    pub scales: &'a [f32],
    /// As many.
    pub biases: &'a [f32],
    /// Blocks of [`LANES`] weights that share a scale, by the power of two that they are.
    shared: u32,
    coding: PhantomData<C>,
}

impl<'a, C: Coding> Rows<'a, C> {
    /// Of plain weights, [outs, ins].
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn plain(floats: &Floats<'a>, ins: usize, outs: usize) -> Rows<'a, C> {
        assert_eq!(floats.len(), outs * ins);
        let bytes = match *floats {
            Floats::F32(all) => bytes(all),
            Floats::F16(all) | Floats::Bf16(all) => bytes(all),
        };
        Rows { bytes, scales: None, group_size: LANES, ins, outs, coding: PhantomData }
    }

    /// Of quantised weights, [outs, ins].
    ///
    /// # Panics
    /// If there are more or fewer of them, or of their scales.
    pub fn packed(w: &Packed<'a>, ins: usize, outs: usize) -> Rows<'a, C> {
        let groups = match w.scales {
            Scales::Affine(scales, biases) => {
                assert_eq!(scales.len(), biases.len());
                scales.len()
            }
            Scales::Mxfp4(scales) | Scales::Nvfp4(scales) | Scales::Mxfp8(scales) => scales.len(),
        };
        assert_eq!(w.weight.len() * 32, outs * ins * w.bits);
        assert_eq!(groups * w.group_size, outs * ins);
        assert!(w.group_size.is_power_of_two() && w.group_size >= LANES);
        let (bytes, scales, group_size) = (bytes(w.weight), Some(w.scales), w.group_size);
        Rows { bytes, scales, group_size, ins, outs, coding: PhantomData }
    }

    /// Weights of a row.
    pub fn len(&self) -> usize {
        self.ins
    }

    /// Weights of a row that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.outs
    }

    /// Row `row`, of which `hand` has what need be.
    #[inline(always)]
    pub fn row<'r, U: Unit>(&'r self, unit: U, row: usize, hand: &'r mut Hand) -> Row<'r, C> {
        if C::SCALED && !hand.rows.contains(&row) {
            self.widen(unit, row..self.outs.min(row + STRIP), hand);
        }
        let Hand { rows, scales, biases, bytes } = hand;
        let size = self.ins * C::BYTES / LANES;
        let rest = &self.bytes[row * size..];
        let read = size.next_multiple_of(simd::BYTES) + WINDOW;
        let bytes = if self.ins.is_multiple_of(LANES) && read <= rest.len() {
            rest
        } else {
            bytes.clear();
            bytes.extend_from_slice(&rest[..size]);
            bytes.resize(read, 0);
            bytes
        };
        let shared = (self.group_size / LANES).trailing_zeros();
        let first = if C::SCALED { (row - rows.start) * (self.ins / self.group_size) } else { 0 };
        let (scales, biases) = (&scales[first..], &biases[first..]);
        Row { bytes, scales, biases, shared, coding: PhantomData }
    }

    /// Makes scales and biases floats.
    #[inline(always)]
    fn widen<U: Unit>(&self, unit: U, rows: Range<usize>, hand: &mut Hand) {
        let groups = self.ins / self.group_size;
        let own = rows.start * groups..rows.end * groups;
        let Hand { scales, biases, .. } = hand;
        for floats in [&mut *scales, &mut *biases] {
            floats.clear();
            floats.resize(own.len() + LANES, 0.0);
        }
        let [scales, biases] = [scales, biases].map(|floats| &mut floats[..own.len()]);
        match self.scales {
            None => {}
            Some(Scales::Affine(all, all_biases)) => {
                widen(unit, all.part(own.clone()), scales);
                widen(unit, all_biases.part(own), biases);
            }
            Some(Scales::Nvfp4(all)) => read(&E4M3, &all[own], scales),
            Some(Scales::Mxfp4(all) | Scales::Mxfp8(all)) => read(&E8M0, &all[own], scales),
        }
        hand.rows = rows;
    }

    /// Writes the rows from `first` on, as many as fill `to`.
    pub fn write<U: Unit>(&self, unit: U, first: usize, to: &mut [f32]) {
        unit.run(Writing { rows: self, first, to });
    }
}

impl<C: Coding> Row<'_, C> {
    /// [`LANES`] weights from number `block * LANES` on; beyond the end of the row there are zeros.
    #[inline(always)]
    pub fn block<U: Unit>(&self, unit: U, block: usize) -> U::Floats {
        let values = C::values(unit, &self.bytes[block * C::BYTES..]);
        if !C::SCALED {
            return values;
        }
        let group = block >> self.shared;
        unit.add_product(values, unit.splat(self.scales[group]), unit.splat(self.biases[group]))
    }
}

struct Writing<'a, C> {
    rows: &'a Rows<'a, C>,
    first: usize,
    to: &'a mut [f32],
}

impl<C: Coding> Task for Writing<'_, C> {
    #[inline(always)]
    fn run<U: Unit>(self, unit: U) {
        let mut hand = Hand::default();
        for (n, to) in self.to.chunks_exact_mut(self.rows.ins).enumerate() {
            let row = self.rows.row(unit, self.first + n, &mut hand);
            for (n, to) in to.chunks_mut(LANES).enumerate() {
                store(unit, row.block(unit, n), to);
            }
        }
    }
}

/// Writes as many of the numbers as fill `to`.
#[inline(always)]
fn store<U: Unit>(unit: U, x: U::Floats, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => unit.store(x, to),
        None => {
            let mut all = [0.0; LANES];
            unit.store(x, &mut all);
            to.copy_from_slice(&all[..to.len()]);
        }
    }
}

/// Some floats in single precision.
#[inline(always)]
fn widen<U: Unit>(unit: U, from: Floats, to: &mut [f32]) {
    match from {
        Floats::F32(from) => to.copy_from_slice(from),
        Floats::F16(from) => widen_as::<F16, U>(unit, from, to),
        Floats::Bf16(from) => widen_as::<Bf16, U>(unit, from, to),
    }
}

#[inline(always)]
fn widen_as<C: Coding, U: Unit>(unit: U, from: &[u16], to: &mut [f32]) {
    let (blocks, rest) = from.as_chunks::<LANES>();
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (from, to) in blocks.iter().chain([&last]).zip(to.chunks_mut(LANES)) {
        store(unit, C::values(unit, bytes(from)), to);
    }
}

#[inline(always)]
fn read(table: &[f32; 256], codes: &[u8], to: &mut [f32]) {
    for (code, to) in codes.iter().zip(to) {
        *to = table[usize::from(*code)];
    }
}

/// Numbers as they lie in memory.
#[inline(always)]
fn bytes<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: these are plain numbers, which have no padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// What has no padding.
trait Number {}
impl Number for f32 {}
impl Number for u16 {}
impl Number for u32 {}
