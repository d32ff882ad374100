//! What the settings of sampling do to the tokens.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::HashSet;

use mlxk_engine::Model;
use mlxk_processor::Sampling;
use model::{GREEDY, parity};

const PROMPT: [u32; 3] = [71, 294, 35];
fn hot() -> Sampling {
    Sampling { temperature: 1.0, ..GREEDY }
}

fn llama() -> Model {
    model::load(&parity("llama")).unwrap()
}

fn ids(model: &mut Model, sampling: Sampling, count: usize) -> Vec<u32> {
    model.tokens(&PROMPT, &sampling).unwrap().take(count).map(Result::unwrap).collect()
}

/// The first tokens that 200 seeds give.
fn first(model: &mut Model, sampling: Sampling) -> Vec<u32> {
    (0..200).map(|seed| ids(model, Sampling { seed, ..sampling.clone() }, 1)[0]).collect()
}

/// The tokens in the order of their logits.
fn ranked(model: &mut Model) -> Vec<u32> {
    let logits = model.logits(&PROMPT).unwrap();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    order
}

/// The probabilities of all tokens.
fn probabilities(model: &mut Model) -> Vec<f32> {
    let exp: Vec<f32> = model.logits(&PROMPT).unwrap().iter().map(|x| x.exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.iter().map(|x| x / sum).collect()
}

#[test]
fn a_seed_gives_the_same_tokens_again_and_another_seed_others() {
    let mut model = llama();
    let seeded = |seed| Sampling { seed, ..hot() };
    let once = ids(&mut model, seeded(7), 20);
    assert_eq!(once, ids(&mut model, seeded(7), 20));
    assert_ne!(once, ids(&mut model, seeded(8), 20));
    assert_ne!(once[1..], ids(&mut model, seeded(8), 19), "seeds must not be shifted copies");
}

#[test]
fn tokens_come_as_often_as_they_are_likely() {
    let mut model = llama();
    let expected = probabilities(&mut model);
    let top = ranked(&mut model)[0];
    let often = first(&mut model, hot()).into_iter().filter(|&id| id == top).count() as f32 / 200.0;
    assert!(
        (often - expected[top as usize]).abs() < 0.1,
        "{often}, not {}",
        expected[top as usize]
    );
}

#[test]
fn top_k_keeps_the_k_most_likely() {
    let mut model = llama();
    let kept: HashSet<u32> = ranked(&mut model)[..3].iter().copied().collect();
    let seen: HashSet<u32> =
        first(&mut model, Sampling { top_k: 3, ..hot() }).into_iter().collect();
    assert_eq!(seen, kept);
    let all = Sampling { top_k: 1_000_000, ..hot() };
    assert!(first(&mut model, all).into_iter().collect::<HashSet<_>>().len() > 3);
}

#[test]
fn top_p_keeps_the_most_likely_until_they_reach_p() {
    let mut model = llama();
    let (p, ranked) = (probabilities(&mut model), ranked(&mut model));
    // Half way between two sums, so that rounding decides nothing.
    let two = p[ranked[0] as usize] + p[ranked[1] as usize] / 2.0;
    let seen: HashSet<u32> =
        first(&mut model, Sampling { top_p: two, ..hot() }).into_iter().collect();
    assert_eq!(seen, ranked[..2].iter().copied().collect());
    let least = Sampling { top_p: 1e-6, ..hot() };
    assert!(first(&mut model, least).into_iter().all(|id| id == ranked[0]));
}

#[test]
fn min_p_keeps_those_near_the_most_likely() {
    let mut model = llama();
    let (p, ranked) = (probabilities(&mut model), ranked(&mut model));
    let second = p[ranked[1] as usize] / p[ranked[0] as usize];
    let third = p[ranked[2] as usize] / p[ranked[0] as usize];
    let between = Sampling { min_p: (second + third) / 2.0, ..hot() };
    let seen: HashSet<u32> = first(&mut model, between).into_iter().collect();
    assert_eq!(seen, ranked[..2].iter().copied().collect());
}

#[test]
fn a_low_temperature_is_nearly_greedy() {
    let mut model = llama();
    let greedy = ids(&mut model, GREEDY, 10);
    assert_eq!(ids(&mut model, Sampling { temperature: 1e-4, ..hot() }, 10), greedy);
}

/// Greedy decoding of this model falls into a loop, which the penalty must break; and the penalty
/// must reach the tokens of the prompt too.
#[test]
fn a_penalty_keeps_the_last_twenty_tokens_from_coming_again() {
    let mut model = model::load(&parity("qwen2")).unwrap();
    let mut continued = |prompt: &[u32], penalty, count| -> Vec<u32> {
        let sampling = Sampling { repetition_penalty: penalty, ..GREEDY };
        model.tokens(prompt, &sampling).unwrap().take(count).map(Result::unwrap).collect()
    };
    let looping = continued(&PROMPT, 1.0, 60);
    assert!(looping.iter().collect::<HashSet<_>>().len() < 20);
    let fresh = continued(&PROMPT, 1e6, 60);
    for window in fresh.windows(21) {
        assert_eq!(window.iter().collect::<HashSet<_>>().len(), 21, "{window:?}");
    }
    let next = continued(&PROMPT, 1.0, 1)[0];
    assert_ne!(continued(&[next, PROMPT[0]], 1e6, 1)[0], next);
}
