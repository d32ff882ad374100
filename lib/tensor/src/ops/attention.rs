//! Attention of the CPU backend. The matrix product is `gemm`'s, because MLX's takes most of the
//! time of a long prompt on a CPU.

use std::ops::Range;

use gemm::Parallelism;
use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::transforms::eval;
use rayon::prelude::*;

use super::params::{AttentionParams, DistanceBias, Mask};
use crate::array::elements;
use crate::cache::Kv;
use crate::cpu::attend::{self, ScoreParams};
use crate::cpu::threads;

/// Rows of queries of a matrix product.
const BLOCK: usize = 64;
/// Multiplications below which a second core costs more than it saves.
const ALONE: usize = 1 << 15;

/// Attention of queries [1, heads, length, size] to the cached keys and values, of which the last
/// `length` belong to the queries: [1, length, heads * value size].
pub fn attend_cached(queries: &Array, kv: &Kv, scores: &AttentionParams) -> Result<Array> {
    let [keys, values] = kv.buffers()?;
    let length = queries.dim(2) as usize;
    let seen: Vec<Range<usize>> = (0..length).map(|i| kv.seen_by(i, length)).collect();
    by_ranges(queries, [&keys, &values], kv.always(), &seen, scores)
}

/// Attention of queries [1, heads, length, size] to keys [1, kv heads, keys, size] and values
/// [1, kv heads, keys, value size] under `mask`: [1, length, heads * value size].
pub fn attend(
    queries: &Array,
    keys_values: [&Array; 2],
    mask: &Mask,
    scores: &AttentionParams,
) -> Result<Array> {
    let [length, keys] = [queries.dim(2) as usize, keys_values[0].dim(2) as usize];
    by_ranges(queries, keys_values, 0, &mask.ranges(length, keys), scores)
}

/// Attention in which query `i` attends to the first `always` keys and the range `seen[i]`.
fn by_ranges(
    queries: &Array,
    [keys, values]: [&Array; 2],
    always: usize,
    seen: &[Range<usize>],
    scores: &AttentionParams,
) -> Result<Array> {
    eval([keys, values])?;
    let dims = |array: &Array, axis| array.dim(axis) as usize;
    let [heads, length] = [1, 2].map(|axis| dims(queries, axis));
    let [kv_heads, capacity, size] = [1, 2, 3].map(|axis| dims(keys, axis));
    let value_size = dims(values, 3);
    let [keys, values] = [elements(keys)?, elements(values)?];
    let kv = KvView { keys, values, kv_heads, capacity, size, value_size };
    let params = ScoreParams { scale: scores.scale, softcap: scores.softcap };
    let sinks = scores.sinks.as_ref().map(elements).transpose()?;
    let bias = match &scores.bias {
        Some(bias) => Some((elements(&bias.by_distance)?, bias.farthest)),
        None => None,
    };
    let by_head = ByHead { sinks, bias };
    let queries = elements(queries)?;
    let y = match seen {
        [seen] if always == 0 && by_head.bias.is_none() => {
            single_query(queries, &kv, seen.clone(), params, sinks)
        }
        seen => query_blocks(queries, &kv, always, seen, params, &by_head),
    };
    Ok(Array::from_slice(&y, &[1, length as i32, (heads * value_size) as i32]))
}

/// What a head adds to its scores.
struct ByHead<'a> {
    /// Scores of the sinks, `[heads]`.
    sinks: Option<&'a [f32]>,
    /// Additions by distance [heads, 2 * farthest + 1], and the farthest distance.
    bias: Option<(&'a [f32], usize)>,
}

impl ByHead<'_> {
    /// Adds what head `head` adds to the scores of query `query` with the keys from `first` on.
    fn bias(&self, head: usize, query: usize, first: usize, scores: &mut [f32]) {
        let Some((all, farthest)) = self.bias else { return };
        let size = 2 * farthest + 1;
        let row = &all[head * size..][..size];
        for (key, score) in scores.iter_mut().enumerate() {
            *score += row[DistanceBias::column(farthest, query, first + key)];
        }
    }
}

/// Query of a block: the head and the place of the query, and the keys that it attends to.
struct Query {
    head: usize,
    place: usize,
    seen: Range<usize>,
}

/// Keys [kv heads, capacity, size] and values [kv heads, capacity, value size] in memory;
/// `capacity` is in tokens.
struct KvView<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    kv_heads: usize,
    capacity: usize,
    size: usize,
    value_size: usize,
}

