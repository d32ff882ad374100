//! Preprocessing for Qwen-VL: `qwen2_vl`, `qwen2_5_vl`, `qwen3_vl`, `qwen3_vl_moe`, `qwen3_5`.
//!
//! A picture keeps its aspect ratio, up to rounding to whole blocks of merged patches, and its
//! number of pixels is scaled into a range.

use mlxk_core::{Error, Kind, Result};
use rayon::prelude::*;

use super::normalize::{CLIP, HALF, Normalizer, Statistics};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

/// Maximum ratio of the longer to the shorter side.
const MAX_RATIO: f64 = 200.0;

struct QwenVl {
    /// Side of a patch in pixels.
    patch: usize,
    /// Frames of a patch; a single picture is repeated for each.
    frames: usize,
    /// Side of the square of patches that become one token.
    merge: usize,
    min_pixels: usize,
    max_pixels: usize,
    filter: Filter,
    normalizer: Normalizer,
}

/// The rule of `qwen2_vl` and `qwen2_5_vl`.
pub fn qwen2(settings: &Settings) -> Result<Box<dyn Rule>> {
    Ok(Box::new(rule(settings, 14, CLIP)?))
}

/// The rule of `qwen3_vl`, `qwen3_vl_moe` and `qwen3_5`.
pub fn qwen3(settings: &Settings) -> Result<Box<dyn Rule>> {
    Ok(Box::new(rule(settings, 16, HALF)?))
}

fn rule(settings: &Settings, patch: usize, statistics: Statistics) -> Result<QwenVl> {
    let image = &settings.image;
    // The number of pixels is at these keys, despite their names; older files have plain ones.
    let pixels = |plain: &str, within: &str, default| {
        let found = match image.whole(plain, 1..=usize::MAX)? {
            Some(pixels) => Some(pixels),
            None => image.whole(within, 1..=usize::MAX)?,
        };
        Ok::<_, Error>(found.unwrap_or(default))
    };
    Ok(QwenVl {
        patch: settings.patch_size(patch)?,
        frames: image.whole("temporal_patch_size", 1..=16)?.unwrap_or(2),
        merge: image.whole("merge_size", 1..=64)?.unwrap_or(2),
        min_pixels: pixels("min_pixels", "size.shortest_edge", 56 * 56)?,
        max_pixels: pixels("max_pixels", "size.longest_edge", 28 * 28 * 1280)?,
        filter: image.filter(Filter::Bicubic)?,
        normalizer: Normalizer::new(image, statistics)?,
    })
}

impl Rule for QwenVl {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let size = self.fit(picture.size)?;
        let resized = resize(picture, size, self.filter)?;
        let grid = [1, size.height / self.patch, size.width / self.patch];
        let rows = grid[1] * grid[2];
        let columns = 3 * self.frames * self.patch * self.patch;
        let mut values = vec![0.0; rows * columns];
        values
            .par_chunks_exact_mut(columns)
            .enumerate()
            .for_each(|(row, values)| self.patch(&resized, row, values));
        Ok(Pixels {
            values,
            rows,
            columns,
            grid,
            tiles: [0, 0],
            kept: [grid[1], grid[2]],
            tokens: rows / (self.merge * self.merge),
            source: picture.size,
            size,
            hash: picture.hash(size),
        })
    }
}

impl QwenVl {
    /// The size of whole blocks nearest to `from` within the limits, with the arithmetic and the
    /// rounding (half to even) of the reference's `smart_resize`.
    fn fit(&self, from: Size) -> Result<Size> {
        let (width, height) = (from.width as f64, from.height as f64);
        if width.max(height) / width.min(height) > MAX_RATIO {
            let message = format!(
                "picture of {width} x {height} pixels is too narrow; one side may be {MAX_RATIO} \
                 times the other"
            );
            return Err(Error::new(Kind::Validation, "image", message));
        }
        let block = (self.patch * self.merge) as f64;
        let (min, max) = (self.min_pixels as f64, self.max_pixels as f64);
        let round = |side: f64| (side / block).round_ties_even() * block;
        let (mut w, mut h) = (round(width), round(height));
        if w * h > max {
            let beta = (height * width / max).sqrt();
            let shrink = |side: f64| block.max((side / beta / block).floor() * block);
            (w, h) = (shrink(width), shrink(height));
        } else if w * h < min {
            let beta = (min / (height * width)).sqrt();
            let grow = |side: f64| (side * beta / block).ceil() * block;
            (w, h) = (grow(width), grow(height));
        }
        Ok(Size { width: w as usize, height: h as usize })
    }

    /// Writes the values of the patch at `row`, ordered by channel, frame, y and x. Patches that
    /// are merged into one token are adjacent: blocks, and patches within a block, are in row-major
    /// order.
    fn patch(&self, picture: &Rgb, row: usize, values: &mut [f32]) {
        let (patch, merge) = (self.patch, self.merge);
        let across = picture.size.width / patch / merge;
        let (block, within) = (row / (merge * merge), row % (merge * merge));
        let top = (block / across * merge + within / merge) * patch;
        let left = (block % across * merge + within % merge) * patch;
        for (channel, values) in values.chunks_exact_mut(self.frames * patch * patch).enumerate() {
            let (first, others) = values.split_at_mut(patch * patch);
            for (y, line) in first.chunks_exact_mut(patch).enumerate() {
                let pixels = &picture.pixels[3 * ((top + y) * picture.size.width + left)..];
                for (value, pixel) in line.iter_mut().zip(pixels.chunks_exact(3)) {
                    *value = self.normalizer.value(channel, pixel[channel]);
                }
            }
            for frame in others.chunks_exact_mut(patch * patch) {
                frame.copy_from_slice(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use serde_json::{Value, json};

    use super::*;

    /// Sizes that `smart_resize` of transformers 5.24 gives with a factor of 28.
    #[test]
    fn sizes_are_those_of_the_reference() {
        for ((width, height), (min_pixels, max_pixels), expected) in [
            ((70, 98), (3136, 1003520), (56, 112)),
            ((42, 126), (3136, 1003520), (56, 112)),
            ((1, 1), (3136, 1003520), (56, 56)),
            ((200, 1), (3136, 1003520), (812, 28)),
            ((1481, 874), (3136, 262144), (644, 392)),
            ((4032, 3024), (3136, 12845056), (4032, 3024)),
            ((4000, 3000), (3136, 1003520), (1148, 840)),
            ((13, 2600), (3136, 1003520), (28, 812)),
            ((9, 1800), (3136, 3136), (28, 812)),
            ((100, 100), (1003520, 1003520), (1008, 1008)),
        ] {
            let settings = json!({"min_pixels": min_pixels, "max_pixels": max_pixels});
            let settings = Settings::new(&Value::Null, &settings, &Value::Null).unwrap();
            let size = rule(&settings, 14, CLIP).unwrap().fit(Size { width, height }).unwrap();
            assert_eq!((size.width, size.height), expected, "{width} x {height}");
        }
    }
}
