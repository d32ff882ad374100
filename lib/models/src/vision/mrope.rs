//! Positions of a prompt with images in time, height and width: M-RoPE (arXiv 2409.12191).

use mlxk_core::{Error, Kind, Result};

/// Positions of the tokens of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MropePositions {
    /// Position of each token in time, height and width.
    pub rows: Vec<[i32; 3]>,
    /// Offset of the tokens after the prompt: the position minus the index in the sequence, equal
    /// for all tokens and axes.
    pub delta: i32,
}

/// Positions of the prompt `ids`, in which runs of `image_token` stand for images of `grids`: the
/// frames, rows and columns of patches of each. A square of `merge` patches a side is one token.
///
/// Text positions are consecutive, equal in all axes. In an image that begins at position s, a
/// token is at s plus its frame, row and column; text after it continues from the largest of these.
///
/// # Errors
/// If the number of image tokens differs from that of the images.
pub fn positions(
    ids: &[u32],
    image_token: u32,
    grids: &[[i32; 3]],
    merge: i32,
) -> Result<MropePositions> {
    let mut rows = Vec::with_capacity(ids.len());
    let mut next = 0;
    let mut grids = grids.iter();
    while let Some(id) = ids.get(rows.len()) {
        if *id != image_token {
            rows.push([next; 3]);
            next += 1;
            continue;
        }
        let &[frames, height, width] = grids.next().ok_or_else(uneven)?;
        let (height, width) = (height / merge, width / merge);
        let first = rows.len();
        for frame in 0..frames {
            for row in 0..height {
                rows.extend((0..width).map(|column| [next + frame, next + row, next + column]));
            }
        }
        let tokens = ids.get(first..rows.len()).unwrap_or_default();
        if tokens.is_empty() || tokens.iter().any(|id| *id != image_token) {
            return Err(uneven());
        }
        next += frames.max(height).max(width);
    }
    match grids.next() {
        Some(_) => Err(uneven()),
        None => Ok(MropePositions { delta: next - rows.len() as i32, rows }),
    }
}

fn uneven() -> Error {
    Error::new(
        Kind::Validation,
        "image",
        "the image tokens of the prompt are not as many as its pictures need",
    )
}