impl KvView<'_> {
    /// Keys and values of a kv head in a range of tokens.
    fn part(&self, head: usize, range: Range<usize>) -> [&[f32]; 2] {
        let first = head * self.capacity;
        let rows = first + range.start..first + range.end;
        [
            &self.keys[rows.start * self.size..rows.end * self.size],
            &self.values[rows.start * self.value_size..rows.end * self.value_size],
        ]
    }
}

/// Attention of one query per head, [heads, size], to the range `seen`.
fn single_query(
    queries: &[f32],
    kv: &KvView,
    seen: Range<usize>,
    params: ScoreParams,
    sinks: Option<&[f32]>,
) -> Vec<f32> {
    let heads = queries.len() / kv.size;
    let mut y = vec![0.0; heads * kv.value_size];
    let work = |head: usize, y: &mut [f32]| {
        let query = &queries[head * kv.size..][..kv.size];
        let [keys, values] = kv.part(head * kv.kv_heads / heads, seen.clone());
        attend::attend(query, [keys, values], params, sinks.map(|sinks| sinks[head]), y);
    };
    if queries.len() * seen.len() < ALONE {
        y.chunks_exact_mut(kv.value_size).enumerate().for_each(|(head, y)| work(head, y));
    } else {
        threads::parallel_rows(&mut y, kv.value_size, &work);
    }
    y
}

/// Attention of queries [heads, length, size], each to the first `always` keys and its range in
/// `seen`.
fn query_blocks(
    queries: &[f32],
    kv: &KvView,
    always: usize,
    seen: &[Range<usize>],
    params: ScoreParams,
    by_head: &ByHead,
) -> Vec<f32> {
    let (length, size) = (seen.len(), kv.size);
    let heads = queries.len() / size / length;
    let shared = heads / kv.kv_heads * length;
    let blocks_of_head = shared.div_ceil(BLOCK);
    let work = |(n, queries): (usize, &[f32])| {
        let (head, first) = (n / blocks_of_head, n % blocks_of_head * BLOCK);
        let rows = first..first + queries.len() / size;
        let query = |row: usize| Query {
            head: head * heads / kv.kv_heads + row / length,
            place: row % length,
            seen: seen[row % length].clone(),
        };
        let rows: Vec<Query> = rows.map(query).collect();
        attend_block(
            queries,
            kv.part(head, 0..kv.capacity),
            always,
            &rows,
            [size, kv.value_size],
            params,
            by_head,
        )
    };
    let blocks: Vec<(usize, &[f32])> = queries
        .chunks(shared * size)
        .flat_map(|head| head.chunks(BLOCK * size))
        .enumerate()
        .collect();
    let mixed: Vec<Vec<f32>> = blocks.into_par_iter().map(work).collect();
    by_position(&mixed.concat(), heads, length, kv.value_size)
}

/// Transposes [heads, length, size] to [length, heads, size].
fn by_position(x: &[f32], heads: usize, length: usize, size: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for (row, x) in x.chunks_exact(size).enumerate() {
        let (head, position) = (row / length, row % length);
        y[(position * heads + head) * size..][..size].copy_from_slice(x);
    }
    y
}

