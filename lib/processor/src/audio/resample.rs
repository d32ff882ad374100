//! Samples from one rate to another, block by block, by rubato's FFT: linear phase, without delay,
//! with a stop band below -100 dB.

use mlxk_core::{Error, Result};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

/// Blocks a second. The filter is as long as a block: its transition band is narrow.
const BLOCKS: u32 = 8;

/// Resampler of a stream of mono samples.
pub(super) struct Resampler {
    /// None if both rates are equal.
    fft: Option<Fft<f32>>,
    from: u64,
    to: u64,
    /// Samples that wait for a whole block.
    waiting: Vec<f32>,
    /// Samples at the start that are the filter's delay.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// A resampler from a rate to another, in Hz.
    ///
    /// Fails if rubato cannot be made for these rates, which none of the supported ones causes.
    pub fn new(from: u32, to: u32) -> Result<Self> {
        let fft = match from == to {
            true => None,
            false => Some(
                Fft::new_custom(
                    from as usize,
                    to as usize,
                    block(from, to),
                    1,
                    1,
                    WindowFunction::BlackmanHarris2,
                    FixedSync::Both,
                )
                .map_err(|error| Error::internal(error.to_string()))?,
            ),
        };
        Ok(Resampler {
            delay: fft.as_ref().map_or(0, |fft| fft.output_delay()),
            fft,
            from: from.into(),
            to: to.into(),
            waiting: Vec::new(),
            taken: 0,
            given: 0,
        })
    }

    /// The rate of what goes in, in Hz.
    pub fn from(&self) -> u32 {
        self.from as u32
    }

    /// Takes samples; those at the other rate that they complete.
    pub fn push(&mut self, samples: Vec<f32>) -> Result<Vec<f32>> {
        self.taken += samples.len() as u64;
        let Some(fft) = &mut self.fft else { return Ok(samples) };
        self.waiting.extend_from_slice(&samples);
        let mut out = Vec::new();
        let mut used = 0;
        let mut block = vec![0.0; fft.output_frames_max()];
        while self.waiting.len() - used >= fft.input_frames_next() {
            let input = &self.waiting[used..];
            let failed = |error: String| Error::internal(error);
            let frames = block.len();
            let from = InterleavedSlice::new(input, 1, input.len())
                .map_err(|error| failed(error.to_string()))?;
            let mut to = InterleavedSlice::new_mut(&mut block, 1, frames)
                .map_err(|error| failed(error.to_string()))?;
            let (read, written) = fft
                .process_into_buffer(&from, &mut to, None)
                .map_err(|error| failed(error.to_string()))?;
            used += read;
            let skipped = self.delay.min(written);
            self.delay -= skipped;
            out.extend_from_slice(&block[skipped..written]);
        }
        self.waiting.drain(..used);
        self.given += out.len() as u64;
        Ok(out)
    }

    /// What is left at the end: with what was given before, as long as what was taken.
    pub fn finish(&mut self) -> Result<Vec<f32>> {
        let Some(fft) = &self.fft else { return Ok(Vec::new()) };
        let block = fft.input_frames_max();
        let (taken, given) = (self.taken, self.given);
        let left = (taken * self.to).div_ceil(self.from).saturating_sub(given) as usize;
        let mut out = Vec::new();
        while out.len() < left {
            out.extend(self.push(vec![0.0; block])?);
        }
        out.truncate(left);
        Ok(out)
    }
}

/// Samples of a block: at least an eighth of a second, and an even number of the shortest blocks
/// that are whole at both rates, so that the delay, half a block, is whole at both rates as well.
fn block(from: u32, to: u32) -> usize {
    let (mut shortest, mut rest) = (from, to);
    while rest > 0 {
        (shortest, rest) = (rest, shortest % rest);
    }
    let shortest = 2 * (from / shortest) as usize;
    ((from / BLOCKS) as usize).next_multiple_of(shortest)
}
