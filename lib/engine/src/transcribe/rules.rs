//! Rules of what Whisper may write next, applied to logits. Source: the filters of openai-whisper.

use super::vocabulary::Vocabulary;

/// Largest first time, in steps of 0.02 seconds.
const FIRST_TIME: u32 = 50;

/// Rules of a window.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Vocabulary of the model.
    pub vocabulary: &'a Vocabulary,
    /// True if times are written.
    pub timestamps: bool,
}

impl Rules<'_> {
    /// Excludes the tokens that cannot follow `written`, by a logit of minus infinity.
    pub fn apply(&self, logits: &mut [f32], written: &[u32]) {
        let vocabulary = self.vocabulary;
        let count = logits.len();
        let exclude = |logits: &mut [f32], tokens: std::ops::Range<u32>| {
            let range = (tokens.start as usize).min(count)..(tokens.end as usize).min(count);
            if !range.is_empty() {
                logits[range].fill(f32::NEG_INFINITY);
            }
        };
        let first = vocabulary.not_first.iter().filter(|_| written.is_empty());
        for &token in first.chain(&vocabulary.suppressed) {
            exclude(logits, token..token + 1);
        }
        let [time, end] = [vocabulary.time, vocabulary.end];
        if !self.timestamps {
            return;
        }
        exclude(logits, vocabulary.no_timestamps..vocabulary.no_timestamps + 1);
        let is_time =
            |back: usize| written.len().checked_sub(back).map(|at| vocabulary.is_time(written[at]));
        let last = is_time(1) == Some(true);
        let paired = is_time(2) != Some(false);
        if last {
            // Times come in pairs, except at the start and at the end.
            exclude(logits, if paired { time..count as u32 } else { 0..end });
        }
        if let Some(&before) = written.iter().rev().find(|&&token| vocabulary.is_time(token)) {
            // Times do not go back; the second of a pair may be the first again.
            exclude(logits, time..if last && !paired { before } else { before + 1 });
        }
        if written.is_empty() {
            exclude(logits, 0..time);
            exclude(logits, time + FIRST_TIME + 1..count as u32);
        }
        let (text, times) = logits.split_at(logits.len().min(time as usize));
        if log_sum(times) > largest(text) {
            exclude(logits, 0..time);
        }
    }
}

/// Logarithm of the sum of exponentials.
pub fn log_sum(logits: &[f32]) -> f32 {
    let most = largest(logits);
    if most == f32::NEG_INFINITY {
        return most;
    }
    most + logits.iter().map(|x| (x - most).exp()).sum::<f32>().ln()
}

fn largest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
