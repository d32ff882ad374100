//! Pictures: from the bytes of a file to what a vision tower takes.
//!
//! decode -> RGB -> the family's rule (resize, normalise, cut into patches) -> [`Pixels`]. The
//! reference is Pillow with mlx-vlm's and transformers' processors; PNG files come out equal.

mod decode;
mod normalize;
mod pixels;
mod qwen_vl;
mod resize;
mod rgb;
mod settings;

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

pub use decode::{MAX_PIXELS, decode};
pub use pixels::Pixels;
use pixels::Rule;
pub use resize::{Filter, resize};
pub use rgb::{Rgb, Size};
use settings::Settings;

/// A family of vision towers: the `model_type`s that have it, and its rule.
struct Family {
    models: &'static [&'static str],
    load: fn(&Settings) -> Result<Box<dyn Rule>>,
}

const FAMILIES: &[Family] = &[
    Family { models: &["qwen2_vl", "qwen2_5_vl"], load: qwen_vl::qwen2 },
    Family {
        models: &["qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"],
        load: qwen_vl::qwen3,
    },
];

/// What makes pictures into the input of one model's vision tower.
pub struct ImageProcessor(Box<dyn Rule>);

impl ImageProcessor {
    /// The processor of a model of type `model_type`, as its `preprocessor_config.json` and its
    /// `processor_config.json` (null if there is none) set it.
    ///
    /// Fails with [`Kind::CapabilityNotSupported`] if no rule is known for the type, and with
    /// [`Kind::InvalidModel`], naming the key, if a file makes no sense.
    pub fn new(model_type: &str, preprocessor: &Value, processor: &Value) -> Result<Self> {
        let family = FAMILIES.iter().find(|family| family.models.contains(&model_type));
        let family = family.ok_or_else(|| {
            Error::new(Kind::CapabilityNotSupported, model_type, "pictures are not supported")
        })?;
        (family.load)(&Settings::new(preprocessor, processor)?).map(ImageProcessor)
    }

    /// The picture in the bytes of a file, ready for the tower.
    ///
    /// Fails with [`Kind::Validation`] as [`decode`] does, or if the model cannot take a picture of
    /// this shape.
    pub fn process(&self, bytes: &[u8]) -> Result<Pixels> {
        self.0.apply(&decode(bytes)?)
    }
}
