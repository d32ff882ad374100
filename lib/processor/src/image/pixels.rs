//! Input of a vision tower for one picture.

use mlxk_core::{Error, Kind, Result};
use rayon::prelude::*;

use super::normalize::Normalizer;
use super::rgb::{Rgb, Size};

/// A picture as input of a vision tower, with the properties that the prompt needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// A matrix `[rows, columns]`, row after row.
    pub values: Vec<f32>,
    /// Rows of the matrix: one for each patch. Qwen-VL's patches go by blocks that are merged, those
    /// of other families from left to right and down, tile after tile.
    pub rows: usize,
    /// Columns of the matrix: the values of a patch. Qwen-VL's go by channel, frame, y and x; those
    /// of other families by y, x and channel, the order of MLX's convolution weights.
    pub columns: usize,
    /// Frames or tiles, then patches of each from top to bottom and from left to right.
    pub grid: [usize; 3],
    /// Tiles from top to bottom and from left to right; zeros if the picture is one piece. The whole
    /// picture is a tile beside them: the first in LLaVA-NeXT, the last in SmolVLM.
    pub tiles: [usize; 2],
    /// Rows and columns of the patches of all tiles side by side, without those that are padding; those
    /// of the grid if the picture is one piece.
    pub kept: [usize; 2],
    /// Image tokens in the prompt: rows that the tower and its projector give.
    pub tokens: usize,
    /// Size of the picture in the file, after its EXIF orientation.
    pub source: Size,
    /// Size to which the picture was resized.
    pub size: Size,
    /// SHA-256 of the picture and of the size it was resized to ([`Rgb::hash`]).
    pub hash: [u8; 32],
}

impl Pixels {
    /// The patches of the `tiles` of a picture that was resized to `size`: all tiles have one size,
    /// and what is left of a side after whole patches is left out, as by a convolution.
    ///
    /// Fails with [`Kind::InvalidModel`] if a tile is smaller than a patch.
    pub(super) fn cut(
        picture: &Rgb,
        size: Size,
        tiles: &[Rgb],
        patch: usize,
        normalizer: &Normalizer,
    ) -> Result<Pixels> {
        let tile = tiles.first().map_or(size, |tile| tile.size);
        let grid = [tiles.len(), tile.height / patch, tile.width / patch];
        let (each, columns) = (grid[1] * grid[2], 3 * patch * patch);
        let rows = tiles.len() * each;
        if rows == 0 {
            let message = "a picture is smaller than a patch";
            return Err(Error::new(Kind::InvalidModel, "image processor", message));
        }
        let mut values = vec![0.0; rows * columns];
        values.par_chunks_exact_mut(columns).enumerate().for_each(|(row, values)| {
            let (tile, row) = (&tiles[row / each], row % each);
            let (top, left) = (row / grid[2] * patch, row % grid[2] * patch);
            for (y, values) in values.chunks_exact_mut(3 * patch).enumerate() {
                let pixels = &tile.pixels[3 * ((top + y) * tile.size.width + left)..];
                for (i, (value, byte)) in values.iter_mut().zip(pixels).enumerate() {
                    *value = normalizer.value(i % 3, *byte);
                }
            }
        });
        Ok(Pixels {
            values,
            rows,
            columns,
            grid,
            tiles: [0, 0],
            kept: [grid[1], grid[2]],
            tokens: rows,
            source: picture.size,
            size,
            hash: picture.hash(size),
        })
    }
}

/// A family's rule from a picture to the rows of its tower.
pub trait Rule: Send + Sync {
    /// Resizes, normalises and cuts up a picture.
    ///
    /// Fails with `Kind::Validation` if the family cannot take a picture of this shape.
    fn apply(&self, picture: &Rgb) -> Result<Pixels>;

    /// Text that stands for a picture in a chat template's output; the image token itself if `None`.
    fn placeholder(&self) -> Option<&str> {
        None
    }

    /// Text of the token for a row of features, in models whose config.json does not state its id.
    fn token(&self) -> Option<&str> {
        None
    }

    /// Text of a picture in the prompt, in place of the placeholder, where `token` stands for each row
    /// of its features.
    fn text(&self, token: &str, pixels: &Pixels) -> String {
        token.repeat(pixels.tokens)
    }
}
