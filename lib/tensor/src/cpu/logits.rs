//! Passes over the logits of a vocabulary, which may have 300,000 tokens.
//!
//! Kernels here are written as loops, because closures are not compiled for the SIMD instruction
//! set.

use super::Isa;
use super::exp::exp;
use super::simd::{Kernel, LANES, Simd};

/// Logits of a block: enough to keep the pipelines of a vector unit busy.
const BLOCK: usize = 64;

/// Tokens whose bits share a word of a mask.
const WORD: usize = u32::BITS as usize;

/// Logit of a token that is not allowed.
const NEVER: f32 = f32::NEG_INFINITY;

/// Logits with a mask of allowed tokens and some changed values, without a copy. Construction notes
/// the largest logit of each block, so that searches skip blocks without likely tokens.
pub struct Logits<'a> {
    all: &'a [f32],
    /// Mask of the tokens that keep their logit, padded to whole blocks.
    plain: Vec<u32>,
    /// Changed logits of allowed tokens, with their tokens.
    changed: Vec<(usize, f32)>,
    /// Largest unchanged logit of each block.
    most: Vec<f32>,
}

impl Logits<'_> {
    /// Logits `all`, restricted to the tokens whose bits are set in `allowed` (all tokens if
    /// `None`), and replaced by `changed` for some tokens.
    pub fn new<'a>(
        all: &'a [f32],
        allowed: Option<&[u32]>,
        mut changed: Vec<(usize, f32)>,
    ) -> Logits<'a> {
        let words = all.len().next_multiple_of(BLOCK) / WORD;
        let mut plain = allowed.map_or_else(|| vec![u32::MAX; words], <[u32]>::to_vec);
        plain.resize(words, 0);
        changed.retain(|&(place, _)| {
            let (word, bit) = (&mut plain[place / WORD], 1 << (place % WORD));
            let may = *word & bit != 0;
            *word &= !bit;
            may
        });
        let most = Vec::with_capacity(all.len().div_ceil(BLOCK));
        let mut logits = Logits { all, plain, changed, most };
        Isa::best().run(Largest(&mut logits));
        logits
    }

    /// Tokens of the vocabulary, allowed or not.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Token with the largest logit, the first of several, and its logit; `None` if all are -∞ or
    /// NaN.
    pub fn best(&self) -> Option<(usize, f32)> {
        let changed = self.changed.iter().map(|(_, x)| x);
        let most = self.most.iter().chain(changed).copied().fold(NEVER, f32::max);
        self.at_least(most).first().copied().filter(|_| most > NEVER)
    }

    /// Sum of `exp(logit - most)`; no logit may be above `most`.
    pub fn sum(&self, most: f32) -> f32 {
        let mut sum = self.changed.iter().map(|(_, x)| exp(x - most)).sum();
        Isa::best().run(Sum { logits: self, most, sum: &mut sum });
        sum
    }

    /// Tokens with a logit of at least `least`, in ascending order, and their logits.
    pub fn at_least(&self, least: f32) -> Vec<(usize, f32)> {
        let enough = |&(_, x): &(usize, f32)| x >= least;
        let mut found: Vec<(usize, f32)> = self.changed.iter().copied().filter(enough).collect();
        for (n, _) in self.most.iter().enumerate().filter(|(_, most)| **most >= least) {
            let block = (n * BLOCK..).zip(self.all[n * BLOCK..].iter().copied()).take(BLOCK);
            let plain = |place: usize| self.plain[place / WORD] >> (place % WORD) & 1 == 1;
            found.extend(block.filter(|logit| enough(logit) && plain(logit.0)));
        }
        found.sort_by_key(|&(place, _)| place);
        found
    }

    /// Lower bound of the `count` largest logits that is seldom far below them, because at least
    /// `count` blocks have one as large; `None` if there are fewer blocks.
    pub fn nearly(&self, count: usize) -> Option<f32> {
        let last = count.checked_sub(1).filter(|&last| last < self.most.len())?;
        let mut most = self.most.clone();
        Some(*most.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1)
    }

    /// Logits of block `n`, -∞ where a token is not allowed or has a changed logit.
    #[inline(always)]
    fn block(&self, n: usize) -> [f32; BLOCK] {
        let rest = &self.all[n * BLOCK..];
        let mut block = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut last = [NEVER; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            last
        });
        let words = &self.plain[n * BLOCK / WORD..][..BLOCK / WORD];
        for (word, logits) in words.iter().zip(block.chunks_exact_mut(WORD)) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                *logit = if word & (1 << bit) == 0 { NEVER } else { *logit };
            }
        }
        block
    }
}

