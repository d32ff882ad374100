//! Preprocessing for `llava_next`: a picture is fitted into the best of a list of sizes and cut
//! into square tiles; the whole picture, resized to one tile, precedes them.

use mlxk_core::Result;

use super::fixed::class_tokens;
use super::normalize::{CLIP, Normalizer};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

struct LlavaNext {
    /// Sizes that pictures are fitted into.
    sizes: Vec<Size>,
    /// Side of a tile.
    tile: usize,
    patch: usize,
    /// Tokens added to the patches of the whole picture.
    more: usize,
    less: usize,
    filter: Filter,
    normalizer: Normalizer,
}

/// The rule of `llava_next`.
pub fn llava_next(settings: &Settings) -> Result<Box<dyn Rule>> {
    const SIZES: [(usize, usize); 5] =
        [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
    let image = &settings.image;
    let sizes = image.sizes("image_grid_pinpoints")?;
    let default = || SIZES.map(|(height, width)| Size { width, height }).to_vec();
    let tile = match image.side("crop_size", "height")? {
        Some(side) => side,
        None => image.side("size", "shortest_edge")?.unwrap_or(336),
    };
    let (more, less) = class_tokens(settings)?;
    Ok(Box::new(LlavaNext {
        sizes: sizes.unwrap_or_else(default),
        tile,
        patch: settings.patch_size(14)?,
        more,
        less,
        filter: image.filter(Filter::Bicubic)?,
        normalizer: Normalizer::new(image, CLIP)?,
    }))
}

impl Rule for LlavaNext {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let canvas = self.canvas(picture.size);
        let fitted = resize(picture, within(picture.size, canvas), self.filter)?;
        // Of an odd number of black lines, the greater half comes after the picture.
        let offset = |old: usize, new: usize| -(((new - old) / 2) as isize);
        let left = offset(fitted.size.width, canvas.width);
        let fitted = fitted.crop(left, offset(fitted.size.height, canvas.height), canvas);
        let square = Size { width: self.tile, height: self.tile };
        let mut tiles = vec![resize(picture, square, self.filter)?];
        tiles.extend(fitted.tiles(self.tile));
        let pixels = Pixels::cut(picture, canvas, &tiles, self.patch, &self.normalizer)?;
        let grid = [canvas.height / self.tile, canvas.width / self.tile];
        let base = (pixels.grid[1] * pixels.grid[2] + self.more).saturating_sub(self.less);
        let map = Size { width: grid[1] * pixels.grid[2], height: grid[0] * pixels.grid[1] };
        let map = unpadded(picture.size, map);
        // One more at the end of each row of the map, for a line break.
        let (kept, tokens) = ([map.height, map.width], base + (map.width + 1) * map.height);
        Ok(Pixels { tiles: grid, kept, tokens, ..pixels })
    }
}

impl LlavaNext {
    /// The size that keeps the most pixels of the picture; among equals, the least padded one.
    fn canvas(&self, from: Size) -> Size {
        let (width, height) = (from.width as f64, from.height as f64);
        let mut best = (0, usize::MAX, from);
        for &size in &self.sizes {
            let scale = (size.width as f64 / width).min(size.height as f64 / height);
            let scaled = (width * scale) as usize * (height * scale) as usize;
            let kept = scaled.min(from.width * from.height);
            let waste = size.width * size.height - kept;
            if kept > best.0 || kept == best.0 && waste < best.1 {
                best = (kept, waste, size);
            }
        }
        best.2
    }
}

/// The largest size with the picture's aspect ratio that fits into the canvas.
fn within(from: Size, canvas: Size) -> Size {
    let (width, height) = (from.width as f64, from.height as f64);
    let (across, down) = (canvas.width as f64 / width, canvas.height as f64 / height);
    if across < down {
        let height = ((height * across).ceil() as usize).min(canvas.height);
        Size { width: canvas.width, height }
    } else {
        let width = ((width * down).ceil() as usize).min(canvas.width);
        Size { width, height: canvas.height }
    }
}

/// The size of the patch map without the patches that are only padding.
fn unpadded(picture: Size, map: Size) -> Size {
    let (width, height) = (picture.width as f64, picture.height as f64);
    let (across, down) = (map.width as f64, map.height as f64);
    // Seven places, so that products which are whole but for rounding stay so.
    let whole = |length: f64| ((length * 1e7).round_ties_even() / 1e7) as usize;
    if width / height > across / down {
        let padding = (map.height - whole(height * (across / width)).min(map.height)) / 2;
        Size { height: map.height - 2 * padding, ..map }
    } else {
        let padding = (map.width - whole(width * (down / height)).min(map.width)) / 2;
        Size { width: map.width - 2 * padding, ..map }
    }
}
