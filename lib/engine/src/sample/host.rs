//! Sampling on the host: a pass or two over the logits, and a heap of the few likely tokens.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use mlxk_processor::Token;
use mlxk_tensor::cpu::exp;
use mlxk_tensor::cpu::logits::Logits;

use super::{Draw, MOST_NOISE, dry};

/// Samples the next token by `logits` [vocabulary]; `None` if no token is allowed.
pub fn choose(logits: &[f32], draw: &Draw) -> Option<Token> {
    let logits = Logits::new(logits, draw.allowed.as_deref(), changed(logits, draw));
    let best = candidate(logits.best()?);
    let sampling = draw.sampling;
    let random = sampling.temperature > 0.0;
    let total = match random && sampling.nucleus().is_some() || sampling.logprobs.is_some() {
        true => logits.sum(best.logit),
        false => 1.0,
    };
    let chosen = match random {
        false => best,
        true if sampling.filters() => pick(&filter(&logits, draw, best, total), draw)?,
        true => pick(&within_reach(&logits, draw, best), draw)?,
    };
    let Some(count) = sampling.logprobs else { return Some(Token::new(chosen.id)) };
    let normal = best.logit + total.ln();
    let top = top(&logits, count as usize, f32::MIN);
    let top = top.map(|token| (token.id, token.logit - normal)).take(count as usize).collect();
    Some(Token { id: chosen.id, logprob: Some(chosen.logit - normal), top })
}

