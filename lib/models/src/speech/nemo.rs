//! What NeMo's config.json says of the spectrum, the vocabulary and the times of a network.

use mlxk_core::Result;
use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::config_error::{fields, invalid, unknown};

/// Spectrum, vocabulary and times of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Nemo {
    /// Spectrum that the network hears.
    pub spectrum: Spectrum,
    /// Pieces of text of all tokens; the space before a word is `▁`.
    pub vocabulary: Vec<String>,
    /// Seconds of a row of the encoder.
    pub row: f64,
}

/// Logarithms of mel bands, as NeMo's preprocessor makes them; each band has mean 0 and deviation 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spectrum {
    /// Number of bands.
    pub bands: usize,
    /// Samples of a transform.
    pub fft: usize,
    /// Samples of the window.
    pub window: usize,
    /// Samples from frame to frame.
    pub hop: usize,
    /// Share of the sample before that is subtracted from each.
    pub preemphasis: f32,
}

/// `preprocessor` of the configuration; fields are named as in the file.
#[derive(Deserialize)]
struct Preprocessor {
    sample_rate: u32,
    normalize: String,
    window_size: f64,
    window_stride: f64,
    #[serde(default = "hann")]
    window: String,
    features: usize,
    n_fft: Option<usize>,
    preemph: Option<f32>,
    #[serde(default = "yes")]
    log: bool,
    frame_splicing: Option<usize>,
}

fn hann() -> String {
    "hann".to_owned()
}

const fn yes() -> bool {
    true
}

/// Samples of a second.
const RATE: u32 = 16_000;

impl Nemo {
    /// Reads `config`, of a network with an encoder row for `stride` frames of `bands` bands.
    ///
    /// # Errors
    /// If a field is missing or out of range, and if the spectrum is of a kind that cannot be made.
    pub fn read(config: &Value, stride: usize, bands: usize) -> Result<Nemo> {
        let spectrum = Spectrum::read(config.get("preprocessor").unwrap_or(&Value::Null))?;
        if spectrum.bands != bands {
            let message = format!("{} mel bands, and an encoder of {bands}", spectrum.bands);
            return Err(invalid(message));
        }
        let row = (spectrum.hop * stride) as f64 / f64::from(RATE);
        Ok(Nemo { spectrum, vocabulary: vocabulary(config)?, row })
    }
}

impl Spectrum {
    fn read(config: &Value) -> Result<Spectrum> {
        let c: Preprocessor = fields(config)?;
        if c.sample_rate != RATE {
            return Err(unknown(format!("sound at {} Hz cannot be heard yet", c.sample_rate)));
        }
        if c.window != "hann" || !c.log || c.frame_splicing.is_some_and(|frames| frames != 1) {
            let message = "only logarithms of single frames under a Hann window can be heard";
            return Err(unknown(message.into()));
        }
        if c.normalize != "per_feature" {
            return Err(unknown(format!("spectra normalised by `{}` cannot run", c.normalize)));
        }
        let samples = |seconds: f64| (seconds * f64::from(RATE)).round() as usize;
        let (window, hop) = (samples(c.window_size), samples(c.window_stride));
        let fft = c.n_fft.unwrap_or_else(|| window.next_power_of_two());
        let sizes = [hop, window, c.features];
        if sizes.contains(&0) || window > fft || fft > 1 << 14 || hop > window || c.features > fft {
            return Err(invalid(format!("`preprocessor`: {fft} samples with a hop of {hop}")));
        }
        let preemphasis = c.preemph.unwrap_or(0.97);
        Ok(Spectrum { bands: c.features, fft, window, hop, preemphasis })
    }
}

/// Places of the list of pieces in the configuration.
const VOCABULARIES: [&str; 3] = ["/joint/vocabulary", "/decoder/vocabulary", "/labels"];

fn vocabulary(config: &Value) -> Result<Vec<String>> {
    let lists = VOCABULARIES.iter().filter_map(|place| config.pointer(place));
    let list = { lists }.find(|list| list.as_array().is_some_and(|list| !list.is_empty()));
    let list = list.ok_or_else(|| invalid("missing field `joint.vocabulary`".into()))?;
    fields(list)
}
