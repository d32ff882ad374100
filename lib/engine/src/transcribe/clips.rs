//! Parts of a recording that are heard.

use std::ops::{ControlFlow, Range};
use std::slice;

use mlxk_core::Result;
use mlxk_processor::transcript::TranscribeOptions;

/// Samples of a second.
pub const RATE: usize = 16_000;

/// Receiver of the samples of parts of a recording.
pub trait Listener {
    /// A part begins at this sample of the recording.
    fn begin(&mut self, sample: usize);

    /// The next samples of the part.
    ///
    /// # Errors
    /// If the samples cannot be heard.
    fn hear(&mut self, samples: &[f32]) -> Result<ControlFlow<()>>;

    /// The part ends.
    ///
    /// # Errors
    /// If the samples cannot be heard.
    fn end(&mut self) -> Result<ControlFlow<()>>;
}

/// Gives the parts of `audio` that `options` name, or all of it, to `listener`. Parts that touch or
/// overlap are one. Returns the number of samples of the recording; `None` if the listener breaks off.
///
/// # Errors
/// If the audio cannot be read, or the listener fails.
pub fn listen(
    audio: &mut dyn Iterator<Item = Result<Vec<f32>>>,
    options: &TranscribeOptions,
    listener: &mut dyn Listener,
) -> Result<Option<usize>> {
    let clips = merged(&options.clips);
    let mut next = clips.iter();
    let mut clip = next.next();
    let (mut at, mut within) = (0, false);
    for block in audio {
        let block = block?;
        let end = at + block.len();
        while let Some(Range { start, end: last }) = clip.cloned() {
            if start >= end {
                break;
            }
            if !within {
                within = true;
                listener.begin(start);
            }
            let heard = start.max(at) - at..last.min(end) - at;
            if !heard.is_empty() && listener.hear(&block[heard])?.is_break() {
                return Ok(None);
            }
            if last > end {
                break;
            }
            within = false;
            clip = next.next();
            if listener.end()?.is_break() {
                return Ok(None);
            }
        }
        at = end;
    }
    if within && listener.end()?.is_break() {
        return Ok(None);
    }
    Ok(Some(at))
}

/// Ranges of samples of clips in seconds, in order and apart; all samples if there are none.
fn merged(clips: &[Range<f64>]) -> Vec<Range<usize>> {
    let whole = 0.0..f64::INFINITY;
    let clips = if clips.is_empty() { slice::from_ref(&whole) } else { clips };
    // Beyond the largest number of samples, the conversion saturates.
    let sample = |seconds: f64| (seconds * RATE as f64).round() as usize;
    let mut all: Vec<Range<usize>> =
        clips.iter().map(|clip| sample(clip.start)..sample(clip.end)).collect();
    all.retain(|clip| !clip.is_empty());
    all.sort_by_key(|clip| clip.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for clip in all {
        match merged.last_mut() {
            Some(last) if clip.start <= last.end => last.end = last.end.max(clip.end),
            _ => merged.push(clip),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Vec<(usize, usize)>);

    impl Listener for Heard {
        fn begin(&mut self, sample: usize) {
            self.0.push((sample, 0));
        }

        fn hear(&mut self, samples: &[f32]) -> Result<ControlFlow<()>> {
            self.0.last_mut().unwrap().1 += samples.len();
            Ok(ControlFlow::Continue(()))
        }

        fn end(&mut self) -> Result<ControlFlow<()>> {
            Ok(ControlFlow::Continue(()))
        }
    }

    fn heard(clips: &[Range<f64>]) -> Vec<(usize, usize)> {
        let mut heard = Heard::default();
        let options = TranscribeOptions { clips: clips.to_vec(), ..TranscribeOptions::default() };
        // Ten seconds in blocks of 0.3.
        let sizes = (0..34).map(|i| if i < 33 { 4800 } else { 1600 });
        let mut blocks = sizes.map(|size| Ok(vec![0.0; size]));
        assert_eq!(listen(&mut blocks, &options, &mut heard).unwrap(), Some(160_000));
        heard.0
    }

    #[test]
    fn all_is_heard_without_clips() {
        assert_eq!(heard(&[]), [(0, 160_000)]);
    }

    #[test]
    fn clips_are_heard_in_order_and_once() {
        assert_eq!(heard(&[5.0..6.0, 1.0..2.0, 1.5..3.0]), [(16_000, 32_000), (80_000, 16_000)]);
        assert_eq!(heard(&[9.5..99.0, 20.0..21.0, 4.0..4.0]), [(152_000, 8000)]);
        assert_eq!(heard(&[0.0..0.3, 0.6..0.9]), [(0, 4800), (9600, 4800)]);
    }
}
