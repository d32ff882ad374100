//! Words and their times in segments, whose own times they correct. Source: `timing` of
//! openai-whisper.

use mlxk_processor::transcript::{Segment, Word};

use super::words::Timed;

/// Punctuation that belongs to the word after it.
const BEFORE: &str = "\"'“¿([{-";
/// Punctuation that belongs to the word before it.
const AFTER: &str = "\"'.。,，!！?？:：”)]}、";
/// Punctuation at the end of a sentence.
const ENDS: &str = ".。!！?？";
/// Largest median length of words that is counted with, in seconds.
const LONGEST_MEDIAN: f64 = 0.7;
/// Difference between a segment's time and that of its word from which on the segment's is right.
const APART: f64 = 0.5;

/// Gives the words `timed` of a window, whose first frame is at `offset` seconds, to the `segments` of
/// the window, each with its number of tokens without times. Speech before the window ended at
/// `spoken`.
pub fn attach(
    segments: &mut [Segment],
    counts: &[usize],
    mut timed: Vec<Timed>,
    offset: f64,
    mut spoken: f64,
) {
    let median = median(&timed);
    let longest = 2.0 * median;
    if median > 0.0 {
        shorten(&mut timed, longest);
    }
    let mut timed = punctuated(timed).into_iter();
    for (segment, &count) in segments.iter_mut().zip(counts) {
        let mut taken = 0;
        let mut words = Vec::new();
        while taken < count
            && let Some(word) = timed.next()
        {
            taken += word.tokens;
            if !word.text.is_empty() {
                let time = rounded(offset + word.start)..rounded(offset + word.end);
                words.push(Word { time, text: word.text, probability: word.probability });
            }
        }
        if let [first, rest @ ..] = words.as_mut_slice() {
            after_pause(first, rest.first_mut(), spoken, median);
            edges(segment, &mut words, median);
            spoken = segment.time.end;
        }
        segment.words = words;
    }
}

/// Median of the lengths of words, bounded; 0 if there are none.
fn median(timed: &[Timed]) -> f64 {
    let lengths = timed.iter().map(|word| word.end - word.start);
    let mut lengths: Vec<f64> = lengths.filter(|length| *length != 0.0).collect();
    lengths.sort_unstable_by(f64::total_cmp);
    let middle = lengths.len() / 2;
    let median = match lengths.len() {
        0 => 0.0,
        count if count % 2 == 1 => lengths[middle],
        _ => (lengths[middle - 1] + lengths[middle]) / 2.0,
    };
    median.min(LONGEST_MEDIAN)
}

/// Cuts words beside the end of a sentence that are longer than `longest`: the pause is there.
fn shorten(timed: &mut [Timed], longest: f64) {
    for at in 1..timed.len() {
        if timed[at].end - timed[at].start <= longest {
            continue;
        }
        if ENDS.contains(timed[at].text.as_str()) {
            timed[at].end = timed[at].start + longest;
        } else if ENDS.contains(timed[at - 1].text.as_str()) {
            timed[at].start = timed[at].end - longest;
        }
    }
}

/// Words with the punctuation around them, which had times of its own, and is left without text.
fn punctuated(mut timed: Vec<Timed>) -> Vec<Timed> {
    let join = |all: &mut [Timed], from: usize, to: usize| {
        let Timed { text, tokens, .. } = std::mem::take(&mut all[from]);
        let word = &mut all[to];
        word.tokens += tokens;
        word.text =
            if from < to { text + &word.text } else { std::mem::take(&mut word.text) + &text };
    };
    let mut following = timed.len().saturating_sub(1);
    for at in (0..following).rev() {
        let text = &timed[at].text;
        if text.starts_with(' ') && BEFORE.contains(text.trim()) {
            join(&mut timed, at, following);
        } else {
            following = at;
        }
    }
    let mut previous = 0;
    for at in 1..timed.len() {
        let text = &timed[at].text;
        if !timed[previous].text.ends_with(' ') && AFTER.contains(text.as_str()) {
            join(&mut timed, at, previous);
        } else {
            previous = at;
        }
    }
    timed
}

/// Shortens the first two words after a pause, which the attention makes begin within it.
fn after_pause(first: &mut Word, second: Option<&mut Word>, spoken: f64, median: f64) {
    let longest = 2.0 * median;
    let length = first.time.end - first.time.start;
    let both = second.as_ref().map(|second| second.time.end - first.time.start);
    let long = length > longest || both.is_some_and(|both| both > 2.0 * longest);
    if first.time.end - spoken <= 4.0 * median || !long {
        return;
    }
    if let Some(second) = second
        && second.time.end - second.time.start > longest
    {
        let border = (second.time.end / 2.0).max(second.time.end - longest);
        (first.time.end, second.time.start) = (border, border);
    }
    first.time.start = (first.time.end - longest).max(0.0);
}

/// Makes the times of a segment those of its first and last word, unless a word is far too long.
fn edges(segment: &mut Segment, words: &mut [Word], median: f64) {
    let time = &mut segment.time;
    if let Some(first) = words.first_mut() {
        if time.start < first.time.end && time.start - APART > first.time.start {
            first.time.start = time.start.min(first.time.end - median).max(0.0);
        } else {
            time.start = first.time.start;
        }
    }
    if let Some(last) = words.last_mut() {
        if time.end > last.time.start && time.end + APART < last.time.end {
            last.time.end = time.end.max(last.time.start + median);
        } else {
            time.end = last.time.end;
        }
    }
}

/// Seconds in hundredths.
fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
