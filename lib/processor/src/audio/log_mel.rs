//! Log-mel spectrogram: the logarithm of the power in mel bands, of overlapping windows of samples.
//!
//! frames -> window -> FFT -> power -> mel filters -> logarithm -> normalisation. References: the
//! `log_mel_spectrogram` of openai-whisper and the `AudioToMelSpectrogramPreprocessor` of NeMo.

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

use super::mel_filters::{Filter, MelScale, filters};

/// What a log-mel spectrogram is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct MelOptions {
    /// Sample rate, in Hz.
    pub rate: u32,
    /// Samples of a transform.
    pub n_fft: usize,
    /// Samples of the Hann window, in the middle of a transform.
    pub window: usize,
    /// Whether the window is periodic (its first sample would follow its last) or symmetric.
    pub periodic: bool,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// Number of mel bands.
    pub bands: usize,
    /// Lowest frequency of the bands, in Hz.
    pub f_min: f32,
    /// Highest frequency of the bands, in Hz.
    pub f_max: f32,
    /// Factor of the sample before, which is subtracted from each sample.
    pub preemphasis: Option<f32>,
    /// Mel scale.
    pub scale: MelScale,
    /// Whether all bands have the same area, rather than the same height.
    pub norm: bool,
    /// Logarithm.
    pub log: LogKind,
    /// Normalisation of a whole spectrogram.
    pub normalization: Normalization,
    /// What is before the first sample and after the last, so that frames are centred.
    pub ends: Ends,
    /// Zeros after the last sample.
    pub tail: usize,
    /// Whether the last frame is left out.
    pub drop_last: bool,
}

/// Logarithm of the power in a band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogKind {
    /// log10 of the power, which is 1e-10 at least.
    Whisper,
    /// Natural logarithm of the power plus a guard.
    Natural {
        /// The guard.
        guard: f32,
    },
}

/// What is done to a whole spectrogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Values are raised to 8 below the largest, then scaled: (x + 4) / 4.
    Whisper,
    /// Each band gets the mean 0 and the standard deviation 1, of n - 1 values.
    PerFeature,
}

/// Samples beyond the ends of the audio, for n_fft / 2 samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The audio mirrored at its first and its last sample.
    Reflect,
    /// Zeros.
    Zeros,
}

impl MelOptions {
    /// Whisper's spectrogram of `bands` bands (80, or 128 from large-v3 on), with 30 seconds of
    /// silence after the audio.
    pub fn whisper(bands: usize) -> MelOptions {
        MelOptions {
            rate: 16_000,
            n_fft: 400,
            window: 400,
            periodic: true,
            hop: 160,
            bands,
            f_min: 0.0,
            f_max: 8000.0,
            preemphasis: None,
            scale: MelScale::Slaney,
            norm: true,
            log: LogKind::Whisper,
            normalization: Normalization::Whisper,
            ends: Ends::Reflect,
            tail: 480_000,
            drop_last: true,
        }
    }

    /// NeMo's spectrogram of `bands` bands, as parakeet takes it.
    pub fn nemo(bands: usize) -> MelOptions {
        MelOptions {
            n_fft: 512,
            periodic: false,
            preemphasis: Some(0.97),
            log: LogKind::Natural { guard: 2f32.powi(-24) },
            normalization: Normalization::PerFeature,
            ends: Ends::Zeros,
            tail: 0,
            drop_last: false,
            ..MelOptions::whisper(bands)
        }
    }
}

/// A spectrogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mel {
    /// Number of frames.
    pub frames: usize,
    /// Number of bands.
    pub bands: usize,
    /// Values [frames, bands].
    pub values: Vec<f32>,
}