/// Attention of a block of queries of one kv head. Sizes are those of a key and of a value.
fn attend_block(
    queries: &[f32],
    [keys, values]: [&[f32]; 2],
    always: usize,
    rows: &[Query],
    [size, value_size]: [usize; 2],
    params: ScoreParams,
    by_head: &ByHead,
) -> Vec<f32> {
    let first = match always {
        0 => rows.iter().map(|row| row.seen.start).min().unwrap_or(0),
        _ => 0,
    };
    let last = rows.iter().map(|row| row.seen.end).max().unwrap_or(0);
    let keys = &keys[first * size..last * size];
    let values = &values[first * value_size..last * value_size];
    let mut weights = vec![0.0; rows.len() * (last - first)];
    product(queries, keys, [1, size], params.scale, last - first, &mut weights);
    if let Some(cap) = params.softcap {
        weights.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
    for (scores, Query { head, place, seen }) in weights.chunks_exact_mut(last - first).zip(rows) {
        by_head.bias(*head, *place, first, scores);
        let sink = by_head.sinks.map(|sinks| sinks[*head]);
        softmax(scores, always, seen.start - first..seen.end - first, sink);
    }
    let mut mixed = vec![0.0; rows.len() * value_size];
    product(&weights, values, [value_size, 1], 1.0, value_size, &mut mixed);
    mixed
}

/// Softmax of a row of scores over the first `always` keys and those in `seen`; the others become
/// 0. `sink` takes part in the sum only.
fn softmax(row: &mut [f32], always: usize, seen: Range<usize>, sink: Option<f32>) {
    let start = if always == 0 { seen.start } else { 0 };
    row[..start].fill(0.0);
    row[always.min(seen.start)..seen.start].fill(if always == 0 { 0.0 } else { f32::NEG_INFINITY });
    row[seen.end..].fill(0.0);
    attend::softmax(&mut row[start..seen.end], sink);
}

/// Matrix product `out = factor * a b`, with `a` [rows, inner] and `out` [rows, columns]
/// contiguous, and `b` [inner, columns] with strides `steps`.
fn product(a: &[f32], b: &[f32], steps: [usize; 2], factor: f32, columns: usize, out: &mut [f32]) {
    let (rows, inner) = (out.len() / columns, b.len() / columns);
    assert_eq!((a.len(), out.len()), (rows * inner, rows * columns));
    assert_eq!(b.len(), (inner - 1) * steps[0] + (columns - 1) * steps[1] + 1);
    // SAFETY: the slices are as long as these shapes and steps need.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            1,
            inner as isize,
            b.as_ptr(),
            steps[1] as isize,
            steps[0] as isize,
            0.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;
    use crate::cache::Packing;
    use crate::ops::MLX;
    use crate::ops::Ops;

    fn some(shape: &[i32], seed: u64) -> Array {
        crate::mlx::noise(shape, seed)
    }

    #[test]
    fn attention_is_that_of_mlx() {
        let all = || Kv::new(None);
        let window = || Kv::new(Some(40));
        let packing = Packing { bits: 4, group_size: 32, start: 8 };
        let kinds = [
            (all(), None, None),
            (Kv::new(Some(1)), None, None),
            (window(), None, None),
            (all(), Some(0.7), None),
            (window(), Some(0.7), None),
            (window(), None, Some(some(&[6], 9))),
            (all().with_layout(|all| all.bounded(5, 4)), None, None),
            (all().with_layout(|all| all.bounded(44, 4)), None, Some(some(&[6], 9))),
            (all().with_layout(|all| all.packed(packing)), None, None),
        ];
        // Values are smaller than keys in every other kind.
        let value_size = |kind: usize| if kind.is_multiple_of(2) { 32 } else { 24 };
        for (kind, (mut kv, softcap, sinks)) in kinds.into_iter().enumerate() {
            let scores = AttentionParams { scale: 0.3, softcap, sinks, bias: None };
            for (seed, length) in [(1, 1), (2, 7), (3, 300), (4, 1), (5, 130)] {
                let [keys, values] = [(0, 32), (100, value_size(kind))]
                    .map(|(more, size)| some(&[1, 2, length, size], seed + more));
                kv.append(&keys, &values).unwrap();
                let queries = some(&[1, 6, length, 32], seed + 200);
                let ours = attend_cached(&queries, &kv, &scores).unwrap();
                let theirs = MLX.attend_cached(&queries, &kv, &scores).unwrap();
                assert_eq!(ours.shape(), theirs.shape());
                let apart = ours.subtract(&theirs).unwrap().abs().unwrap().max(None).unwrap();
                let apart = apart.item_exact::<f32>();
                assert!(apart < 1e-4, "{length} of kind {kind}: {apart} apart");
            }
        }
    }

    #[test]
    fn copies_of_a_memory_do_not_see_what_the_other_appends() {
        let part = |seed| some(&[1, 2, 3, 32], seed);
        let mut one = Kv::new(None);
        one.append_at_once(&part(1), &part(1)).unwrap();
        let mut other = one.clone();
        one.append_at_once(&part(2), &part(2)).unwrap();
        other.append_at_once(&part(3), &part(3)).unwrap();
        one.append_at_once(&part(4), &part(4)).unwrap();
        for (kv, parts) in [(one, &[1, 2, 4][..]), (other, &[1, 3])] {
            let parts: Vec<Array> = parts.iter().map(|&seed| part(seed)).collect();
            let expected = mlx_rs::ops::concatenate(&parts, 2).unwrap();
            for seen in kv.seen(1).unwrap() {
                assert_eq!(seen.shape(), expected.shape());
                let apart = seen.subtract(&expected).unwrap().abs().unwrap().max(None).unwrap();
                assert_eq!(apart.item_exact::<f32>(), 0.0);
            }
        }
    }
}
