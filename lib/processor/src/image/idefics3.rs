//! Preprocessing for `idefics3` and `smolvlm`: the longer side is resized to a fixed length, and
//! the picture is cut into square tiles; the whole picture, resized to one tile, follows them.

use mlxk_core::Result;

use super::normalize::{HALF, Normalizer};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

/// Maximum side of a picture, in pixels.
const MAX_SIDE: usize = 4096;

struct Idefics3 {
    /// Longer side of a picture before it is cut.
    longest: usize,
    /// Side of a tile.
    tile: usize,
    split: bool,
    patch: usize,
    /// Image tokens of a tile.
    tokens: usize,
    filter: Filter,
    normalizer: Normalizer,
    /// Token around the image tokens of tiles.
    around: String,
    /// Token before those of the whole picture.
    whole: String,
}

/// The rule of `idefics3` and `smolvlm`.
pub fn idefics3(settings: &Settings) -> Result<Box<dyn Rule>> {
    let image = &settings.image;
    Ok(Box::new(Idefics3 {
        longest: image.side("size", "longest_edge")?.unwrap_or(4 * 364),
        tile: image.side("max_image_size", "longest_edge")?.unwrap_or(364),
        split: image.flag("do_image_splitting")?.unwrap_or(true),
        patch: settings.patch_size(14)?,
        tokens: settings.processor.whole("image_seq_len", 1..=1 << 16)?.unwrap_or(169),
        filter: image.filter(Filter::Lanczos)?,
        normalizer: Normalizer::new(image, HALF)?,
        around: settings.processor.token("fake_image_token", "<fake_token_around_image>"),
        whole: settings.processor.token("global_image_token", "<global-img>"),
    }))
}

impl Rule for Idefics3 {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let mut whole = resize(picture, self.fit(picture.size), self.filter)?;
        let square = Size { width: self.tile, height: self.tile };
        let (mut tiles, mut grid) = (Vec::new(), [0, 0]);
        if self.split {
            whole = resize(&whole, self.whole_tiles(whole.size), self.filter)?;
            if whole.size != square {
                tiles = whole.tiles(self.tile);
                grid = [whole.size.height / self.tile, whole.size.width / self.tile];
            }
        }
        let size = if self.split { whole.size } else { square };
        tiles.push(resize(&whole, square, self.filter)?);
        let pixels = Pixels::cut(picture, size, &tiles, self.patch, &self.normalizer)?;
        Ok(Pixels { tiles: grid, tokens: tiles.len() * self.tokens, ..pixels })
    }

    fn text(&self, token: &str, pixels: &Pixels) -> String {
        let (around, tokens) = (&self.around, token.repeat(self.tokens));
        let [rows, columns] = pixels.tiles;
        let mut text = String::new();
        for row in 1..=rows {
            for column in 1..=columns {
                text += &format!("{around}<row_{row}_col_{column}>{tokens}");
            }
            text.push('\n');
        }
        if rows > 0 {
            text.push('\n');
        }
        text + &format!("{around}{}{tokens}{around}", self.whole)
    }
}

impl Idefics3 {
    /// The size whose longer side is `longest`, limited to [`MAX_SIDE`], and whose other side is
    /// rounded up to an even number before that limit.
    fn fit(&self, from: Size) -> Size {
        let ratio = |width: usize, height: usize| width as f64 / height as f64;
        let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
        let of = ratio(from.width, from.height);
        let long = self.longest;
        let (width, height) = match from.width >= from.height {
            true => (long, even(long as f64 / of)),
            false => (even(long as f64 * of), long),
        };
        let of = ratio(width, height);
        let (width, height) = match width >= height {
            true if width > MAX_SIDE => (MAX_SIDE, (MAX_SIDE as f64 / of) as usize),
            false if height > MAX_SIDE => ((MAX_SIDE as f64 * of) as usize, MAX_SIDE),
            _ => (width, height),
        };
        Size { width: width.max(1), height: height.max(1) }
    }

    /// The size rounded up to whole tiles: first the longer side, then the other, computed from it
    /// by the aspect ratio.
    fn whole_tiles(&self, from: Size) -> Size {
        let ratio = from.width as f64 / from.height as f64;
        let up = |side: usize| side.next_multiple_of(self.tile);
        if from.width >= from.height {
            let width = up(from.width);
            Size { width, height: up((width as f64 / ratio) as usize) }
        } else {
            let height = up(from.height);
            Size { width: up((height as f64 * ratio) as usize), height }
        }
    }
}
