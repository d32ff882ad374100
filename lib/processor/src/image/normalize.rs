//! Conversion of bytes to the floats of a vision tower: rescaling, then normalisation per channel.

use mlxk_core::Result;

use super::settings::{Section, invalid};

/// Mean and standard deviation of a channel, red, green and blue.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Means, of values between 0 and 1.
    pub mean: [f64; 3],
    /// Standard deviations.
    pub std: [f64; 3],
}

/// The statistics of the pictures that CLIP was trained on.
pub const CLIP: Statistics = Statistics {
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
};

/// The statistics that map 0 to -1 and 255 to 1.
pub const HALF: Statistics = Statistics { mean: [0.5; 3], std: [0.5; 3] };

/// The statistics that leave the values between 0 and 1.
pub const PLAIN: Statistics = Statistics { mean: [0.0; 3], std: [1.0; 3] };

/// The float of every byte, for each channel.
pub struct Normalizer([[f32; 256]; 3]);

impl Normalizer {
    /// Reads `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean` and `image_std`;
    /// `statistics` are the family's.
    pub fn new(settings: &Section, statistics: Statistics) -> Result<Self> {
        let factor = match settings.flag("do_rescale")?.unwrap_or(true) {
            true => settings.number("rescale_factor")?.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let statistics = match settings.flag("do_normalize")?.unwrap_or(true) {
            true => Statistics {
                mean: settings.channels("image_mean")?.unwrap_or(statistics.mean),
                std: settings.channels("image_std")?.unwrap_or(statistics.std),
            },
            false => PLAIN,
        };
        if statistics.std.iter().any(|&std| std as f32 == 0.0) {
            return Err(invalid("image_std", "is 0"));
        }
        // Each step in f32, as numpy does it.
        let value = |channel: usize, byte: usize| {
            let value = byte as f32 * factor as f32;
            (value - statistics.mean[channel] as f32) / statistics.std[channel] as f32
        };
        let channel = |channel| std::array::from_fn(|byte| value(channel, byte));
        Ok(Normalizer(std::array::from_fn(channel)))
    }

    /// The float of a byte of a channel, which is 0, 1 or 2.
    pub fn value(&self, channel: usize, byte: u8) -> f32 {
        self.0[channel][usize::from(byte)]
    }
}
