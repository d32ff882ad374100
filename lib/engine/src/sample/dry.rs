//! DRY, a penalty of tokens that would repeat a sequence, as llama.cpp defines it
//! (<https://github.com/oobabooga/text-generation-webui/pull/5637>): `multiplier * base ^ (length -
//! allowed length)`, by the length of the longest sequence at the end of the tokens that the token
//! would go on with.

use std::collections::BTreeMap;

use mlxk_processor::Sampling;

/// Largest natural logarithm of a power of the base, just below that of the largest number.
const MAX_LOG: f32 = 88.72;

/// Penalties of single tokens after `tokens`, prompt included; none if DRY is off.
pub fn penalties(sampling: &Sampling, tokens: &[u32]) -> Vec<(u32, f32)> {
    if !sampling.has_dry() {
        return Vec::new();
    }
    let context = usize::try_from(sampling.dry_penalty_last_n).unwrap_or(usize::MAX);
    let tokens = &tokens[tokens.len().saturating_sub(context)..];
    let allowed = sampling.dry_allowed_length as usize;
    let breakers = sampling.dry_breakers.as_deref();
    let limit = breakers.map_or(tokens.len(), |breakers| breakers.tokens_after(tokens));
    if tokens.len() <= allowed || limit < allowed {
        return Vec::new();
    }
    let mut longest = BTreeMap::<u32, usize>::new();
    for (end, repeated) in repetitions(tokens).into_iter().enumerate() {
        let length = repeated.min(limit);
        if length >= allowed {
            let most = longest.entry(tokens[end]).or_default();
            *most = length.max(*most);
        }
    }
    longest.retain(|&id, _| !breakers.is_some_and(|breakers| breakers.contains(id)));
    let penalty = |length: usize| {
        let base = sampling.dry_base;
        let most = if base > 1.000_001 { (MAX_LOG / base.ln()) as usize } else { usize::MAX };
        sampling.dry_multiplier * base.powi((length - allowed).min(most) as i32)
    };
    longest.into_iter().map(|(id, length)| (id, penalty(length))).collect()
}

/// Length of the longest sequence that ends both before each token and at the end of `tokens`, for
/// all tokens but the first (Z-algorithm on the tokens in reverse).
fn repetitions(tokens: &[u32]) -> Vec<usize> {
    let count = tokens.len();
    let from_end = |at: usize| tokens[count - 1 - at];
    let mut lengths = vec![0; count];
    // The interval of the reversed tokens that is known to repeat their start.
    let (mut start, mut end) = (0, 0);
    let mut repeated = vec![0; count];
    for at in 1..count {
        let mut length = if at < end { lengths[at - start].min(end - at) } else { 0 };
        while at + length < count && from_end(length) == from_end(at + length) {
            length += 1;
        }
        lengths[at] = length;
        if at + length > end {
            (start, end) = (at, at + length);
        }
        repeated[count - at] = length;
    }
    repeated
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mlxk_processor::Breakers;

    use super::*;

    fn dry() -> Sampling {
        Sampling { dry_multiplier: 1.0, dry_base: 2.0, ..Sampling::GREEDY }
    }

    #[test]
    fn tokens_that_go_on_with_a_longer_repetition_are_penalised_more() {
        for (tokens, expected) in [
            (&[0, 1, 2, 0, 1][..], vec![(2, 1.0)]),
            (&[5, 0, 1, 2, 5, 0, 1], vec![(2, 2.0)]),
            (&[0, 1, 2, 5, 0, 1, 3, 5, 0, 1], vec![(2, 1.0), (3, 2.0)]),
            (&[7, 7, 7, 7], vec![(7, 2.0)]),
            (&[1, 2, 3, 1], vec![]),
            (&[1, 2], vec![]),
            (&[], vec![]),
        ] {
            assert_eq!(penalties(&dry(), tokens), expected, "{tokens:?}");
        }
    }

    #[test]
    fn parameters_bound_what_is_penalised() {
        let tokens = [5, 0, 1, 2, 5, 0, 1];
        let with = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = dry();
            change(&mut sampling);
            penalties(&sampling, &tokens)
        };
        assert_eq!(with(&|s| s.dry_allowed_length = 4), []);
        assert_eq!(with(&|s| s.dry_allowed_length = 1), [(2, 4.0)]);
        assert_eq!(with(&|s| s.dry_penalty_last_n = 6), [(2, 1.0)]);
        assert_eq!(with(&|s| s.dry_penalty_last_n = 0), []);
        assert_eq!(with(&|s| s.dry_multiplier = 0.0), []);
        assert_eq!(with(&|s| s.dry_multiplier = 0.5), [(2, 1.0)]);
        assert_eq!(with(&|s| s.dry_base = 1.0), [(2, 1.0)]);
        let breaks = |head: u32, tail: &[u32]| {
            let mut breakers = Breakers::default();
            breakers.insert(head, tail.to_vec());
            with(&|s| s.dry_breakers = Some(Arc::new(breakers.clone())))
        };
        assert_eq!(breaks(5, &[]), [(2, 1.0)], "two tokens after the breaker");
        assert_eq!(breaks(5, &[0]), [], "one token after the breaker");
        assert_eq!(breaks(2, &[]), [], "the breaker itself may come again");
        assert_eq!(breaks(9, &[]), [(2, 2.0)]);
    }

    #[test]
    fn a_long_repetition_has_a_finite_penalty() {
        let tokens = [3; 5000];
        let [(3, penalty)] = penalties(&dry(), &tokens)[..] else { panic!("one token") };
        assert!(penalty.is_finite() && penalty > 1e37);
    }
}
