//! Preprocessing for `internvl_chat`: a picture is stretched to the grid of square tiles whose aspect
//! ratio is nearest and cut into these; the whole picture, resized to one tile, follows them.

use mlxk_core::Result;

use super::normalize::{Normalizer, Statistics};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

/// Statistics of the pictures of ImageNet.
const IMAGENET: Statistics = Statistics { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

struct InternVl {
    /// Side of a tile.
    tile: usize,
    patch: usize,
    /// Side of the square of patches that become one token.
    merge: usize,
    /// Fewest and most tiles of a picture.
    tiles: [usize; 2],
    /// True if the whole picture follows several tiles.
    thumbnail: bool,
    filter: Filter,
    normalizer: Normalizer,
}

/// The rule of `internvl_chat`.
pub fn internvl(settings: &Settings) -> Result<Box<dyn Rule>> {
    let (model, image) = (&settings.model, &settings.image);
    let tile = match model.whole("force_image_size", 1..=1 << 14)? {
        Some(side) => side,
        None => model.whole("vision_config.image_size", 1..=1 << 14)?.unwrap_or(448),
    };
    let split = model.flag("dynamic_image_size")?.unwrap_or(true);
    let most = model.whole("max_dynamic_patch", 1..=256)?.unwrap_or(12);
    let least = model.whole("min_dynamic_patch", 1..=256)?.unwrap_or(1);
    let ratio = model.number("downsample_ratio")?.unwrap_or(0.5);
    Ok(Box::new(InternVl {
        tile,
        patch: settings.patch_size(14)?,
        merge: (1.0 / ratio).round().clamp(1.0, 64.0) as usize,
        tiles: if split { [least.min(most), most] } else { [1, 1] },
        thumbnail: model.flag("use_thumbnail")?.unwrap_or(true),
        filter: image.filter(Filter::Bicubic)?,
        normalizer: Normalizer::new(image, IMAGENET)?,
    }))
}

impl Rule for InternVl {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let [across, down] = self.grid(picture.size);
        let square = Size { width: self.tile, height: self.tile };
        let size = Size { width: across * self.tile, height: down * self.tile };
        let mut tiles = resize(picture, size, self.filter)?.tiles(self.tile);
        if self.thumbnail && tiles.len() > 1 {
            tiles.push(resize(picture, square, self.filter)?);
        }
        let pixels = Pixels::cut(picture, size, &tiles, self.patch, &self.normalizer)?;
        let tokens = pixels.rows / (self.merge * self.merge);
        Ok(Pixels { tiles: [down, across], tokens, ..pixels })
    }

    fn placeholder(&self) -> Option<&str> {
        Some("<image>")
    }

    fn token(&self) -> Option<&str> {
        Some("<IMG_CONTEXT>")
    }

    fn text(&self, token: &str, pixels: &Pixels) -> String {
        format!("<img>{}</img>", token.repeat(pixels.tokens))
    }
}

impl InternVl {
    /// Tiles across and down whose aspect ratio is nearest to the picture's; among equals, the last
    /// that the picture fills by more than half.
    fn grid(&self, from: Size) -> [usize; 2] {
        let [least, most] = self.tiles;
        let all = (1..=most).flat_map(|across| (1..=most).map(move |down| [across, down]));
        let mut grids: Vec<[usize; 2]> =
            all.filter(|[across, down]| (least..=most).contains(&(across * down))).collect();
        grids.sort_by_key(|[across, down]| across * down);
        let of = from.width as f64 / from.height as f64;
        let area = (from.width * from.height) as f64;
        let (mut best, mut nearest) = ([1, 1], f64::INFINITY);
        for [across, down] in grids {
            let apart = (of - across as f64 / down as f64).abs();
            let half = 0.5 * (self.tile * self.tile * across * down) as f64;
            if apart < nearest || apart == nearest && area > half {
                (best, nearest) = ([across, down], apart);
            }
        }
        best
    }
}
