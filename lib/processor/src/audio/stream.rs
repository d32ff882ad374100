//! Audio as a model takes it: mono samples at one rate, block by block.

use mlxk_core::{Error, Result};

use super::decode::{Block, Track, time};
use super::error::failed;
use super::format::AudioFormat;
use super::input::{Input, Source};
use super::resample::Resampler;

/// Decoded audio: blocks of mono samples at one sample rate.
///
/// A block is short, so that memory does not depend on the length of the audio. After an error
/// nothing follows; what came before it is sound.
pub struct AudioStream {
    track: Track,
    rate: u32,
    resampler: Option<Resampler>,
    /// The error that ends the stream.
    error: Option<Error>,
    /// Whether the last block was given.
    over: bool,
}

impl AudioStream {
    /// The audio of `source` at `rate`, in Hz.
    ///
    /// Fails with [`mlxk_core::Kind::Validation`] if the bytes are not audio of a known kind, and
    /// with [`mlxk_core::Kind::Execution`] if they cannot be read. The index of an M4A that is at
    /// the end of a pipe is waited for, up to 256 MiB.
    pub fn open(source: Source, format: AudioFormat, rate: u32) -> Result<AudioStream> {
        let input = Input::new(source).map_err(failed)?;
        let track = match format {
            AudioFormat::Sniffed => Track::open(input)?,
            AudioFormat::Raw { sample, rate, channels } => {
                Track::raw(input, sample, rate, channels)?
            }
        };
        Ok(AudioStream { track, rate, resampler: None, error: None, over: false })
    }

    /// Seconds of audio, if the header says so. It may be wrong: nothing may be allocated by it.
    pub fn duration(&self) -> Option<f64> {
        self.track.duration()
    }

    /// A warning, in one line, about parts that could not be decoded so far; they are silent.
    pub fn damage(&self) -> Option<String> {
        let (count, first) = self.track.damage()?;
        Some(match count {
            1 => format!("a packet at {} is damaged: it is silent", time(first)),
            _ => format!("{count} packets from {} on are damaged: they are silent", time(first)),
        })
    }

    /// The samples of the next block, which may be none; none at all at the end.
    fn block(&mut self) -> Result<Option<Vec<f32>>> {
        let Some(Block { rate, samples }) = self.track.next()? else { return Ok(None) };
        if samples.is_empty() {
            return Ok(Some(samples));
        }
        let mut out = Vec::new();
        if self.resampler.as_ref().is_none_or(|resampler| resampler.from() != rate) {
            out = self.finish()?;
            self.resampler = Some(Resampler::new(rate, self.rate)?);
        }
        if let Some(resampler) = &mut self.resampler {
            out.extend(resampler.push(samples)?);
        }
        Ok(Some(out))
    }

    /// What the resampler holds back.
    fn finish(&mut self) -> Result<Vec<f32>> {
        self.resampler.take().map_or(Ok(Vec::new()), |mut resampler| resampler.finish())
    }
}

impl Iterator for AudioStream {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(error) = self.error.take() {
                self.over = true;
                return Some(Err(error));
            }
            if self.over {
                return None;
            }
            let samples = match self.block() {
                Ok(Some(samples)) => Ok(samples),
                Ok(None) => {
                    self.over = true;
                    self.finish()
                }
                // What was decoded before comes first.
                Err(error) => {
                    self.error = Some(error);
                    self.finish()
                }
            };
            match samples {
                Ok(samples) if samples.is_empty() => {}
                Ok(samples) => return Some(Ok(samples)),
                Err(error) => self.error = Some(error),
            }
        }
    }
}
