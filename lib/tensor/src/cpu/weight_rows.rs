//! Rows of a weight matrix in one format, and how they are decoded to floats.

use std::marker::PhantomData;
use std::ops::Range;

use super::codec::{Bf16, Codec, E4M3, E8M0, F16};
use super::simd::{self, Kernel, LANES, Simd, WINDOW};
use super::{FloatSlice, QuantizedView, Scales};

/// Matrix of weights [outs, ins] in the format `C`.
pub struct WeightRows<'a, C> {
    bytes: &'a [u8],
    scales: Option<Scales<'a>>,
    group_size: usize,
    ins: usize,
    outs: usize,
    codec: PhantomData<C>,
}

/// Buffers for the scales and bytes of a few rows.
#[derive(Default)]
pub struct Scratch {
    /// Rows whose scales and biases are in the buffers; [`LANES`] zeros follow them.
    rows: Range<usize>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    /// Copy of a row padded with zeros, for rows at the end of the matrix, past which kernels would
    /// read.
    bytes: Vec<u8>,
}

/// Rows whose scales are converted to floats at a time.
const STRIP: usize = 16;

/// Row of weights.
pub struct Row<'a, C> {
    /// Codes of the row, and enough bytes after them to read whole blocks of [`LANES`] weights or
    /// [`simd::BYTES`] bytes.
    pub bytes: &'a [u8],
    /// Scales of the row's groups, and at least [`LANES`] more elements.
    pub scales: &'a [f32],
    /// Biases of the row's groups, and at least [`LANES`] more elements.
    pub biases: &'a [f32],
    /// Binary logarithm of the blocks of [`LANES`] weights that share a scale.
    shared: u32,
    codec: PhantomData<C>,
}

impl<'a, C: Codec> WeightRows<'a, C> {
    /// Rows of dense weights [outs, ins].
    ///
    /// # Panics
    /// If the number of weights is not `outs * ins`.
    pub fn dense(floats: &FloatSlice<'a>, ins: usize, outs: usize) -> WeightRows<'a, C> {
        assert_eq!(floats.len(), outs * ins);
        let bytes = match *floats {
            FloatSlice::F32(all) => bytes(all),
            FloatSlice::F16(all) | FloatSlice::Bf16(all) => bytes(all),
        };
        WeightRows { bytes, scales: None, group_size: LANES, ins, outs, codec: PhantomData }
    }

    /// Rows of quantised weights [outs, ins].
    ///
    /// # Panics
    /// If the number of codes or scales is not that of `outs * ins` weights.
    pub fn quantized(w: &QuantizedView<'a>, ins: usize, outs: usize) -> WeightRows<'a, C> {
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
        WeightRows { bytes, scales, group_size, ins, outs, codec: PhantomData }
    }

    /// Weights of a row.
    pub fn len(&self) -> usize {
        self.ins
    }

    /// Weights of a row that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// Rows of the matrix.
    pub fn count(&self) -> usize {
        self.outs
    }

    /// Codes of row `row`.
    #[inline(always)]
    pub fn codes(&self, row: usize) -> &[u8] {
        let size = self.ins * C::BYTES / LANES;
        &self.bytes[row * size..][..size]
    }

    /// Bytes of the scales and of the biases of `rows` as floats, and of [`LANES`] more floats.
    #[inline(always)]
    pub fn scales<'r, S: Simd>(
        &self,
        simd: S,
        rows: Range<usize>,
        scratch: &'r mut Scratch,
    ) -> [&'r [u8]; 2] {
        if scratch.rows != rows {
            self.widen(simd, rows, scratch);
        }
        [bytes(&scratch.scales), bytes(&scratch.biases)]
    }

    /// Row `row`, with its scales in `scratch`.
    #[inline(always)]
    pub fn row<'r, S: Simd>(&'r self, simd: S, row: usize, scratch: &'r mut Scratch) -> Row<'r, C> {
        if C::SCALED && !scratch.rows.contains(&row) {
            self.widen(simd, row..self.outs.min(row + STRIP), scratch);
        }
        let Scratch { rows, scales, biases, bytes } = scratch;
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
        Row { bytes, scales, biases, shared, codec: PhantomData }
    }

    /// Converts the scales and biases of `rows` to floats in `scratch`.
    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, rows: Range<usize>, scratch: &mut Scratch) {
        let groups = self.ins / self.group_size;
        let own = rows.start * groups..rows.end * groups;
        let Scratch { scales, biases, .. } = scratch;
        for floats in [&mut *scales, &mut *biases] {
            floats.clear();
            floats.resize(own.len() + LANES, 0.0);
        }
        let [scales, biases] = [scales, biases].map(|floats| &mut floats[..own.len()]);
        match self.scales {
            None => {}
            Some(Scales::Affine(all, all_biases)) => {
                widen(simd, all.part(own.clone()), scales);
                widen(simd, all_biases.part(own), biases);
            }
            Some(Scales::Nvfp4(all)) => look_up(&E4M3, &all[own], scales),
            Some(Scales::Mxfp4(all) | Scales::Mxfp8(all)) => look_up(&E8M0, &all[own], scales),
        }
        scratch.rows = rows;
    }