/// Kernel that notes the largest logit of each block.
struct Largest<'a, 'b>(&'a mut Logits<'b>);

impl Kernel for Largest<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Largest(logits) = self;
        for n in 0..logits.all.len().div_ceil(BLOCK) {
            let mut most = simd.splat(NEVER);
            for some in logits.block(n).as_chunks().0 {
                most = simd.max(simd.load(some), most);
            }
            let mut lanes = [NEVER; LANES];
            simd.store(most, &mut lanes);
            // Faster than `f32::max`, which handles NaN.
            let larger = |most, x| if x > most { x } else { most };
            logits.most.push(lanes.into_iter().fold(NEVER, larger));
        }
    }
}

/// Kernel of [`Logits::sum`].
struct Sum<'a> {
    logits: &'a Logits<'a>,
    most: f32,
    sum: &'a mut f32,
}

impl Kernel for Sum<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Sum { logits, most, sum } = self;
        let mut sums = [0.0; BLOCK];
        for (n, &largest) in logits.most.iter().enumerate() {
            // A block of -∞ adds nothing.
            if largest > NEVER {
                for (sum, x) in sums.iter_mut().zip(logits.block(n)) {
                    *sum += exp(x - most);
                }
            }
        }
        *sum += sums.iter().sum::<f32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference implementation: the allowed tokens and their logits.
    fn each(all: &[f32], allowed: Option<&[u32]>, changed: &[(usize, f32)]) -> Vec<(usize, f32)> {
        let may = |place: usize| {
            let bit = |words: &[u32]| words.get(place / 32).unwrap_or(&0) >> (place % 32) & 1 == 1;
            allowed.is_none_or(bit)
        };
        let now = |(place, &x)| {
            let changed = changed.iter().find(|(other, _)| *other == place);
            (place, changed.map_or(x, |(_, x)| *x))
        };
        all.iter().enumerate().map(now).filter(|(place, _)| may(*place)).collect()
    }

    /// Asserts that every pass equals the reference implementation.
    fn check(all: &[f32], allowed: Option<&[u32]>, changed: &[(usize, f32)]) {
        let case = format!("{} {allowed:?} {changed:?}", all.len());
        let changed: Vec<(usize, f32)> =
            changed.iter().copied().filter(|(place, _)| *place < all.len()).collect();
        let each = each(all, allowed, &changed);
        let logits = Logits::new(all, allowed, changed);
        let most = each.iter().map(|(_, x)| *x).fold(NEVER, f32::max);
        let first = each.iter().copied().find(|(_, x)| *x == most && most > NEVER);
        assert_eq!(logits.best(), first, "{case}");
        let exact: f64 = each.iter().map(|(_, x)| f64::from(x - most).exp()).sum();
        let off = f64::from(logits.sum(most)) / exact - 1.0;
        assert!(first.is_none() || off.abs() < 1e-5, "{case}: {off}");
        let above: Vec<(usize, f32)> = each.into_iter().filter(|&(_, x)| x >= 5.0).collect();
        assert_eq!(logits.at_least(5.0), above, "{case}");
        for wanted in [1, 2, 5, 16] {
            let least = logits.nearly(wanted).filter(|x| *x > NEVER);
            let enough = least.is_none_or(|least| logits.at_least(least).len() >= wanted);
            assert!(enough, "{case} {wanted}");
        }
    }

    #[test]
    fn passes_find_what_a_look_at_each_finds() {
        let all: Vec<f32> = (0..1000).map(|n| (n * 7919 % 1000) as f32 / 100.0).collect();
        let third: Vec<u32> = (0..31).map(|n| 0x4924_9249 >> (n % 3)).collect();
        let two = [0, 0, 0, 0b11 << 4];
        let changes = [(0, 9.985), (5, -3.0), (62, 9.99), (100, f32::NEG_INFINITY)];
        for count in [63, 64, 65, 101, 200, 1000] {
            for allowed in [None, Some(&third[..]), Some(&two)] {
                check(&all[..count], allowed, &[]);
                check(&all[..count], allowed, &changes);
            }
        }
        let plain = |all| Logits::new(all, None, Vec::new());
        let logits = plain(&all);
        assert_eq!((logits.nearly(0), logits.nearly(1)), (None, Some(9.99)));
        assert_eq!((logits.nearly(16).is_some(), logits.nearly(17)), (true, None));
        assert_eq!(plain(&[2.0, f32::NAN, 3.0, 3.0, f32::NAN]).best(), Some((2, 3.0)));
        for none in [&[f32::NEG_INFINITY; 70][..], &[f32::NAN], &[]] {
            assert_eq!(plain(none).best(), None);
        }
    }
}
