//! Frames of a log-mel spectrogram, of which only those from the current window on are held.

use mlxk_core::Result;
use mlxk_processor::audio::{LogMel, MelOptions, MelStream, scale_whisper};

/// Samples from one frame to the next.
const HOP: u64 = 160;

/// Blocks of samples, as they come.
pub type Blocks<'a> = &'a mut dyn Iterator<Item = Result<Vec<f32>>>;

/// Frames of audio that is read as far as it is needed.
pub struct Frames<'a> {
    blocks: Blocks<'a>,
    /// Maker of frames; `None` once the audio has ended.
    stream: Option<MelStream>,
    bands: usize,
    /// Logarithms [frames, bands] from frame `first` on.
    held: Vec<f32>,
    first: usize,
    /// Largest logarithm so far.
    most: f32,
    /// Samples so far.
    samples: u64,
}

impl<'a> Frames<'a> {
    /// Frames of `bands` bands of the samples of `blocks`.
    pub fn new(blocks: Blocks<'a>, bands: usize) -> Frames<'a> {
        let stream = LogMel::new(&MelOptions::whisper(bands)).stream();
        let most = f32::NEG_INFINITY;
        Frames { blocks, stream: Some(stream), bands, held: Vec::new(), first: 0, most, samples: 0 }
    }

    /// Seconds of audio so far.
    pub fn seconds(&self) -> f64 {
        self.samples as f64 / (HOP as f64 * 100.0)
    }

    /// Number of frames of the audio, as far as `end` if it has more. Frames before `start` are
    /// dropped.
    ///
    /// # Errors
    /// Those of the audio.
    pub fn read(&mut self, start: usize, end: usize) -> Result<usize> {
        self.forget(start);
        while self.first + self.held.len() / self.bands < end
            && let Some(stream) = &mut self.stream
        {
            let frames = match self.blocks.next() {
                Some(block) => {
                    let block = block?;
                    self.samples += block.len() as u64;
                    stream.push(&block)
                }
                None => self.stream.take().map(MelStream::finish).unwrap_or_default(),
            };
            self.most = self.most.max(frames.max());
            self.held.extend_from_slice(&frames.values);
            self.forget(start);
        }
        let whole = (self.samples / HOP) as usize;
        Ok(if self.stream.is_some() { end } else { end.min(whole) })
    }

    /// Window of `size` frames [size, bands] from `start` on: `count` frames of the audio, then zeros.
    pub fn window(&self, start: usize, count: usize, size: usize) -> Vec<f32> {
        let from = (start - self.first) * self.bands;
        let mut window = self.held[from..from + count.min(size) * self.bands].to_vec();
        scale_whisper(&mut window, self.most);
        window.resize(size * self.bands, 0.0);
        window
    }

    /// Drops the frames before `start`.
    fn forget(&mut self, start: usize) {
        let count = start.saturating_sub(self.first).min(self.held.len() / self.bands);
        self.held.drain(..count * self.bands);
        self.first += count;
    }
}
