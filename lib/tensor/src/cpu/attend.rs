//! Attention of a single query, which is bound by reading keys and values; each is read once.
//!
//! Kernels here are written as loops, because closures are not compiled for the SIMD instruction
//! set.

use super::Isa;
use super::exp::exp;
use super::simd::{Kernel, LANES, Simd};

/// Parameters that turn products of queries and keys into attention scores.
#[derive(Clone, Copy, Debug)]
pub struct ScoreParams {
    /// Factor of the products.
    pub scale: f32,
    /// Bound of the scores: `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
}

/// Attention of `query` `[size]` to keys [n, size] and values [n, value size], written to `out`
/// [value size]. `sink` is the score of an attention sink, which takes part in the softmax and has
/// no value.
///
/// # Panics
/// If the lengths of keys, values, query and `out` contradict each other.
pub fn attend(
    query: &[f32],
    [keys, values]: [&[f32]; 2],
    params: ScoreParams,
    sink: Option<f32>,
    out: &mut [f32],
) {
    let (size, value_size) = (query.len(), out.len());
    assert!(keys.len().is_multiple_of(size));
    assert_eq!(keys.len() / size * value_size, values.len());
    Isa::best().run(Query { query, keys, values, params, sink, out });
}

/// Softmax of `scores` in place; `sink` takes part in the sum only.
#[inline(always)]
pub fn softmax(scores: &mut [f32], sink: Option<f32>) {
    let most = sink.unwrap_or(f32::NEG_INFINITY).max(largest(scores));
    for score in &mut *scores {
        *score = exp(*score - most);
    }
    let sum = sum(scores) + sink.map_or(0.0, |sink| exp(sink - most));
    for score in scores {
        *score /= sum;
    }
}

/// Sum of the elements, in `LANES` partial sums.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Sum of the squares of the elements, in `LANES` partial sums.
#[inline(always)]
pub fn squares(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>()
}

/// Largest element; -∞ if there is none.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut all = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (most, x) in all.iter_mut().zip(block) {
            *most = most.max(*x);
        }
    }
    all.iter().chain(rest).fold(f32::NEG_INFINITY, |most, x| most.max(*x))
}

/// Kernel of [`attend`].
struct Query<'a> {
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    params: ScoreParams,
    sink: Option<f32>,
    out: &'a mut [f32],
}

impl Kernel for Query<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Query { query, keys, values, params, sink, out } = self;
        let size = query.len();
        let mut scores = vec![0.0; keys.len() / size];
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(size)) {
            *score = dot(simd, query, key) * params.scale;
        }
        if let Some(cap) = params.softcap {
            for score in &mut scores {
                *score = cap * (*score / cap).tanh();
            }
        }
        softmax(&mut scores, sink);
        mix(simd, &scores, values, out);
    }
}

/// Dot product of two slices of one length.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = simd.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = simd.mul_add(simd.load(a), simd.load(b), sum);
    }
    let mut rest = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += a * b;
    }
    simd.reduce_add(sum) + rest
}

/// Sum of `rows` [n, size] weighted by `shares` `[n]`, a block of columns at a time so that its sums
/// stay in registers.
#[inline(always)]
fn mix<S: Simd>(simd: S, shares: &[f32], rows: &[f32], out: &mut [f32]) {
    const COLUMNS: usize = 4 * LANES;
    let size = out.len();
    let mut first = 0;
    while first + COLUMNS <= size {
        let [mut a, mut b, mut c, mut d] = [simd.splat(0.0); 4];
        for (share, row) in shares.iter().zip(rows.chunks_exact(size)) {
            if let [w, x, y, z] = row[first..first + COLUMNS].as_chunks::<LANES>().0 {
                let share = simd.splat(*share);
                a = simd.mul_add(share, simd.load(w), a);
                b = simd.mul_add(share, simd.load(x), b);
                c = simd.mul_add(share, simd.load(y), c);
                d = simd.mul_add(share, simd.load(z), d);
            }
        }
        let columns = out[first..].as_chunks_mut::<LANES>().0;
        for (to, sum) in columns.iter_mut().zip([a, b, c, d]) {
            simd.store(sum, to);
        }
        first += COLUMNS;
    }
    let rest = &mut out[first..];
    rest.fill(0.0);
    for (share, row) in shares.iter().zip(rows.chunks_exact(size)) {
        for (sum, x) in rest.iter_mut().zip(&row[first..]) {
            *sum += share * x;
        }
    }
}
