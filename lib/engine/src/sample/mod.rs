//! Sampling: the choice of the next token of each of several sequences from its logits.
//!
//! In the order of mlx-lm, and where it has none, of llama.cpp: the bias, the penalties, DRY, then on
//! the model's own probabilities top-n-sigma, typical-p, top-p, min-p, XTC and top-k, and only then the
//! temperature. There are two samplers, which choose alike: [`host`] reads the logits of one sequence
//! after another, [`device`] never waits for them.

use mlxk_processor::Sampling;

pub mod device;
mod dry;
pub mod host;

/// Draw of the next token of a sequence: its settings, and the state that it depends on.
pub struct Draw<'a> {
    /// Settings of sampling.
    pub sampling: &'a Sampling,
    /// Tokens that the penalties count: all known ones, or at least the recent ones.
    pub recent: &'a [u32],
    /// All tokens of the sequence, for DRY; all must be known if it is on.
    pub tokens: &'a [u32],
    /// Number of tokens that were drawn for the sequence before.
    pub number: u64,
    /// Bits of the tokens that may be drawn, 32 in an element, the lowest first; all tokens if none.
    pub allowed: Option<Vec<u32>>,
}

impl Draw<'_> {
    /// Gumbel noise of a token: the token with the largest sum of logarithm and noise is a sample of the
    /// distribution. The noise of a token does not depend on the other tokens, so that logits which
    /// differ by little seldom yield another token.
    fn noise(&self, id: u32) -> f32 {
        let mut bits = self.key().wrapping_add(id.wrapping_mul(SPREAD));
        for (shift, factor) in STIRS {
            bits = (bits ^ (bits >> shift)).wrapping_mul(factor);
        }
        bits ^= bits >> 16;
        let unit = ((bits >> 9) as f32 + 0.5) / (1 << 23) as f32;
        -(-unit.ln()).ln()
    }

    /// Key of the noise of this draw.
    fn key(&self) -> u32 {
        (self.bits(0) >> 32) as u32
    }

    /// True if XTC drops tokens in this draw.
    fn drops(&self) -> bool {
        let unit = (self.bits(1) >> 41) as f32 / (1 << 23) as f32;
        self.sampling.xtc_probability > 0.0 && unit <= self.sampling.xtc_probability
    }

    /// Pseudo-random bits of a seed, a draw and a purpose.
    fn bits(&self, purpose: u64) -> u64 {
        let number = self.number.wrapping_mul(2).wrapping_add(purpose);
        mixed(mixed(self.sampling.seed).wrapping_add(number))
    }
}

/// Upper bound of the noise.
const MOST_NOISE: f32 = 17.0;

/// Factor that spreads token ids over 32 bits.
const SPREAD: u32 = 0x9e37_79b9;

/// Shifts and factors that spread the difference of near numbers over all bits: MurmurHash3's
/// finisher, which ends with another shift.
const STIRS: [(u32, u32); 2] = [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)];

