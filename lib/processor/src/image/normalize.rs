//! Bytes to the floats that a vision tower takes: rescaled, then normalised channel by channel.

use mlxk_core::Result;

use super::settings::Settings;

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

/// The statistics that take 0 to -1 and 255 to 1.
pub const HALF: Statistics = Statistics { mean: [0.5; 3], std: [0.5; 3] };

/// The float of every byte, for each channel.
pub struct Normalizer([[f32; 256]; 3]);

impl Normalizer {
    /// Reads `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean` and `image_std`;
    /// `statistics` are the family's.
    pub fn new(settings: &Settings, statistics: Statistics) -> Result<Self> {
        let factor = match settings.flag("do_rescale", true)? {
            true => settings.number("rescale_factor", 1.0 / 255.0)?,
            false => 1.0,
        };
        let (mean, std) = match settings.flag("do_normalize", true)? {
            true => (
                settings.channels("image_mean", statistics.mean)?,
                settings.divisors("image_std", statistics.std)?,
            ),
            false => ([0.0; 3], [1.0; 3]),
        };
        // Each step in f32, as numpy does it.
        let value = |channel: usize, byte: usize| {
            (byte as f32 * factor as f32 - mean[channel] as f32) / std[channel] as f32
        };
        let channel = |channel| std::array::from_fn(|byte| value(channel, byte));
        Ok(Normalizer(std::array::from_fn(channel)))
    }

    /// The float of a byte of a channel, which is 0, 1 or 2.
    pub fn value(&self, channel: usize, byte: u8) -> f32 {
        self.0[channel][usize::from(byte)]
    }
}
