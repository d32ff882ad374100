//! Division of what is written of a window into segments: at its times, and at pauses of the audio that
//! were left out.

use std::ops::Range;

use mlxk_processor::transcript::Segment;

use super::vocabulary::Vocabulary;
use super::words::Timed;

/// Frames of a second.
pub const FRAMES: f64 = 100.0;
/// Frames of a step of times.
const STEP: usize = 2;
/// Seconds of a step of times.
const STEP_SECONDS: f64 = 0.02;

/// Window of the audio, in frames.
pub struct Window {
    /// First frame.
    pub start: usize,
    /// Number of frames.
    pub count: usize,
}

/// Part of what is written between two times, which it includes.
pub struct Cut<'w> {
    /// Time in seconds.
    pub time: Range<f64>,
    /// Tokens.
    pub tokens: &'w [u32],
}

/// Cuts what is written at its times, and tells the frame at which the next window starts.
pub fn cuts<'w>(words: &Vocabulary, tokens: &'w [u32], window: &Window) -> (Vec<Cut<'w>>, usize) {
    let is_time = |at: usize| words.is_time(tokens[at]);
    let steps = |token: u32| (token - words.time) as usize;
    let start = window.start as f64 / FRAMES;
    let time = |token: u32| start + steps(token) as f64 * STEP_SECONDS;
    let end = window.start + window.count;
    let count = tokens.len();
    let pairs: Vec<usize> = (1..count).filter(|&at| is_time(at) && is_time(at - 1)).collect();
    let single = ends_once(words, tokens);
    let Some(&last) = pairs.last() else {
        // A time in the text other than the first moment is where the speech ends.
        let ended = tokens.iter().rev().find(|&&token| words.is_time(token));
        let length = match ended.filter(|&&token| token != words.time) {
            Some(&token) => steps(token) as f64 * STEP_SECONDS,
            None => window.count as f64 / FRAMES,
        };
        return (vec![Cut { time: start..start + length, tokens }], end);
    };
    let ends = pairs.iter().copied().chain(single.then_some(count));
    let mut from = 0;
    let cuts = ends.map(|to| {
        let tokens = &tokens[from..to];
        from = to;
        // A part may begin or end with text if the model broke its rules off.
        let edge = |token: Option<&u32>| token.filter(|&&token| words.is_time(token)).copied();
        let first = edge(tokens.first()).map_or(start, time);
        let last = edge(tokens.last()).map_or(first, time);
        Cut { time: first..last, tokens }
    });
    let cuts = cuts.collect();
    let next = match single {
        true => end,
        false => window.start + steps(tokens[last - 1]) * STEP,
    };
    (cuts, next)
}

/// Cuts segments at pauses that were left out, between the words before and after them. Words have
/// times from `start` on.
pub fn parted(
    words: &Vocabulary,
    segments: Vec<Segment>,
    timed: &[Timed],
    start: f64,
    borders: &dyn Fn(&Range<f64>) -> Vec<f64>,
) -> Vec<Segment> {
    let mut timed = timed.iter();
    let mut parted = Vec::new();
    for segment in segments {
        let mut pauses = borders(&segment.time).into_iter().peekable();
        let mut rest = segment.clone();
        rest.tokens.clear();
        // Tokens of the word that is being taken.
        let mut left = 0;
        for &token in &segment.tokens {
            if token < words.end {
                if left == 0
                    && let Some(word) = timed.next()
                {
                    left = word.tokens;
                    let middle = start + f64::midpoint(word.start, word.end);
                    while let Some(border) = pauses.next_if(|&border| border <= middle) {
                        let before = Segment {
                            time: rest.time.start..border,
                            tokens: std::mem::take(&mut rest.tokens),
                            ..segment.clone()
                        };
                        rest.time.start = border;
                        if before.tokens.iter().any(|&token| token < words.end) {
                            parted.push(before);
                        }
                    }
                }
                left = left.saturating_sub(1);
            }
            rest.tokens.push(token);
        }
        if let Some(border) = pauses.next() {
            // All words are before the pause.
            rest.time.end = border;
        }
        parted.push(rest);
    }
    for segment in &mut parted {
        segment.text = words.text(&segment.tokens);
    }
    parted
}

/// True if a text ends with a single time, after which nothing is heard in the window.
pub fn ends_once(words: &Vocabulary, tokens: &[u32]) -> bool {
    let is_time = |&token: &u32| words.is_time(token);
    matches!(tokens, [.., before, last] if is_time(last) && !is_time(before))
}
