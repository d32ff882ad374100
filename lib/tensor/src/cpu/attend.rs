//! What a single query attends to: bound by reading keys and values, which are read once.
//!
//! These are loops and not closures, which would not be compiled for the vector unit.

use super::Level;
use super::exp::exp;
use super::simd::{LANES, Task, Unit};

/// How much a query gives to each of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// What products of queries and keys are multiplied by.
    pub scale: f32,
    /// What they never exceed: they become `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
}

/// Values [n, size of `out`] mixed by how alike their keys [n, size] are to a query [size]. The score
/// of a sink takes a share and gives nothing.
///
/// # Panics
/// If there are not as many keys as values, or their sizes are not those of the query and of `out`.
pub fn attend(
    query: &[f32],
    [keys, values]: [&[f32]; 2],
    shares: Shares,
    sink: Option<f32>,
    out: &mut [f32],
) {
    let (size, value_size) = (query.len(), out.len());
    assert!(keys.len().is_multiple_of(size));
    assert_eq!(keys.len() / size * value_size, values.len());
    Level::best().task(Query { query, keys, values, shares, sink, out });
}

/// Makes scores shares of one.
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

/// The sum of some numbers.
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

/// The sum of their squares.
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

struct Query<'a> {
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    shares: Shares,
    sink: Option<f32>,
    out: &'a mut [f32],
}

impl Task for Query<'_> {
    #[inline(always)]
    fn run<U: Unit>(self, unit: U) {
        let Query { query, keys, values, shares, sink, out } = self;
        let size = query.len();
        let mut scores = vec![0.0; keys.len() / size];
        for (score, key) in scores.iter_mut().zip(keys.chunks_exact(size)) {
            *score = dot(unit, query, key) * shares.scale;
        }
        if let Some(cap) = shares.softcap {
            for score in &mut scores {
                *score = cap * (*score / cap).tanh();
            }
        }
        softmax(&mut scores, sink);
        mix(unit, &scores, values, out);
    }
}

#[inline(always)]
fn dot<U: Unit>(unit: U, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = unit.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = unit.add_product(unit.load(a), unit.load(b), sum);
    }
    let mut rest = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += a * b;
    }
    unit.sum(sum) + rest
}

/// The sum of `rows`, each times its share; so many columns at a time that their sums stay in
/// registers.
#[inline(always)]
fn mix<U: Unit>(unit: U, shares: &[f32], rows: &[f32], out: &mut [f32]) {
    const COLUMNS: usize = 4 * LANES;
    let size = out.len();
    let mut first = 0;
    while first + COLUMNS <= size {
        let [mut a, mut b, mut c, mut d] = [unit.splat(0.0); 4];
        for (share, row) in shares.iter().zip(rows.chunks_exact(size)) {
            if let [w, x, y, z] = row[first..first + COLUMNS].as_chunks::<LANES>().0 {
                let share = unit.splat(*share);
                a = unit.add_product(share, unit.load(w), a);
                b = unit.add_product(share, unit.load(x), b);
                c = unit.add_product(share, unit.load(y), c);
                d = unit.add_product(share, unit.load(z), d);
            }
        }
        let columns = out[first..].as_chunks_mut::<LANES>().0;
        for (to, sum) in columns.iter_mut().zip([a, b, c, d]) {
            unit.store(sum, to);
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
