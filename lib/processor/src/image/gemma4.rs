//! Preprocessing for Gemma 4: a picture keeps its aspect ratio, and is scaled up or down to the
//! largest size that a given number of tokens allows.

use mlxk_core::{Error, Kind, Result};

use super::normalize::{Normalizer, PLAIN};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

struct Gemma4 {
    patch: usize,
    /// Side of the square of patches that become one token.
    pool: usize,
    max_tokens: usize,
    filter: Filter,
    normalizer: Normalizer,
    /// Tokens before and after the image tokens of a picture.
    marks: [String; 2],
}

/// The rule of `gemma4`.
pub fn gemma4(settings: &Settings) -> Result<Box<dyn Rule>> {
    let image = &settings.image;
    Ok(Box::new(Gemma4 {
        patch: settings.patch_size(16)?,
        pool: image.whole("pooling_kernel_size", 1..=64)?.unwrap_or(3),
        max_tokens: image.whole("max_soft_tokens", 1..=1 << 16)?.unwrap_or(280),
        filter: image.filter(Filter::Bicubic)?,
        normalizer: Normalizer::new(image, PLAIN)?,
        marks: [
            settings.processor.token("boi_token", "<|image>"),
            settings.processor.token("eoi_token", "<image|>"),
        ],
    }))
}

impl Rule for Gemma4 {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let size = self.fit(picture.size)?;
        let resized = resize(picture, size, self.filter)?;
        let pixels = Pixels::cut(picture, size, &[resized], self.patch, &self.normalizer)?;
        Ok(Pixels { tokens: pixels.rows / (self.pool * self.pool), ..pixels })
    }

    fn text(&self, token: &str, pixels: &Pixels) -> String {
        let [begin, end] = &self.marks;
        format!("{begin}{}{end}", token.repeat(pixels.tokens))
    }
}

impl Gemma4 {
    /// The largest size with this aspect ratio, in whole tokens, within the limit of tokens.
    fn fit(&self, from: Size) -> Result<Size> {
        let side = self.patch * self.pool;
        let target = self.max_tokens * self.pool * self.pool * self.patch * self.patch;
        let (width, height) = (from.width as f64, from.height as f64);
        let factor = (target as f64 / (height * width)).sqrt();
        let whole = |length: f64| (factor * length / side as f64).floor() as usize * side;
        // A side too short for one token has one; the other is then as many as it is longer.
        let long = |ratio: usize| (ratio * side).min(self.max_tokens * side);
        match (whole(width), whole(height)) {
            (0, 0) => {
                let message = "max_soft_tokens leaves no token for a picture";
                Err(Error::new(Kind::InvalidModel, "image processor", message))
            }
            (_, 0) => Ok(Size { width: long(from.width / from.height), height: side }),
            (0, _) => Ok(Size { width: side, height: long(from.height / from.width) }),
            (width, height) => Ok(Size { width, height }),
        }
    }
}
