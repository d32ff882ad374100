//! Preprocessing for Pixtral: `pixtral`, `mistral3`. The aspect ratio is kept, up to rounding to
//! whole patches.

use mlxk_core::Result;

use super::normalize::{CLIP, Normalizer};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

struct Pixtral {
    /// Maximum size of a picture.
    max: Size,
    patch: usize,
    /// Side of the square of patches that become one token.
    merge: usize,
    filter: Filter,
    normalizer: Normalizer,
    /// Token after a row of image tokens.
    row_end: String,
    /// Token after the last row.
    end: String,
}

/// The rule of `pixtral`.
pub fn pixtral(settings: &Settings) -> Result<Box<dyn Rule>> {
    rule(settings, 16, 1)
}

/// The rule of `mistral3`.
pub fn mistral3(settings: &Settings) -> Result<Box<dyn Rule>> {
    rule(settings, 14, 2)
}

fn rule(settings: &Settings, patch: usize, merge: usize) -> Result<Box<dyn Rule>> {
    const MERGE: &str = "spatial_merge_size";
    let image = &settings.image;
    let merged = match settings.model.whole(MERGE, 1..=64)? {
        Some(merge) => Some(merge),
        None => settings.processor.whole(MERGE, 1..=64)?,
    };
    let max = match image.size("size")? {
        Some(size) => size,
        None => {
            let side = image.side("size", "longest_edge")?.unwrap_or(1024);
            Size { width: side, height: side }
        }
    };
    Ok(Box::new(Pixtral {
        max,
        patch: settings.patch_size(patch)?,
        merge: merged.unwrap_or(merge),
        filter: image.filter(Filter::Bicubic)?,
        normalizer: Normalizer::new(image, CLIP)?,
        row_end: settings.processor.token("image_break_token", "[IMG_BREAK]"),
        end: settings.processor.token("image_end_token", "[IMG_END]"),
    }))
}

impl Rule for Pixtral {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let size = self.fit(picture.size);
        let resized = resize(picture, size, self.filter)?;
        let pixels = Pixels::cut(picture, size, &[resized], self.patch, &self.normalizer)?;
        Ok(Pixels { tokens: pixels.rows / (self.merge * self.merge), ..pixels })
    }

    fn text(&self, token: &str, pixels: &Pixels) -> String {
        let [_, rows, columns] = pixels.grid.map(|side| side / self.merge);
        let row = token.repeat(columns);
        vec![row; rows].join(&self.row_end) + &self.end
    }
}

impl Pixtral {
    /// The size reduced to the maximum if it is larger, then rounded up to whole tokens.
    fn fit(&self, from: Size) -> Size {
        let (width, height) = (from.width as f64, from.height as f64);
        let ratio = (height / self.max.height as f64).max(width / self.max.width as f64);
        let side = |length: f64| {
            let length = if ratio > 1.0 { (length / ratio).floor() } else { length };
            (length as usize).next_multiple_of(self.patch * self.merge)
        };
        Size { width: side(width), height: side(height) }
    }
}