    /// Decodes the rows from `first` on that fill `to`.
    pub fn decode<S: Simd>(&self, simd: S, first: usize, to: &mut [f32]) {
        simd.run(Decode { rows: self, first, to });
    }
}

impl<C: Codec> Row<'_, C> {
    /// [`LANES`] weights from index `block * LANES` on; zeros beyond the end of the row.
    #[inline(always)]
    pub fn block<S: Simd>(&self, simd: S, block: usize) -> S::Floats {
        let values = C::decode(simd, &self.bytes[block * C::BYTES..]);
        if !C::SCALED {
            return values;
        }
        let group = block >> self.shared;
        simd.mul_add(values, simd.splat(self.scales[group]), simd.splat(self.biases[group]))
    }
}

/// Kernel of [`WeightRows::decode`].
struct Decode<'a, C> {
    rows: &'a WeightRows<'a, C>,
    first: usize,
    to: &'a mut [f32],
}

impl<C: Codec> Kernel for Decode<'_, C> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut scratch = Scratch::default();
        for (n, to) in self.to.chunks_exact_mut(self.rows.ins).enumerate() {
            let row = self.rows.row(simd, self.first + n, &mut scratch);
            for (n, to) in to.chunks_mut(LANES).enumerate() {
                store(simd, row.block(simd, n), to);
            }
        }
    }
}

/// Writes as many lanes of `x` as `to` has elements, at most [`LANES`].
#[inline(always)]
fn store<S: Simd>(simd: S, x: S::Floats, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => simd.store(x, to),
        None => {
            let mut all = [0.0; LANES];
            simd.store(x, &mut all);
            to.copy_from_slice(&all[..to.len()]);
        }
    }
}

/// Converts floats to single precision.
#[inline(always)]
fn widen<S: Simd>(simd: S, from: FloatSlice, to: &mut [f32]) {
    match from {
        FloatSlice::F32(from) => to.copy_from_slice(from),
        FloatSlice::F16(from) => widen_as::<F16, S>(simd, from, to),
        FloatSlice::Bf16(from) => widen_as::<Bf16, S>(simd, from, to),
    }
}

/// Converts 16-bit floats in the format `C` to single precision.
#[inline(always)]
fn widen_as<C: Codec, S: Simd>(simd: S, from: &[u16], to: &mut [f32]) {
    let (blocks, rest) = from.as_chunks::<LANES>();
    let mut last = [0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for (from, to) in blocks.iter().chain([&last]).zip(to.chunks_mut(LANES)) {
        store(simd, C::decode(simd, bytes(from)), to);
    }
}

/// Looks up 8-bit codes in `table`.
#[inline(always)]
fn look_up(table: &[f32; 256], codes: &[u8], to: &mut [f32]) {
    for (code, to) in codes.iter().zip(to) {
        *to = table[usize::from(*code)];
    }
}

/// Bytes of a slice of numbers.
#[inline(always)]
fn bytes<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: these are plain numbers, which have no padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// Number types without padding.
trait Number {}
impl Number for f32 {}
impl Number for u16 {}
impl Number for u32 {}
