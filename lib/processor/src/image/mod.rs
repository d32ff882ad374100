//! Image preprocessing: from the bytes of a picture file to the input of a vision tower.
//!
//! decode -> RGB -> the family's rule (resize, normalise, cut into patches) -> [`Pixels`]. The
//! reference is Pillow with mlx-vlm's and transformers' processors; PNG files come out equal.

mod decode;
mod fixed;
mod gemma4;
mod idefics3;
mod internvl;
mod llava_next;
mod normalize;
mod pixels;
mod pixtral;
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

/// The rule of a model, by its settings.
type Load = fn(&Settings) -> Result<Box<dyn Rule>>;

/// The rule of every `model_type`.
const FAMILIES: &[(&str, Load)] = &[
    ("gemma3", fixed::gemma3),
    ("gemma4", gemma4::gemma4),
    ("idefics3", idefics3::idefics3),
    ("internvl_chat", internvl::internvl),
    ("llava", fixed::llava),
    ("llava_next", llava_next::llava_next),
    ("mistral3", pixtral::mistral3),
    ("paligemma", fixed::paligemma),
    ("pixtral", pixtral::pixtral),
    ("qwen2_5_vl", qwen_vl::qwen2),
    ("qwen2_vl", qwen_vl::qwen2),
    ("qwen3_5", qwen_vl::qwen3),
    ("qwen3_5_moe", qwen_vl::qwen3),
    ("qwen3_vl", qwen_vl::qwen3),
    ("qwen3_vl_moe", qwen_vl::qwen3),
    ("smolvlm", idefics3::idefics3),
];

/// Image processor of one model: turns pictures into the input of its vision tower.
pub struct ImageProcessor(Box<dyn Rule>);

impl ImageProcessor {
    /// The processor that a model's `config.json`, `preprocessor_config.json` and
    /// `processor_config.json` describe; a file that is not there is null.
    ///
    /// Fails with [`Kind::CapabilityNotSupported`] if no rule is known for the `model_type`, and
    /// with [`Kind::InvalidModel`], naming the key, if a file is invalid.
    pub fn new(config: &Value, preprocessor: &Value, processor: &Value) -> Result<Self> {
        let settings = Settings::new(config, preprocessor, processor)?;
        let name = match settings.model.text("model_type").unwrap_or_default() {
            // Pixtral's first conversions go by the name of LLaVA.
            "llava" if settings.model.text("vision_config.model_type") == Some("pixtral") => {
                "pixtral"
            }
            name => name,
        };
        let family = FAMILIES.iter().find(|(family, _)| *family == name);
        let (_, load) = family.ok_or_else(|| {
            Error::new(Kind::CapabilityNotSupported, name, "pictures are not supported")
        })?;
        load(&settings).map(ImageProcessor)
    }

    /// The picture in the bytes of a file, ready for the tower.
    ///
    /// Fails with [`Kind::Validation`] as [`decode`] does, or if the model cannot take a picture of
    /// this shape.
    pub fn process(&self, bytes: &[u8]) -> Result<Pixels> {
        self.0.apply(&decode(bytes)?)
    }

    /// Text that stands for a picture in a chat template's output; the image token itself if `None`.
    pub fn placeholder(&self) -> Option<&str> {
        self.0.placeholder()
    }

    /// Text of the token for a row of features, in models whose config.json does not state its id.
    pub fn token(&self) -> Option<&str> {
        self.0.token()
    }

    /// Text of a picture in the prompt, in place of the placeholder, where `token` stands for each row
    /// of its features.
    pub fn text(&self, token: &str, pixels: &Pixels) -> String {
        self.0.text(token, pixels)
    }
}
