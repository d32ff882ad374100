//! Heads of Whisper's decoder whose attention to the audio follows the words.

use mlx_rs::Dtype;
use mlxk_core::Result;
use mlxk_tensor::mlx;

use crate::checkpoint::cursor::Cursor;

/// Layers of the encoder and of the decoder of a published size, tokens of its vocabulary, and the
/// layers and heads that OpenAI found for it.
type Row = (usize, usize, usize, &'static [[usize; 2]]);

#[rustfmt::skip] // a line for each
const ROWS: &[Row] = &[
    // tiny.en
    (4, 4, 51864, &[
        [1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4],
    ]),
    // tiny
    (4, 4, 51865, &[
        [2, 2], [3, 0], [3, 2], [3, 3], [3, 4], [3, 5],
    ]),
    // base.en
    (6, 6, 51864, &[
        [3, 3], [4, 7], [5, 1], [5, 5], [5, 7],
    ]),
    // base
    (6, 6, 51865, &[
        [3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6],
    ]),
    // small.en
    (12, 12, 51864, &[
        [6, 6], [7, 0], [7, 3], [7, 8], [8, 2], [8, 5], [8, 7], [9, 0], [9, 4], [9, 8], [9, 10],
        [10, 0], [10, 1], [10, 2], [10, 3], [10, 6], [10, 11], [11, 2], [11, 4],
    ]),
    // small
    (12, 12, 51865, &[
        [5, 3], [5, 9], [8, 0], [8, 4], [8, 7], [8, 8], [9, 0], [9, 7], [9, 9], [10, 5],
    ]),
    // medium.en
    (24, 24, 51864, &[
        [11, 4], [14, 1], [14, 12], [14, 14], [15, 4], [16, 0], [16, 4], [16, 9], [17, 12],
        [17, 14], [18, 7], [18, 10], [18, 15], [20, 0], [20, 3], [20, 9], [20, 14], [21, 12],
    ]),
    // medium
    (24, 24, 51865, &[
        [13, 15], [15, 4], [15, 15], [16, 1], [20, 0], [23, 4],
    ]),
    // large-v2
    (32, 32, 51865, &[
        [10, 12], [13, 17], [16, 11], [16, 12], [16, 13], [17, 15], [17, 16], [18, 4], [18, 11],
        [18, 19], [19, 11], [21, 2], [21, 3], [22, 3], [22, 9], [22, 12], [23, 5], [23, 7],
        [23, 13], [25, 5], [26, 1], [26, 12], [27, 15],
    ]),
    // large-v3
    (32, 32, 51866, &[
        [7, 0], [10, 17], [12, 18], [13, 12], [16, 1], [17, 14], [19, 11], [21, 4], [24, 1],
        [25, 6],
    ]),
    // large-v3-turbo
    (32, 4, 51866, &[
        [2, 4], [2, 11], [3, 3], [3, 6], [3, 11], [3, 14],
    ]),
];

/// Heads of a network of this size; of one that is not published, all heads of the upper half of the
/// decoder's layers.
pub fn of(encoder: usize, layers: usize, heads: usize, vocabulary: usize) -> Vec<[usize; 2]> {
    let row = ROWS.iter().find(|row| (row.0, row.1, row.2) == (encoder, layers, vocabulary));
    let within = |known: &&[[usize; 2]]| known.iter().all(|[_, head]| *head < heads);
    match row.map(|row| row.3).filter(within) {
        Some(known) => known.to_vec(),
        None => (layers / 2..layers).flat_map(|l| (0..heads).map(move |head| [l, head])).collect(),
    }
}

/// Heads that the checkpoint at `w` lists in a tensor [heads, 2], if it does.
pub fn stored(w: &mut Cursor) -> Result<Option<Vec<[usize; 2]>>> {
    const NAME: &str = "alignment_heads";
    if !w.has(NAME) {
        return Ok(None);
    }
    let tensor = w.take(NAME)?;
    let whole = [Dtype::Int64, Dtype::Int32, Dtype::Uint32];
    let count = tensor.shape.first().copied().unwrap_or_default();
    w.expect(NAME, &tensor, &whole, &[count, 2])?;
    let numbers = w.array(&tensor)?.as_type::<i32>().map_err(mlx::failed)?;
    mlx_rs::transforms::eval([&numbers]).map_err(mlx::failed)?;
    let numbers: &[i32] = numbers.try_as_slice().map_err(|e| w.invalid(NAME, e.to_string()))?;
    let pair = |pair: &[i32; 2]| pair.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    Ok(Some(numbers.as_chunks().0.iter().map(pair).collect()))
}
