//! The form of audio that comes in: a container, recognised by its content, or raw samples, which
//! the user has to describe.

use std::fmt;
use std::str::FromStr;

use mlxk_core::{Error, Result};
use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE,
    CODEC_ID_PCM_F64LE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S8, CODEC_ID_PCM_S16BE,
    CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE,
    CODEC_ID_PCM_S32LE, CODEC_ID_PCM_U8,
};

/// The sample rates that are read, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=768_000;

/// The most channels that are read.
const MAX_CHANNELS: u16 = 64;

/// The form of audio data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AudioFormat {
    /// A container, recognised by its content.
    #[default]
    Sniffed,
    /// Interleaved samples without a header.
    Raw {
        /// Form of a sample.
        sample: RawSample,
        /// Sample rate, in Hz.
        rate: u32,
        /// Number of channels.
        channels: u16,
    },
}

/// The form of a sample of raw audio, named as by FFmpeg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSample(usize);

/// Name, codec and bytes of each form of sample.
const SAMPLES: [(&str, AudioCodecId, usize); 14] = [
    ("s16le", CODEC_ID_PCM_S16LE, 2),
    ("s16be", CODEC_ID_PCM_S16BE, 2),
    ("s24le", CODEC_ID_PCM_S24LE, 3),
    ("s24be", CODEC_ID_PCM_S24BE, 3),
    ("s32le", CODEC_ID_PCM_S32LE, 4),
    ("s32be", CODEC_ID_PCM_S32BE, 4),
    ("f32le", CODEC_ID_PCM_F32LE, 4),
    ("f32be", CODEC_ID_PCM_F32BE, 4),
    ("f64le", CODEC_ID_PCM_F64LE, 8),
    ("f64be", CODEC_ID_PCM_F64BE, 8),
    ("u8", CODEC_ID_PCM_U8, 1),
    ("s8", CODEC_ID_PCM_S8, 1),
    ("mulaw", CODEC_ID_PCM_MULAW, 1),
    ("alaw", CODEC_ID_PCM_ALAW, 1),
];

impl RawSample {
    /// The codec that decodes the samples.
    pub(super) fn codec(self) -> AudioCodecId {
        SAMPLES[self.0].1
    }

    /// Size of a sample, in bytes.
    pub(super) fn bytes(self) -> usize {
        SAMPLES[self.0].2
    }
}

/// Fails if audio of `rate` Hz is not read.
pub(super) fn check_rate(rate: u32) -> Result<()> {
    if RATES.contains(&rate) {
        return Ok(());
    }
    let (low, high) = (RATES.start(), RATES.end());
    Err(Error::validation(format!("sample rate {rate} Hz is not between {low} and {high} Hz")))
}

impl FromStr for AudioFormat {
    type Err = Error;

    /// Reads `SAMPLE:RATE[:CHANNELS]`, such as `s16le:16000:1`; one channel if none are given.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |message: String| {
            Error::command(message).hint("an example is s16le:16000:1: samples, rate and channels")
        };
        let mut parts = text.split(':');
        let sample = parts.next().unwrap_or_default().parse()?;
        let rate = parts.next().and_then(|rate| rate.parse().ok());
        let rate = rate.ok_or_else(|| wrong(format!("'{text}' has no sample rate in Hz")))?;
        check_rate(rate).map_err(|error| wrong(error.message))?;
        let channels = parts.next().map_or(Some(1), |channels| channels.parse().ok());
        match (channels, parts.next()) {
            (Some(channels @ 1..=MAX_CHANNELS), None) => {
                Ok(AudioFormat::Raw { sample, rate, channels })
            }
            (_, Some(_)) => Err(wrong(format!("'{text}' has more than three parts"))),
            _ => Err(wrong(format!("'{text}' does not have 1 to {MAX_CHANNELS} channels"))),
        }
    }
}

impl FromStr for RawSample {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let at = SAMPLES.iter().position(|(name, ..)| *name == text);
        at.map(RawSample).ok_or_else(|| {
            let names = SAMPLES.map(|(name, ..)| name).join(", ");
            Error::command(format!("'{text}' is not a form of samples; known are {names}"))
        })
    }
}

impl fmt::Display for RawSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SAMPLES[self.0].0)
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AudioFormat::Sniffed => f.write_str("sniffed"),
            AudioFormat::Raw { sample, rate, channels } => {
                write!(f, "{sample}:{rate}:{channels}")
            }
        }
    }
}
