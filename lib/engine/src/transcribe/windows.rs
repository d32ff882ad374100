//! Windows of a recording for networks that hear only so much at a time: cut in pauses.

use std::ops::{ControlFlow, Range};

use mlxk_core::Result;
use mlxk_processor::audio::{Vad, VadOptions};

use super::clips::{Listener, RATE};

/// Receiver of a window: the sample of the recording at which it begins, and its samples.
pub type Take<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Result<ControlFlow<()>>;

/// Listener that gives windows of speech, or of all sound.
pub struct Windows<'a> {
    take: Take<'a>,
    /// Samples of the longest window.
    longest: usize,
    /// Detector of voices; `None` if all sound is given.
    vad: Option<Vad>,
    detects: bool,
    /// Sample of the recording at which the clip begins.
    origin: usize,
    /// Sample of the clip at which `samples` begin.
    start: usize,
    /// Samples that are not given yet.
    samples: Vec<f32>,
    /// Speech that is not given yet, in samples of the clip; it is one window.
    speech: Option<Range<usize>>,
}

/// Seconds that are searched for the quietest place to cut at.
const SEARCHED: f64 = 5.0;
/// Seconds of a place.
const PLACE: f64 = 0.1;
/// Seconds of a pause that two parts of speech in a window may have between them.
const PAUSE: f64 = 2.0;

impl<'a> Windows<'a> {
    /// Windows of up to `longest` seconds; without parts that are no speech if `detects`.
    pub fn new(longest: f64, detects: bool, take: Take<'a>) -> Windows<'a> {
        Windows {
            take,
            longest: (longest * RATE as f64) as usize,
            vad: None,
            detects,
            origin: 0,
            start: 0,
            samples: Vec::new(),
            speech: None,
        }
    }

    /// Takes parts of speech, in seconds of the clip, and gives windows that are complete.
    fn speak(&mut self, parts: Vec<Range<f64>>) -> Result<ControlFlow<()>> {
        for part in parts {
            let sample = |seconds: f64| (seconds * RATE as f64).round() as usize;
            let part = sample(part.start)..sample(part.end);
            let near = sample(PAUSE);
            let longest = self.longest;
            match &mut self.speech {
                Some(speech)
                    if part.start <= speech.end + near && part.end <= speech.start + longest =>
                {
                    speech.end = part.end;
                }
                _ => {
                    if self.give_speech()?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.speech = Some(part);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gives the speech that waits.
    fn give_speech(&mut self) -> Result<ControlFlow<()>> {
        let Some(speech) = self.speech.take() else { return Ok(ControlFlow::Continue(())) };
        self.forget(speech.start);
        let end = speech.end.saturating_sub(self.start).min(self.samples.len());
        self.give(end)
    }

    /// Gives the first `count` samples, in windows that are short enough.
    fn give(&mut self, count: usize) -> Result<ControlFlow<()>> {
        let mut left = count;
        while left > 0 {
            let window = match left > self.longest {
                true => quietest(&self.samples[..self.longest]),
                false => left,
            };
            let flow = (self.take)(self.origin + self.start, &self.samples[..window])?;
            self.forget(self.start + window);
            left -= window;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Drops the samples before `sample` of the clip.
    fn forget(&mut self, sample: usize) {
        let count = sample.saturating_sub(self.start).min(self.samples.len());
        self.samples.drain(..count);
        self.start += count;
    }
}

impl Listener for Windows<'_> {
    fn begin(&mut self, sample: usize) {
        (self.origin, self.start, self.speech) = (sample, 0, None);
        self.samples.clear();
        let longest = self.longest as f64 / RATE as f64;
        let options = VadOptions { max_speech: longest, min_silence: 0.5, ..VadOptions::default() };
        self.vad = self.detects.then(|| Vad::new(&options));
    }

    fn hear(&mut self, samples: &[f32]) -> Result<ControlFlow<()>> {
        self.samples.extend_from_slice(samples);
        let Some(vad) = &mut self.vad else {
            while self.samples.len() > self.longest {
                let window = quietest(&self.samples[..self.longest]);
                let flow = self.give(window)?;
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            return Ok(ControlFlow::Continue(()));
        };
        let parts = vad.push(samples);
        let flow = self.speak(parts)?;
        if flow.is_break() {
            return Ok(flow);
        }
        // Speech is known when it ends, at the longest after the longest window.
        let heard = self.start + self.samples.len();
        let begun = heard.saturating_sub(self.longest + (2.0 * PAUSE) as usize * RATE);
        match &self.speech {
            Some(speech) if speech.end < begun => self.give_speech(),
            Some(_) => Ok(flow),
            None => {
                self.forget(begun);
                Ok(flow)
            }
        }
    }

    fn end(&mut self) -> Result<ControlFlow<()>> {
        let Some(vad) = self.vad.take() else { return self.give(self.samples.len()) };
        let flow = self.speak(vad.finish())?;
        if flow.is_break() { Ok(flow) } else { self.give_speech() }
    }
}

/// Number of samples up to the middle of the quietest place near the end of `samples`.
fn quietest(samples: &[f32]) -> usize {
    let [searched, place] = [SEARCHED, PLACE].map(|seconds| (seconds * RATE as f64) as usize);
    let first = samples.len().saturating_sub(searched);
    let energy = |place: &[f32]| place.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let energies = samples[first..].chunks_exact(place).map(energy);
    let quietest = energies.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    quietest.map_or(samples.len(), |(i, _)| first + i * place + place / 2)
}

#[cfg(test)]
mod tests {
    use super::super::clips::listen;
    use super::*;
    use mlxk_processor::transcript::TranscribeOptions;

    /// Windows, in samples, of a recording of seconds that are loud or not.
    fn windows(loud: &[bool], detects: bool) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut take = |start: usize, samples: &[f32]| {
            found.push(start..start + samples.len());
            Ok(ControlFlow::Continue(()))
        };
        let mut windows = Windows::new(10.0, detects, &mut take);
        let mut audio = loud.iter().map(|&loud| Ok(vec![if loud { 0.5 } else { 0.0 }; RATE]));
        listen(&mut audio, &TranscribeOptions::default(), &mut windows).unwrap();
        found
    }

    #[test]
    fn windows_cover_all_sound_and_are_cut_where_it_is_quiet() {
        let mut loud = [true; 25];
        loud[8] = false;
        let windows = windows(&loud, false);
        assert_eq!(windows[0], 0..8 * RATE + RATE / 20);
        assert!(windows.windows(2).all(|pair| pair[0].end == pair[1].start), "{windows:?}");
        assert!(windows.iter().all(|window| window.len() <= 10 * RATE), "{windows:?}");
        assert_eq!(windows.last().unwrap().end, 25 * RATE);
    }

    #[test]
    fn silence_is_not_kept() {
        let mut take = |_: usize, _: &[f32]| Ok(ControlFlow::Continue(()));
        let mut windows = Windows::new(10.0, true, &mut take);
        windows.begin(0);
        windows.speech = Some(0..RATE);
        for _ in 0..100 {
            assert!(windows.hear(&vec![0.0; RATE]).unwrap().is_continue());
        }
        assert!(windows.speech.is_none() && windows.samples.len() <= 15 * RATE);
    }

    #[test]
    fn silence_has_no_windows_if_voices_are_detected() {
        assert!(windows(&[false; 100], true).is_empty());
        let all = 0..3 * RATE;
        assert_eq!(windows(&[false; 3], false), std::slice::from_ref(&all));
    }
}
