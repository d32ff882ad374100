//! Voice activity: the times of speech in audio of 16 kHz.
//!
//! earshot's network gives a probability for every 16 ms; the rules that make parts of them are
//! those of faster-whisper's `get_speech_timestamps`.

use std::ops::Range;

use earshot::Detector;

/// Samples of one step of the network.
const STEP: usize = 256;

/// Seconds of one step, at 16 kHz.
const SECONDS: f64 = STEP as f64 / 16_000.0;

/// The rules by which probabilities become parts of speech; times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct VadOptions {
    /// Probability from which on speech begins.
    pub threshold: f32,
    /// Probability below which it ends; 0.15 below `threshold` (0.01 at least) if none is given.
    pub neg_threshold: Option<f32>,
    /// Shorter parts are left out.
    pub min_speech: f64,
    /// Shorter pauses do not end a part.
    pub min_silence: f64,
    /// Time added before and after a part.
    pub pad: f64,
    /// Longer parts are divided.
    pub max_speech: f64,
}

impl Default for VadOptions {
    fn default() -> Self {
        VadOptions {
            threshold: 0.5,
            neg_threshold: None,
            min_speech: 0.0,
            min_silence: 2.0,
            pad: 0.4,
            max_speech: f64::INFINITY,
        }
    }
}

/// The parts of whole audio of 16 kHz that are speech, in seconds.
pub fn speech(samples: &[f32], options: &VadOptions) -> Vec<Range<f64>> {
    let mut vad = Vad::new(options);
    let mut parts = vad.push(samples);
    parts.extend(vad.finish());
    parts
}

/// Finds parts of speech while samples come.
pub struct Vad {
    options: VadOptions,
    detector: Box<Detector>,
    /// Samples that wait for a whole step.
    waiting: Vec<f32>,
    /// Steps that were judged.
    steps: u64,
    /// Start of the part that speech is in.
    start: Option<f64>,
    /// Start of the pause that may end it.
    pause: Option<f64>,
    /// The part before, which waits for its padding to be known.
    last: Option<Range<f64>>,
    /// Samples that came.
    heard: u64,
}

impl Vad {
    /// A detector at the start of audio.
    pub fn new(options: &VadOptions) -> Vad {
        Vad {
            options: options.clone(),
            detector: Detector::default_boxed(),
            waiting: Vec::new(),
            steps: 0,
            start: None,
            pause: None,
            last: None,
            heard: 0,
        }
    }

    /// Takes samples; the parts of speech that are complete, in order, which do not overlap.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Range<f64>> {
        self.heard += samples.len() as u64;
        self.waiting.extend_from_slice(samples);
        let waiting = std::mem::take(&mut self.waiting);
        let steps = waiting.chunks_exact(STEP);
        self.waiting = steps.remainder().to_vec();
        steps.filter_map(|step| self.step(step)).collect()
    }

    /// Time in seconds before which no part that is still to come begins.
    pub fn settled(&self) -> f64 {
        let now = self.steps as f64 * SECONDS;
        let open = self.start.unwrap_or(now) - self.options.pad;
        let last = self.last.as_ref().map_or(open, |part| part.start);
        last.min(open).max(0.0)
    }

    /// The parts that are left at the end of the audio.
    pub fn finish(mut self) -> Vec<Range<f64>> {
        let mut parts = Vec::new();
        if !self.waiting.is_empty() {
            let mut step = std::mem::take(&mut self.waiting);
            step.resize(STEP, 0.0);
            parts.extend(self.step(&step));
        }
        let end = self.heard as f64 / 16_000.0;
        if let Some(start) = self.start
            && end - start > self.options.min_speech
        {
            parts.extend(self.close(start..end));
        }
        parts.extend(
            self.last.take().map(|part| part.start..(part.end + self.options.pad).min(end)),
        );
        parts
    }

    /// Judges one step; a part that is complete now.
    fn step(&mut self, samples: &[f32]) -> Option<Range<f64>> {
        let clipped: Vec<f32> = samples.iter().map(|sample| sample.clamp(-1.0, 1.0)).collect();
        let probability = self.detector.predict_f32(&clipped);
        let now = self.steps as f64 * SECONDS;
        self.steps += 1;
        let VadOptions { threshold, min_silence, min_speech, max_speech, .. } = self.options;
        let below = self.options.neg_threshold.unwrap_or((threshold - 0.15).max(0.01));
        if probability >= threshold {
            self.pause = None;
            self.start.get_or_insert(now);
        }
        if self.start.is_none() {
            // Whatever comes is too far away to share the padding of the part before.
            let far = |part: &mut Range<f64>| now - part.end > 2.0 * self.options.pad;
            let last = self.last.take_if(far);
            return last.map(|part| part.start..part.end + self.options.pad);
        }
        let start = self.start?;
        if now - start > max_speech {
            // Divided at the pause, if there is one, or here.
            let end = self.pause.take().unwrap_or(now);
            self.start = (probability >= threshold).then_some(now);
            return self.close(start..end);
        }
        if probability >= below {
            return None;
        }
        let pause = *self.pause.get_or_insert(now);
        if now - pause < min_silence {
            return None;
        }
        (self.start, self.pause) = (None, None);
        if pause - start > min_speech { self.close(start..pause) } else { None }
    }

    /// Takes an unpadded part in; the part before, with its padding.
    fn close(&mut self, part: Range<f64>) -> Option<Range<f64>> {
        let pad = self.options.pad;
        let before = self.last.take();
        let gap = before.as_ref().map_or(f64::INFINITY, |before| part.start - before.end);
        // Padding of neighbours meets in the middle of a short pause.
        let between = pad.min(gap / 2.0);
        let start = (part.start - between).max(0.0);
        self.last = Some(start..part.end);
        before.map(|before| before.start..before.end + between)
    }
}
