//! Audio without its pauses: the parts with speech, glued together, and where they were.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use mlxk_core::Result;
use mlxk_processor::audio::{Vad, VadOptions};

use super::frames::Blocks;

/// Samples of a second.
const RATE: f64 = 16_000.0;
/// Longest part that is waited for, in seconds; what follows it at once is glued to it.
const LONGEST: f64 = 30.0;
/// Silence, in seconds, that stays before the first part and behind the last one, as between parts.
const KEPT: f64 = 2.0;
/// Difference of times, in seconds, below which one part follows another without a pause.
const JOINED: f64 = 0.005;

/// Parts with speech, as far as they are known, and the length of the audio.
#[derive(Clone, Default)]
pub struct Clock(Rc<RefCell<Known>>);

#[derive(Default)]
struct Known {
    parts: Vec<Part>,
    /// Seconds of audio so far.
    heard: f64,
}

/// Part of the audio, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    /// Start in what is glued.
    glued: f64,
    /// Start in the audio.
    start: f64,
    length: f64,
}

impl Clock {
    /// Seconds of audio so far.
    pub fn heard(&self) -> f64 {
        self.0.borrow().heard
    }

    /// Times in what is glued at which a pause was left out.
    pub fn borders(&self, within: &Range<f64>) -> Vec<f64> {
        let known = self.0.borrow();
        let times = known.parts.iter().skip(1).map(|part| part.glued);
        times.filter(|&time| within.start < time && time < within.end).collect()
    }

    /// Time in the audio of a range of what is glued, which lies in one part, or is cut to the one that
    /// has its middle.
    pub fn original(&self, range: &Range<f64>) -> Range<f64> {
        let known = self.0.borrow();
        let middle = f64::midpoint(range.start, range.end);
        let after = known.parts.partition_point(|part| part.glued <= middle);
        let Some(part) = known.parts.get(after.saturating_sub(1)) else { return range.clone() };
        let at = |time: f64| part.start + (time - part.glued).clamp(0.0, part.length);
        at(range.start)..at(range.end)
    }

    /// Adds a part.
    fn add(&self, start: f64, length: f64) {
        let parts = &mut self.0.borrow_mut().parts;
        let glued = parts.last().map_or(0.0, |last| last.glued + last.length);
        match parts.last_mut() {
            Some(last) if (start - last.start - last.length).abs() < JOINED => {
                last.length += length;
            }
            _ => parts.push(Part { glued, start, length }),
        }
    }
}

/// Blocks of samples of speech alone.
pub struct Voices<'a> {
    blocks: Blocks<'a>,
    vad: Option<Vad>,
    clock: Clock,
    /// Ranges that are heard, in seconds; all if empty.
    clips: Vec<Range<f64>>,
    /// Samples from sample `first` on, of which parts are still to be found.
    held: Vec<f32>,
    first: u64,
    /// Samples that came.
    count: u64,
}

impl<'a> Voices<'a> {
    /// The speech in `blocks` at 16 kHz, within `clips` if there are any; `clock` learns where it was.
    pub fn new(blocks: Blocks<'a>, clips: &[Range<f64>], clock: Clock) -> Voices<'a> {
        let vad = Vad::new(&VadOptions { max_speech: LONGEST, ..VadOptions::default() });
        let clips = clips.to_vec();
        Voices { blocks, vad: Some(vad), clock, clips, held: Vec::new(), first: 0, count: 0 }
    }

    /// Samples of `parts`, without what lies outside of all clips.
    fn cut(&mut self, parts: Vec<Range<f64>>) -> Vec<f32> {
        let mut speech = Vec::new();
        for part in parts {
            let whole = [part.clone()];
            let clips = if self.clips.is_empty() { &whole[..] } else { &self.clips };
            for clip in clips {
                let start = (part.start.max(clip.start) * RATE).round() as u64;
                let end = ((part.end.min(clip.end) * RATE).round() as u64).min(self.count);
                let start = start.max(self.first);
                if start < end {
                    let range = (start - self.first) as usize..(end - self.first) as usize;
                    speech.extend_from_slice(&self.held[range]);
                    self.clock.add(start as f64 / RATE, (end - start) as f64 / RATE);
                }
            }
        }
        speech
    }
}

impl Iterator for Voices<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        loop {
            let vad = self.vad.as_mut()?;
            let mut parts = match self.blocks.next() {
                Some(Err(e)) => return Some(Err(e)),
                Some(Ok(block)) => {
                    self.count += block.len() as u64;
                    self.held.extend_from_slice(&block);
                    vad.push(&block)
                }
                None => {
                    let mut parts = self.vad.take().map(Vad::finish).unwrap_or_default();
                    let end = self.count as f64 / RATE;
                    if let Some(last) = parts.last_mut().filter(|last| last.end + KEPT > end) {
                        last.end = end;
                    }
                    parts
                }
            };
            self.clock.0.borrow_mut().heard = self.count as f64 / RATE;
            if let Some(first) =
                parts.first_mut().filter(|first| self.first == 0 && first.start < KEPT)
            {
                first.start = 0.0;
            }
            let speech = self.cut(parts);
            let settled = self.vad.as_ref().map(Vad::settled);
            let settled =
                settled.map(|time| if time < KEPT && self.first == 0 { 0.0 } else { time });
            let needed = settled.map_or(self.count, |time| (time * RATE) as u64);
            let dropped = needed.saturating_sub(self.first).min(self.held.len() as u64);
            self.held.drain(..dropped as usize);
            self.first += dropped;
            if !speech.is_empty() {
                return Some(Ok(speech));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_audio() {
        let clock = Clock::default();
        clock.add(5.0, 2.0);
        clock.add(7.0, 1.0);
        clock.add(60.0, 4.0);
        assert_eq!(clock.borders(&(0.0..7.0)), [3.0]);
        assert_eq!(clock.original(&(0.5..2.5)), 5.5..7.5);
        assert_eq!(clock.original(&(3.0..4.0)), 60.0..61.0);
        // More of it is in the second part.
        assert_eq!(clock.original(&(2.5..4.5)), 60.0..61.5);
    }
}
