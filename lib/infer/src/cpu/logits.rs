//! Passes over the logits of a whole vocabulary, of which there may be 300,000.
//!
//! These are loops and not closures, which would not be compiled for the vector unit.

use super::Level;
use super::exp::exp;
use super::unit::{Task, Unit};

/// Logits that are looked at together: enough for a vector unit not to wait for itself.
const BLOCK: usize = 64;

/// The largest of the `logits` and its place, the first if there are several; `None` if all are -∞ or
/// no numbers.
pub fn best(logits: &[f32]) -> Option<(usize, f32)> {
    let mut most = f32::NEG_INFINITY;
    Level::best().task(Largest { logits, most: &mut most });
    let block = (0..logits.len()).step_by(BLOCK).find(|&first| {
        let end = logits.len().min(first + BLOCK);
        logits[first..end].iter().fold(false, |found, &x| found | (x == most))
    })?;
    let place = block + logits[block..].iter().position(|&x| x == most)?;
    (most > f32::NEG_INFINITY).then_some((place, most))
}

/// The sum of e to the power of `(logit - most) / temperature`, where none of the logits is above
/// `most`.
pub fn sum(logits: &[f32], most: f32, temperature: f32) -> f32 {
    let mut sum = 0.0;
    Level::best().task(Sum { logits, most, temperature, sum: &mut sum });
    sum
}

/// Those of the `logits` that are at least `least`, with their places.
pub fn at_least(logits: &[f32], least: f32) -> Vec<(usize, f32)> {
    let mut found = Vec::new();
    for (n, block) in logits.chunks(BLOCK).enumerate() {
        // Few blocks have one, and the others are passed over at once.
        if block.iter().fold(false, |any, &x| any | (x >= least)) {
            let all = block.iter().enumerate().map(|(place, &x)| (n * BLOCK + place, x));
            found.extend(all.filter(|&(_, x)| x >= least));
        }
    }
    found
}

/// A logit that is not above the largest but `count` - 1, and seldom far below: so many blocks have
/// one that is as large. `None` if there are too few blocks.
pub fn nearly(logits: &[f32], count: usize) -> Option<f32> {
    let last = count.checked_sub(1).filter(|&last| last < logits.len().div_ceil(BLOCK))?;
    let mut most: Vec<f32> = Vec::with_capacity(logits.len().div_ceil(BLOCK));
    for block in logits.chunks(BLOCK) {
        most.push(block.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most }));
    }
    Some(*most.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1)
}

/// Takes away the logits of all tokens but those whose bits are set in `allowed`.
pub fn bar(logits: &mut [f32], allowed: &[u32]) {
    Level::best().task(Bar { logits, allowed });
}

struct Largest<'a> {
    logits: &'a [f32],
    most: &'a mut f32,
}

impl Task for Largest<'_> {
    #[inline(always)]
    fn run<U: Unit>(self, _: U) {
        let (blocks, rest) = self.logits.as_chunks::<BLOCK>();
        let mut most = [f32::NEG_INFINITY; BLOCK];
        for block in blocks {
            for (most, &x) in most.iter_mut().zip(block) {
                *most = if x > *most { x } else { *most };
            }
        }
        *self.most = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    }
}

struct Sum<'a> {
    logits: &'a [f32],
    most: f32,
    temperature: f32,
    sum: &'a mut f32,
}

impl Task for Sum<'_> {
    #[inline(always)]
    fn run<U: Unit>(self, _: U) {
        let Sum { logits, most, temperature, sum } = self;
        let (blocks, rest) = logits.as_chunks::<BLOCK>();
        let mut sums = [0.0; BLOCK];
        for block in blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += exp((x - most) / temperature);
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += exp((x - most) / temperature);
        }
        *sum = sums.iter().sum();
    }
}

struct Bar<'a> {
    logits: &'a mut [f32],
    allowed: &'a [u32],
}

impl Task for Bar<'_> {
    #[inline(always)]
    fn run<U: Unit>(self, _: U) {
        let (blocks, rest) = self.logits.as_chunks_mut::<32>();
        for (n, block) in blocks.iter_mut().enumerate() {
            let word = self.allowed.get(n).copied().unwrap_or(0);
            for (bit, logit) in block.iter_mut().enumerate() {
                *logit = if word & (1 << bit) == 0 { f32::NEG_INFINITY } else { *logit };
            }
        }
        let word = self.allowed.get(blocks.len()).copied().unwrap_or(0);
        for (bit, logit) in rest.iter_mut().enumerate() {
            *logit = if word & (1 << bit) == 0 { f32::NEG_INFINITY } else { *logit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_find_what_a_look_at_each_finds() {
        let logits: Vec<f32> = (0..1000).map(|n| (n * 7919 % 1000) as f32 / 100.0).collect();
        for count in [1, 63, 64, 65, 200, 1000] {
            let some = &logits[..count];
            let most = some.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = some.iter().position(|&x| x == most).map(|place| (place, most));
            assert_eq!(best(some), first, "{count}");
            let exact: f64 = some.iter().map(|&x| (f64::from(x - most) / 0.7).exp()).sum();
            assert!((f64::from(sum(some, most, 0.7)) / exact - 1.0).abs() < 1e-5, "{count}");
            let above: Vec<(usize, f32)> =
                some.iter().copied().enumerate().filter(|&(_, x)| x >= 5.0).collect();
            assert_eq!(at_least(some, 5.0), above, "{count}");
            for wanted in [1, 2, 5, 16] {
                let Some(least) = nearly(some, wanted) else { continue };
                assert!(at_least(some, least).len() >= wanted, "{count} {wanted}");
            }
        }
        let allowed = |place: usize| place < 992 && place.is_multiple_of(3);
        let words: Vec<u32> = (0..31)
            .map(|n| {
                (0..32).filter(|bit| allowed(32 * n + bit)).fold(0, |word, bit| word | 1 << bit)
            })
            .collect();
        let mut barred = logits.clone();
        bar(&mut barred, &words);
        let left = |(place, x)| if allowed(place) { x } else { f32::NEG_INFINITY };
        let expected: Vec<f32> = logits.iter().copied().enumerate().map(left).collect();
        assert_eq!(barred, expected);
        assert_eq!((nearly(&logits, 0), nearly(&logits, 1)), (None, Some(9.99)));
        assert_eq!((nearly(&logits, 16).is_some(), nearly(&logits, 17)), (true, None));
        assert_eq!(best(&[2.0, f32::NAN, 3.0, 3.0]), Some((2, 3.0)));
        assert_eq!(
            (best(&[f32::NEG_INFINITY; 70]), best(&[f32::NAN]), best(&[])),
            (None, None, None)
        );
        assert_eq!(at_least(&[f32::NEG_INFINITY, f32::NAN], f32::NEG_INFINITY).len(), 1);
    }
}