/// Token that may be drawn. The likelier is the greater, and of equals the lower id.
#[derive(Clone, Copy, PartialEq)]
struct Candidate {
    logit: f32,
    id: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        self.logit.total_cmp(&other.logit).then(other.id.cmp(&self.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ids and logits of the tokens that bias and penalties change.
fn changed(logits: &[f32], draw: &Draw) -> Vec<(usize, f32)> {
    let sampling = draw.sampling;
    let known = |&&(id, _): &&(u32, f32)| (id as usize) < logits.len();
    let biased = sampling.logit_bias.iter().filter(known);
    let mut changed: BTreeMap<usize, f32> =
        biased.map(|&(id, bias)| (id as usize, logits[id as usize] + bias)).collect();
    let context = if sampling.penalises() { sampling.penalty_context as usize } else { 0 };
    let mut recent = draw.recent[draw.recent.len().saturating_sub(context)..].to_vec();
    recent.sort_unstable();
    for same in recent.chunk_by(|a, b| a == b) {
        let id = same[0] as usize;
        let logit = changed.entry(id).or_insert(logits[id]);
        let penalty = sampling.repetition_penalty;
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        *logit -= sampling.presence_penalty + sampling.frequency_penalty * same.len() as f32;
    }
    for (id, penalty) in dry::penalties(sampling, draw.tokens) {
        let id = id as usize;
        *changed.entry(id).or_insert(logits[id]) -= penalty;
    }
    changed.into_iter().collect()
}

fn candidate((id, logit): (usize, f32)) -> Candidate {
    Candidate { logit, id: id as u32 }
}

/// Tokens whose logit is at least `least`, the most likely first; among them are the `count` most
/// likely ones, if there are as many.
fn top(logits: &Logits, count: usize, least: f32) -> impl Iterator<Item = Candidate> {
    let least = logits.nearly(count).map_or(least, |nearly| nearly.max(least));
    let likely = logits.at_least(least).into_iter();
    let mut all: Vec<Candidate> = likely.map(candidate).collect();
    if count < all.len() {
        all.select_nth_unstable_by(count, |a, b| b.cmp(a));
        all.truncate(count);
    }
    let mut heap = BinaryHeap::from(all);
    std::iter::from_fn(move || heap.pop())
}

/// Tokens that the filters keep, the most likely first. `total` is the sum of all weights, of which
/// the most likely token has 1.
fn filter(logits: &Logits, draw: &Draw, best: Candidate, total: f32) -> Vec<Candidate> {
    let sampling = draw.sampling;
    if sampling.sigma().is_some() || sampling.typical().is_some() {
        let pool = pool(logits, draw, best);
        let Some(&best) = pool.first() else { return pool };
        let total = pool.iter().map(|token| exp(token.logit - best.logit)).sum();
        return narrow(pool.into_iter(), draw, best, total);
    }
    let mass = sampling.nucleus().map_or(f32::INFINITY, |share| share * total);
    // All tokens below this weight have less than what top-p leaves out together.
    let rare = (total - mass).max(0.0) / logits.count() as f32;
    let least = best.logit + rare.max(sampling.min_p).ln();
    let count = if draw.drops() { usize::MAX } else { most(draw) };
    narrow(top(logits, count, least), draw, best, total)
}

/// Tokens that top-n-sigma and typical-p keep, the most likely first.
fn pool(logits: &Logits, draw: &Draw, best: Candidate) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = logits.at_least(f32::MIN).into_iter().map(candidate).collect();
    if let Some(deviations) = draw.sampling.sigma() {
        let count = all.len() as f64;
        let mean = all.iter().map(|token| f64::from(token.logit)).sum::<f64>() / count;
        let square = |token: &Candidate| (f64::from(token.logit) - mean).powi(2);
        let variance = all.iter().map(square).sum::<f64>() / count;
        let least = best.logit - deviations * variance.sqrt() as f32;
        all.retain(|token| token.logit >= least);
    }
    if let Some(mass) = draw.sampling.typical() {
        all = typical(&all, best, mass);
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    all
}

/// Tokens whose surprise is nearest to the entropy, until they have more than `mass` together.
fn typical(all: &[Candidate], best: Candidate, mass: f32) -> Vec<Candidate> {
    let weight = |token: &Candidate| exp(token.logit - best.logit);
    let total: f64 = all.iter().map(|token| f64::from(weight(token))).sum();
    let normal = best.logit + total.ln() as f32;
    let surprise = |token: &Candidate| normal - token.logit;
    let part = |token: &Candidate| f64::from(weight(token)) / total * f64::from(surprise(token));
    let entropy = all.iter().map(part).sum::<f64>() as f32;
    // The nearest is the greatest of the heap; its place stands for its number.
    let near = |(place, token): (usize, &Candidate)| {
        candidate((place, -(surprise(token) - entropy).abs()))
    };
    let mut heap: BinaryHeap<Candidate> = all.iter().enumerate().map(near).collect();
    let mut before = 0.0;
    let nearest = std::iter::from_fn(|| heap.pop()).map(|near| all[near.id as usize]);
    let within = |token: &Candidate| {
        let kept = before <= f64::from(mass);
        before += f64::from(weight(token)) / total;
        kept
    };
    nearest.take_while(within).collect()
}

/// Tokens that top-p, min-p, XTC and top-k keep of those given, the most likely first, whose weights
/// sum up to `total`.
fn narrow(
    tokens: impl Iterator<Item = Candidate>,
    draw: &Draw,
    best: Candidate,
    total: f32,
) -> Vec<Candidate> {
    let sampling = draw.sampling;
    let mass = sampling.nucleus().map_or(f32::INFINITY, |share| share * total);
    let least = best.logit + sampling.min_p.ln();
    let mut before = 0.0;
    let within = |token: &Candidate| {
        let kept = before < mass && token.logit >= least;
        before += exp(token.logit - best.logit);
        kept
    };
    let drops = draw.drops();
    let count = if drops { usize::MAX } else { most(draw) };
    let mut kept: Vec<Candidate> = tokens.take_while(within).take(count).collect();
    if drops {
        exclude_top_choices(&mut kept, draw);
        kept.truncate(most(draw));
    }
    kept
}

/// Number of tokens that top-k keeps.
fn most(draw: &Draw) -> usize {
    match draw.sampling.top_k {
        0 => usize::MAX,
        k => k as usize,
    }
}

/// XTC: drops the most likely of the tokens above a threshold, all but the last of them.
fn exclude_top_choices(kept: &mut Vec<Candidate>, draw: &Draw) {
    let most = kept[0].logit;
    let sum: f32 = kept.iter().map(|token| exp(token.logit - most)).sum();
    let above = |token: &&Candidate| exp(token.logit - most) / sum > draw.sampling.xtc_threshold;
    if let Some(last) = kept.iter().take_while(above).last().map(|token| token.logit) {
        let spared = |token: &Candidate| draw.sampling.xtc_spared.contains(&token.id);
        kept.retain(|token| token.logit <= last || spared(token));
    }
}

/// Tokens that noise can raise to the first place.
fn within_reach(logits: &Logits, draw: &Draw, best: Candidate) -> Vec<Candidate> {
    let reach = (MOST_NOISE - draw.noise(best.id)) * draw.sampling.temperature;
    logits.at_least(best.logit - reach).into_iter().map(candidate).collect()
}

/// Token drawn by the probabilities at the temperature.
fn pick(kept: &[Candidate], draw: &Draw) -> Option<Candidate> {
    let most = kept.iter().fold(f32::NEG_INFINITY, |most, token| most.max(token.logit));
    let score = |token: &Candidate| {
        let own = (token.logit - most) / draw.sampling.temperature;
        (own + draw.noise(token.id), *token)
    };
    let first = kept.iter().map(score).reduce(|a, b| if b.0 > a.0 { b } else { a });
    first.map(|(_, token)| token)
}