impl Mel {
    /// The largest value; -infinity if there is none.
    pub fn max(&self) -> f32 {
        self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Scales log10 values as Whisper takes them, `max` being the largest of the audio: values are
/// raised to `max` - 8, then (x + 4) / 4.
pub fn scale_whisper(values: &mut [f32], max: f32) {
    let least = max - 8.0;
    values.iter_mut().for_each(|value| *value = (value.max(least) + 4.0) / 4.0);
}

/// Maker of log-mel spectrograms; a clone shares its tables.
#[derive(Clone)]
pub struct LogMel(Arc<Tables>);

struct Tables {
    options: MelOptions,
    transform: Arc<dyn RealToComplex<f32>>,
    /// Hann window, in the middle of zeros [n_fft].
    window: Vec<f32>,
    filters: Vec<Filter>,
}

impl LogMel {
    /// A maker of what `options` says.
    pub fn new(options: &MelOptions) -> LogMel {
        let MelOptions { n_fft, window: length, .. } = *options;
        let range = (options.f_min, options.f_max);
        let filters =
            filters(options.scale, options.norm, options.bands, range, n_fft, options.rate);
        let mut window = vec![0.0; n_fft];
        let around = if options.periodic { length } else { length.saturating_sub(1).max(1) };
        let before = n_fft.saturating_sub(length) / 2;
        for (at, value) in window[before..].iter_mut().take(length).enumerate() {
            let angle = std::f64::consts::TAU * at as f64 / around as f64;
            *value = (0.5 - 0.5 * angle.cos()) as f32;
        }
        let transform = RealFftPlanner::new().plan_fft_forward(n_fft);
        LogMel(Arc::new(Tables { options: options.clone(), transform, window, filters }))
    }

    /// The normalised spectrogram of whole audio.
    pub fn whole(&self, samples: &[f32]) -> Mel {
        let mut stream = self.stream();
        let mut mel = stream.push(samples);
        let rest = stream.finish();
        mel.frames += rest.frames;
        mel.values.extend_from_slice(&rest.values);
        self.normalize(&mut mel);
        mel
    }

    /// A spectrogram that is made while samples come.
    pub fn stream(&self) -> MelStream {
        let MelOptions { n_fft, .. } = self.0.options;
        MelStream {
            tables: self.0.clone(),
            buffer: vec![0.0; n_fft / 2],
            next: 0,
            heard: 0,
            last: 0.0,
            scratch: Scratch {
                input: self.0.transform.make_input_vec(),
                spectrum: self.0.transform.make_output_vec(),
                transform: self.0.transform.make_scratch_vec(),
                power: vec![0.0; n_fft / 2 + 1],
            },
        }
    }

    /// Normalises a whole spectrogram of logarithms.
    pub fn normalize(&self, mel: &mut Mel) {
        match self.0.options.normalization {
            Normalization::None => {}
            Normalization::Whisper => {
                let max = mel.max();
                scale_whisper(&mut mel.values, max);
            }
            Normalization::PerFeature => per_feature(mel),
        }
    }
}

/// Gives each band the mean 0 and the standard deviation 1.
fn per_feature(mel: &mut Mel) {
    /// Added to a standard deviation, as by NeMo.
    const GUARD: f64 = 1e-5;
    if mel.frames == 0 {
        return;
    }
    let mut sums = vec![0f64; mel.bands];
    let mut squares = vec![0f64; mel.bands];
    for frame in mel.values.chunks_exact(mel.bands) {
        sums.iter_mut().zip(frame).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / mel.frames as f64).collect();
    for frame in mel.values.chunks_exact(mel.bands) {
        for ((square, mean), value) in squares.iter_mut().zip(&means).zip(frame) {
            *square += (f64::from(*value) - mean).powi(2);
        }
    }
    let others = mel.frames.saturating_sub(1).max(1) as f64;
    let factors: Vec<f64> =
        squares.iter().map(|square| 1.0 / ((square / others).sqrt() + GUARD)).collect();
    for frame in mel.values.chunks_exact_mut(mel.bands) {
        for ((value, mean), factor) in frame.iter_mut().zip(&means).zip(&factors) {
            *value = ((f64::from(*value) - mean) * factor) as f32;
        }
    }
}

/// A spectrogram that is made while samples come: logarithms, which are not normalised.
pub struct MelStream {
    tables: Arc<Tables>,
    /// Samples that frames still need, after those before the first sample.
    buffer: Vec<f32>,
    /// Start of the next frame in `buffer`.
    next: usize,
    /// Samples that came.
    heard: u64,
    /// The last sample that came, before preemphasis.
    last: f32,
    scratch: Scratch,
}

/// Memory of a transform.
struct Scratch {
    input: Vec<f32>,
    spectrum: Vec<Complex32>,
    transform: Vec<Complex32>,
    power: Vec<f32>,
}

impl MelStream {
    /// Takes samples; the frames that they complete.
    pub fn push(&mut self, samples: &[f32]) -> Mel {
        let half = self.tables.options.n_fft / 2;
        self.take(samples);
        // The first frame needs what is mirrored before it.
        if self.heard <= half as u64 {
            return self.empty();
        }
        self.frames(0)
    }

    /// The frames that are left at the end of the audio.
    pub fn finish(mut self) -> Mel {
        let MelOptions { n_fft, hop, tail, drop_last, .. } = self.tables.options;
        // Silence comes in parts, so that it does not have to fit into memory.
        let mut mel = self.empty();
        let mut left = tail;
        while left > 0 {
            let part = left.min(1 << 16);
            let more = self.push(&vec![0.0; part]);
            mel.frames += more.frames;
            mel.values.extend_from_slice(&more.values);
            left -= part;
        }
        if self.heard <= (n_fft / 2) as u64 {
            self.mirror_start();
        }
        self.mirror_end();
        // Of the frames at every hop from the first sample to the last, maybe without the last.
        let more = self.frames(if drop_last { hop } else { 0 });
        mel.frames += more.frames;
        mel.values.extend_from_slice(&more.values);
        mel
    }

    fn empty(&self) -> Mel {
        Mel { frames: 0, bands: self.tables.options.bands, values: Vec::new() }
    }

    /// Appends samples to the buffer.
    fn take(&mut self, samples: &[f32]) {
        let half = self.tables.options.n_fft / 2;
        match self.tables.options.preemphasis {
            None => self.buffer.extend_from_slice(samples),
            Some(factor) => {
                // Nothing is before the first sample.
                let mut last = if self.heard == 0 { 0.0 } else { self.last };
                self.buffer.extend(samples.iter().map(|sample| {
                    let value = sample - factor * last;
                    last = *sample;
                    value
                }));
            }
        }
        self.last = samples.last().copied().unwrap_or(self.last);
        let before = self.heard;
        self.heard += samples.len() as u64;
        if before <= half as u64 && self.heard > half as u64 {
            self.mirror_start();
        }
    }

    /// Writes what is before the first sample.
    fn mirror_start(&mut self) {
        let half = self.tables.options.n_fft / 2;
        if self.tables.options.ends == Ends::Reflect {
            let (before, samples) = self.buffer.split_at_mut(half);
            for (at, value) in before.iter_mut().rev().enumerate() {
                *value = mirrored(samples, at as i64 + 1);
            }
        }
    }

    /// Appends what is after the last sample.
    fn mirror_end(&mut self) {
        let half = self.tables.options.n_fft / 2;
        let after = match self.tables.options.ends {
            Ends::Zeros => vec![0.0; half],
            // The buffer holds more than half a transform of samples, or all of them.
            Ends::Reflect => {
                let count = (half as u64 + 1).min(self.heard) as usize;
                let samples = &self.buffer[self.buffer.len() - count..];
                (0..half).map(|at| mirrored(samples, (count + at) as i64)).collect()
            }
        };
        self.buffer.extend(after);
    }

    /// The frames in the buffer, `spare` samples of which are kept for later.
    fn frames(&mut self, spare: usize) -> Mel {
        let MelOptions { n_fft, hop, .. } = self.tables.options;
        let mut mel = self.empty();
        while self.next + n_fft + spare <= self.buffer.len() {
            frame(&self.tables, &self.buffer[self.next..][..n_fft], &mut self.scratch, &mut mel);
            self.next += hop;
        }
        // What the end may mirror is kept.
        let used = self.next.min(self.buffer.len().saturating_sub(n_fft));
        self.buffer.drain(..used);
        self.next -= used;
        mel
    }
}

/// The sample at `place` of samples that are mirrored at their first and their last.
fn mirrored(samples: &[f32], place: i64) -> f32 {
    let last = samples.len() as i64 - 1;
    if last <= 0 {
        return samples.first().copied().unwrap_or(0.0);
    }
    let place = place.rem_euclid(2 * last);
    samples[place.min(2 * last - place) as usize]
}

/// Appends the frame of n_fft `samples` to `mel`.
fn frame(tables: &Tables, samples: &[f32], scratch: &mut Scratch, mel: &mut Mel) {
    let Scratch { input, spectrum, transform, power } = scratch;
    mel.frames += 1;
    if samples.iter().all(|sample| *sample == 0.0) {
        // Silence has no spectrum.
        let silence = logarithm(tables.options.log, 0.0);
        mel.values.extend(std::iter::repeat_n(silence, mel.bands));
        return;
    }
    for ((value, sample), weight) in input.iter_mut().zip(samples).zip(&tables.window) {
        *value = sample * weight;
    }
    // The lengths are those that the transform itself gave, so that it cannot fail.
    let done = tables.transform.process_with_scratch(input, spectrum, transform);
    debug_assert!(done.is_ok());
    for (power, value) in power.iter_mut().zip(spectrum.iter()) {
        *power = value.norm_sqr();
    }
    mel.values.extend(tables.filters.iter().map(|filter| {
        let bins = power[filter.first.min(power.len())..].iter();
        logarithm(tables.options.log, bins.zip(&filter.weights).map(|(p, w)| p * w).sum())
    }));
}

fn logarithm(kind: LogKind, power: f32) -> f32 {
    match kind {
        LogKind::Whisper => power.max(1e-10).log10(),
        LogKind::Natural { guard } => (power + guard).ln(),
    }
}