/// Spreads neighbouring numbers (SplitMix64's finisher), so that near seeds share nothing.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlx_rs::Array;
    use mlxk_processor::Token;

    use super::*;

    const VOCABULARY: i32 = 1000;

    /// Logits [rows, VOCABULARY] around 0.
    fn logits(rows: i32, seed: u64) -> Array {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut next = || 3.0 * (uniform() + uniform() + uniform());
        let logits: Vec<f32> = (0..rows * VOCABULARY).map(|_| next()).collect();
        Array::from_slice(&logits, &[rows, VOCABULARY])
    }

    /// Every setting alone and all together.
    fn settings() -> Vec<Sampling> {
        let hot = Sampling { temperature: 1.0, logprobs: Some(3), ..Sampling::GREEDY };
        let bias: Vec<(u32, f32)> = (0..300).map(|id| (3 * id, 2.0)).collect();
        vec![
            Sampling::GREEDY,
            Sampling { logprobs: Some(2), ..Sampling::GREEDY },
            hot.clone(),
            Sampling { temperature: 0.3, ..hot.clone() },
            Sampling { top_p: 0.9, ..hot.clone() },
            Sampling { top_p: 0.01, ..hot.clone() },
            Sampling { top_k: 7, ..hot.clone() },
            Sampling { top_k: u32::MAX, ..hot.clone() },
            Sampling { min_p: 0.05, ..hot.clone() },
            Sampling {
                xtc_probability: 0.5,
                xtc_threshold: 0.02,
                xtc_spared: (0..VOCABULARY as u32).step_by(2).collect(),
                ..hot.clone()
            },
            Sampling { top_n_sigma: 1.5, ..hot.clone() },
            Sampling { top_n_sigma: 0.1, ..hot.clone() },
            Sampling { typical_p: 0.7, ..hot.clone() },
            Sampling { typical_p: 0.0, ..hot.clone() },
            Sampling { top_n_sigma: 2.0, typical_p: 0.9, top_p: 0.8, min_p: 0.1, ..hot.clone() },
            Sampling { dry_multiplier: 1e6, logit_bias: vec![(9, 90.0), (6, 91.0)], ..hot.clone() },
            Sampling { dry_multiplier: 1.0, dry_allowed_length: 1, ..Sampling::GREEDY },
            Sampling { repetition_penalty: 1.5, ..Sampling::GREEDY },
            Sampling { frequency_penalty: 1.0, penalty_context: 1, ..hot.clone() },
            Sampling { logit_bias: vec![(5, 100.0)], ..hot.clone() },
            Sampling { logit_bias: bias.clone(), ..hot.clone() },
            Sampling {
                dry_multiplier: 0.8,
                top_n_sigma: 3.0,
                typical_p: 0.95,
                top_p: 0.95,
                top_k: 20,
                min_p: 0.01,
                xtc_probability: 0.7,
                xtc_threshold: 0.05,
                repetition_penalty: 1.1,
                presence_penalty: 0.5,
                frequency_penalty: 0.7,
                penalty_context: 3,
                logit_bias: bias,
                ..hot
            },
        ]
    }

    /// Tokens whose end repeats "7 8" and "4 7 8".
    const TOKENS: [u32; 11] = [7, 8, 9, 4, 7, 8, 6, 2, 4, 7, 8];
    const RECENT: [u32; 6] = [3, 999, 5, 8, 5, 21];
    /// One bit of three.
    const ALLOWED: [u32; 32] = [0x4924_9249; 32];

    /// The draws of all settings, every third one barred, and every sixth from all tokens but two.
    fn draws(settings: &[Sampling], number: u64) -> Vec<Draw<'_>> {
        let mut draws = Vec::new();
        for (row, sampling) in settings.iter().enumerate() {
            let recent = &RECENT[row % RECENT.len()..];
            let allowed = match row % 6 {
                2 => Some(ALLOWED.to_vec()),
                5 => Some(vec![0, 0b11]),
                _ => None,
            };
            draws.push(Draw { sampling, recent, tokens: &TOKENS, number, allowed });
        }
        draws
    }

    fn alike(ours: &Token, theirs: &Token, row: usize) {
        assert_eq!(ours.id, theirs.id, "row {row}");
        let (Some(own), Some(other)) = (ours.logprob, theirs.logprob) else {
            return assert_eq!(ours, theirs);
        };
        assert!((own - other).abs() < 1e-4, "row {row}: {ours:?} {theirs:?}");
        let ids = |token: &Token| token.top.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(ours), ids(theirs), "row {row}");
        assert!(ours.top.iter().all(|(_, logprob)| logprob.is_finite()), "row {row}: {ours:?}");
    }

    #[test]
    fn host_and_device_choose_alike_alone_and_beside_others() {
        let settings = settings();
        for number in 0..20 {
            let draws = draws(&settings, number);
            let logits = logits(draws.len() as i32, number);
            let rows: Vec<f32> = logits.to_vec_exact().unwrap();
            let together = device::choose(&logits, &draws, None).unwrap();
            let counts = |draws: &[Draw]| draws.iter().map(|t| t.sampling.logprobs).collect();
            let counts: Vec<Option<u32>> = counts(&draws);
            let together = together.read(counts.iter().copied()).unwrap();
            for (row, draw) in draws.iter().enumerate() {
                let own = &rows[row * VOCABULARY as usize..][..VOCABULARY as usize];
                alike(&host::choose(own, draw).unwrap(), &together[row], row);
                let alone = Array::from_slice(own, &[1, VOCABULARY]);
                let alone = device::choose(&alone, &draws[row..=row], None).unwrap();
                alike(&alone.read(counts[row..].iter().copied()).unwrap()[0], &together[row], row);
            }
        }
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely_and_near_logits_choose_alike() {
        let shares = [0.4f32, 0.3, 0.2, 0.06, 0.04];
        let logits = shares.map(f32::ln);
        let near: Vec<f32> =
            logits.iter().zip([1e-4, -1e-4, 0.0, 1e-4, -1e-4]).map(|(x, d)| x + d).collect();
        for top_p in [1.0, 0.99] {
            let mut counts = [0.0; 5];
            let mut others = 0;
            for seed in 0..20_000 {
                let sampling = Sampling { temperature: 1.0, top_p, seed, ..Sampling::GREEDY };
                let draw = Draw {
                    sampling: &sampling,
                    recent: &[0],
                    tokens: &[0],
                    number: seed % 7,
                    allowed: None,
                };
                let id = host::choose(&logits, &draw).unwrap().id;
                counts[id as usize] += 1.0 / 20_000.0;
                others += i32::from(host::choose(&near, &draw).unwrap().id != id);
            }
            let off = |(count, share): (f32, f32)| (count - share).abs();
            assert!(counts.into_iter().zip(shares).map(off).all(|off| off < 0.012), "{counts:?}");
            assert!(others < 10, "{others} of 20000");
        }
    }

    #[test]
    fn tokens_that_are_not_read_yet_count_as_recent() {
        let settings = settings();
        let logits = logits(settings.len() as i32, 1);
        let known = draws(&settings, 1);
        let known = device::choose(&logits, &known, None).unwrap().ids;
        let mut less = draws(&settings, 1);
        let unread: Vec<u32> = less.iter().map(|draw| *draw.recent.last().unwrap()).collect();
        less.iter_mut().for_each(|draw| draw.recent = &draw.recent[..draw.recent.len() - 1]);
        let unread = Array::from_slice(&unread, &[less.len() as i32, 1]);
        let chosen = device::choose(&logits, &less, Some(&unread)).unwrap().ids;
        assert_eq!(chosen.to_vec_exact::<u32>().unwrap(), known.to_vec_exact::<u32>().unwrap());
    }

    /// The tokens that 200 choices give.
    fn chosen(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        let draw = |number| Draw { sampling, recent: &[0], tokens: &[0], number, allowed: None };
        let all = (0..200).map(|n| host::choose(logits, &draw(n)).unwrap().id);
        all.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn top_n_sigma_keeps_logits_within_deviations_of_the_largest() {
        // Mean 2.5, standard deviation 1.5.
        let logits = [4.0, 4.0, 1.0, 1.0];
        let within = |deviations: f32| {
            let sampling =
                Sampling { temperature: 1.0, top_n_sigma: deviations, ..Sampling::GREEDY };
            chosen(&logits, &sampling)
        };
        assert_eq!(within(1.9), [0, 1]);
        assert_eq!(within(2.1), [0, 1, 2, 3]);
        assert_eq!(within(0.0), [0, 1, 2, 3]);
        assert_eq!(within(-1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn typical_p_keeps_the_tokens_nearest_to_the_entropy() {
        // Entropy 1.17: the surprises 1.61 and 0.51 are 0.44 and 0.66 away from it, 2.30 is 1.13 away.
        let logits = [0.6f32, 0.2, 0.1, 0.1].map(f32::ln);
        let typical = |mass: f32| {
            let sampling = Sampling { temperature: 1.0, typical_p: mass, ..Sampling::GREEDY };
            chosen(&logits, &sampling)
        };
        assert_eq!(typical(0.0), [1]);
        assert_eq!(typical(0.15), [1]);
        assert_eq!(typical(0.25), [0, 1]);
        assert_eq!(typical(1.0), [0, 1, 2, 3]);
        let narrow = Sampling { temperature: 1.0, typical_p: 0.25, top_p: 0.7, ..Sampling::GREEDY };
        assert_eq!(chosen(&logits, &narrow), [0], "0.75 of what is left");
    }

    #[test]
    fn xtc_leaves_of_the_likely_tokens_the_last_and_those_that_are_spared() {
        let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.06, 0.04].map(f32::ln).to_vec();
        let kept = |spared: &[u32]| {
            let sampling = Sampling {
                temperature: 1.0,
                xtc_probability: 1.0,
                xtc_threshold: 0.1,
                xtc_spared: spared.to_vec(),
                ..Sampling::GREEDY
            };
            chosen(&logits, &sampling)
        };
        assert_eq!(kept(&[]), [2, 3, 4]);
        assert_eq!(kept(&[0]), [0, 2, 3, 4]);
    }

    #[test]
    fn rules_that_allow_nothing_choose_nothing() {
        let draw = Draw {
            sampling: &Sampling::GREEDY,
            recent: &[0],
            tokens: &[0],
            number: 0,
            allowed: Some(vec![0]),
        };
        assert_eq!(host::choose(&[1.0, 2.0], &draw), None);
    }
}
