//! Preprocessing for towers with a fixed input size: `gemma3`, `paligemma` and `llava`.

use mlxk_core::{Error, Kind, Result};

use super::normalize::{CLIP, HALF, Normalizer, Statistics};
use super::pixels::{Pixels, Rule};
use super::resize::{Filter, resize};
use super::rgb::{Rgb, Size};
use super::settings::Settings;

/// The size to which a picture is resized.
enum To {
    /// A fixed size; the aspect ratio is not kept.
    Size(Size),
    /// A length of the shorter side, in pixels; the aspect ratio is kept.
    Shorter(usize),
}

struct Fixed {
    to: To,
    /// Size of the centre crop.
    crop: Option<Size>,
    patch: usize,
    filter: Filter,
    normalizer: Normalizer,
    tokens: Tokens,
    marks: Option<Marks>,
}

/// Tokens around the image tokens of a picture.
struct Marks {
    /// Token before them, by which the chat template stands for a picture.
    begin: String,
    end: String,
}

/// Number of image tokens of a picture.
enum Tokens {
    /// A fixed number.
    Given(usize),
    /// One for each patch, plus `more` for class tokens that are kept, minus `less` for one that is
    /// removed.
    Patches { more: usize, less: usize },
}

/// The rule of `gemma3`.
pub fn gemma3(settings: &Settings) -> Result<Box<dyn Rule>> {
    if settings.image.flag("do_pan_and_scan")?.unwrap_or(false) {
        let message = "do_pan_and_scan is not supported";
        return Err(Error::new(Kind::CapabilityNotSupported, "image processor", message));
    }
    let tokens = settings.processor.whole("image_seq_length", 1..=1 << 16)?.unwrap_or(256);
    let token = |key, default| settings.processor.token(key, default);
    let marks = Marks {
        begin: token("boi_token", "<start_of_image>"),
        end: token("eoi_token", "<end_of_image>"),
    };
    let fixed = rule(settings, 896, Filter::Bilinear, HALF, Tokens::Given(tokens))?;
    Ok(Box::new(Fixed { marks: Some(marks), ..fixed }))
}

/// The rule of `paligemma`.
pub fn paligemma(settings: &Settings) -> Result<Box<dyn Rule>> {
    let tokens = Tokens::Patches { more: 0, less: 0 };
    Ok(Box::new(rule(settings, 224, Filter::Bicubic, HALF, tokens)?))
}

/// The rule of `llava`, whose tower is CLIP's or SigLIP's.
pub fn llava(settings: &Settings) -> Result<Box<dyn Rule>> {
    let (more, less) = class_tokens(settings)?;
    let tokens = Tokens::Patches { more, less };
    Ok(Box::new(rule(settings, 336, Filter::Bicubic, CLIP, tokens)?))
}

/// Tokens of LLaVA besides the patches: the number that the tower adds, and 1 to remove if the
/// feature selection strategy is "default".
pub fn class_tokens(settings: &Settings) -> Result<(usize, usize)> {
    let clip = settings.model.text("vision_config.model_type") != Some("siglip_vision_model");
    let more = settings.processor.whole("num_additional_image_tokens", 0..=16)?;
    const STRATEGY: &str = "vision_feature_select_strategy";
    let strategy = settings.processor.text(STRATEGY).or_else(|| settings.model.text(STRATEGY));
    let less = usize::from(strategy.unwrap_or("default") == "default");
    Ok((more.unwrap_or(usize::from(clip)), less))
}

fn rule(
    settings: &Settings,
    side: usize,
    filter: Filter,
    statistics: Statistics,
    tokens: Tokens,
) -> Result<Fixed> {
    let image = &settings.image;
    let square = |side| Size { width: side, height: side };
    let to = match (image.size("size")?, image.side("size", "shortest_edge")?) {
        (Some(size), _) => To::Size(size),
        (None, Some(side)) => To::Shorter(side),
        (None, None) => To::Size(square(side)),
    };
    let shape = matches!(to, To::Shorter(_));
    let crop = match image.flag("do_center_crop")?.unwrap_or(shape) {
        true => match image.size("crop_size")? {
            Some(size) => Some(size),
            None => image.side("crop_size", "height")?.map(square).or(Some(square(side))),
        },
        false => None,
    };
    Ok(Fixed {
        to,
        crop,
        patch: settings.patch_size(14)?,
        filter: image.filter(filter)?,
        normalizer: Normalizer::new(image, statistics)?,
        tokens,
        marks: None,
    })
}

impl Rule for Fixed {
    fn apply(&self, picture: &Rgb) -> Result<Pixels> {
        let Size { width, height } = picture.size;
        let size = match self.to {
            To::Size(size) => size,
            To::Shorter(side) if width <= height => {
                Size { width: side, height: longer(side, height, width) }
            }
            To::Shorter(side) => Size { width: longer(side, width, height), height: side },
        };
        let mut resized = resize(picture, size, self.filter)?;
        if let Some(crop) = self.crop {
            resized = resized.centre(crop);
        }
        let pixels = Pixels::cut(picture, size, &[resized], self.patch, &self.normalizer)?;
        let tokens = match self.tokens {
            Tokens::Given(tokens) => tokens,
            Tokens::Patches { more, less } => (pixels.rows + more).saturating_sub(less),
        };
        Ok(Pixels { tokens, ..pixels })
    }

    fn placeholder(&self) -> Option<&str> {
        self.marks.as_ref().map(|marks| marks.begin.as_str())
    }

    fn text(&self, token: &str, pixels: &Pixels) -> String {
        let tokens = token.repeat(pixels.tokens);
        match &self.marks {
            Some(Marks { begin, end }) => format!("\n\n{begin}{tokens}{end}\n\n"),
            None => tokens,
        }
    }
}

/// Length of the longer side after the shorter one is resized to `side`.
fn longer(side: usize, long: usize, short: usize) -> usize {
    ((side * long) as f64 / short as f64) as usize
}
