//! Choosing on the host: a pass or two over the logits, and a heap of the few tokens that count.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{Logprobs, MOST_NOISE, Token, Turn};
use crate::cpu::{exp, logits as passes};

/// The next token by the `logits` of all tokens; `None` if none of them may come.
pub fn choose(logits: &[f32], turn: &Turn) -> Option<Token> {
    let adjusted = adjusted(logits, turn);
    let logits = adjusted.as_deref().unwrap_or(logits);
    let best = best(logits)?;
    let sampling = turn.sampling;
    let filters = sampling.temperature > 0.0 && sampling.filters();
    let total = match filters || sampling.logprobs.is_some() {
        true => passes::sum(logits, best.logit, 1.0),
        false => 1.0,
    };
    let id = match sampling.temperature {
        0.0 => best.id,
        _ if filters => pick(&filter(logits, turn, best, total), turn),
        _ => pick(&within_reach(logits, turn, best), turn),
    };
    let logprobs = sampling.logprobs.map(|count| {
        let normal = best.logit + total.ln();
        let top = top(logits, count as usize, f32::NEG_INFINITY);
        let told = top.map(|token| (token.id, token.logit - normal)).take(count as usize);
        Logprobs { own: logits[id as usize] - normal, top: told.collect() }
    });
    Some(Token { id, logprobs })
}

/// A token that may be chosen. The likelier is the greater, and of equals the lower id.
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

/// The logits as rules, bias and penalties leave them; `None` if they leave them as they are.
fn adjusted(logits: &[f32], turn: &Turn) -> Option<Vec<f32>> {
    let sampling = turn.sampling;
    if turn.allowed.is_none() && sampling.logit_bias.is_empty() && !sampling.penalises() {
        return None;
    }
    let mut logits = logits.to_vec();
    for &(id, bias) in &sampling.logit_bias {
        logits.get_mut(id as usize).into_iter().for_each(|logit| *logit += bias);
    }
    let context = sampling.penalty_context as usize;
    let mut recent = turn.recent[turn.recent.len().saturating_sub(context)..].to_vec();
    recent.sort_unstable();
    for same in recent.chunk_by(|a, b| a == b).filter(|_| sampling.penalises()) {
        let logit = &mut logits[same[0] as usize];
        let penalty = sampling.repetition_penalty;
        *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        *logit -= sampling.presence_penalty + sampling.frequency_penalty * same.len() as f32;
    }
    if let Some(allowed) = &turn.allowed {
        passes::bar(&mut logits, allowed);
    }
    Some(logits)
}

/// The most likely token, the first of several.
fn best(logits: &[f32]) -> Option<Candidate> {
    passes::best(logits).map(candidate)
}

fn candidate((id, logit): (usize, f32)) -> Candidate {
    Candidate { logit, id: id as u32 }
}

/// The tokens whose logit is at least `least`, the most likely first; at least the `count` most
/// likely are among them if there are as many.
fn top(logits: &[f32], count: usize, least: f32) -> impl Iterator<Item = Candidate> {
    let least = passes::nearly(logits, count).map_or(least, |nearly| nearly.max(least));
    let likely = passes::at_least(logits, least).into_iter();
    let mut all: Vec<Candidate> = likely.map(candidate).collect();
    if count < all.len() {
        all.select_nth_unstable_by(count, |a, b| b.cmp(a));
        all.truncate(count);
    }
    let mut heap = BinaryHeap::from(all);
    std::iter::from_fn(move || heap.pop())
}

/// The tokens to choose from, the most likely first. `total` is the sum of all weights, of which
/// the most likely token has 1.
fn filter(logits: &[f32], turn: &Turn, best: Candidate, total: f32) -> Vec<Candidate> {
    let sampling = turn.sampling;
    let mass = match sampling.top_p {
        p if p > 0.0 && p < 1.0 => p * total,
        _ => f32::INFINITY,
    };
    // All tokens below this weight have less than what top-p leaves out together.
    let rare = (total - mass).max(0.0) / logits.len() as f32;
    let least = best.logit + rare.max(sampling.min_p).ln();
    let drops = turn.drops();
    let k = if sampling.top_k > 0 { sampling.top_k as usize } else { usize::MAX };
    let mut before = 0.0;
    let within = |token: &Candidate| {
        let kept = before < mass;
        before += exp(token.logit - best.logit);
        kept
    };
    let count = if drops { usize::MAX } else { k };
    let mut kept: Vec<Candidate> = top(logits, count, least).take_while(within).collect();
    if drops {
        exclude_top_choices(&mut kept, turn);
        kept.truncate(k);
    }
    kept
}

/// XTC: drops the most likely of the tokens above a threshold, all but the last of them.
fn exclude_top_choices(kept: &mut Vec<Candidate>, turn: &Turn) {
    let most = kept[0].logit;
    let sum: f32 = kept.iter().map(|token| exp(token.logit - most)).sum();
    let above = |token: &&Candidate| exp(token.logit - most) / sum > turn.sampling.xtc_threshold;
    if let Some(last) = kept.iter().take_while(above).last().map(|token| token.logit) {
        let spared = |token: &Candidate| turn.sampling.xtc_spared.contains(&token.id);
        kept.retain(|token| token.logit <= last || spared(token));
    }
}

/// The tokens that noise can make the first.
fn within_reach(logits: &[f32], turn: &Turn, best: Candidate) -> Vec<Candidate> {
    let reach = (MOST_NOISE - turn.noise(best.id)) * turn.sampling.temperature;
    let likely = passes::at_least(logits, best.logit - reach).into_iter();
    likely.map(candidate).collect()
}

/// One of the tokens, by their probabilities at the temperature.
fn pick(kept: &[Candidate], turn: &Turn) -> u32 {
    let most = kept.iter().fold(f32::NEG_INFINITY, |most, token| most.max(token.logit));
    let score = |token: &Candidate| {
        let own = (token.logit - most) / turn.sampling.temperature;
        (own + turn.noise(token.id), token.id)
    };
    let first = kept.iter().map(score).reduce(|a, b| if b.0 > a.0 { b } else { a });
    first.map_or(0, |(_, id)| id)
}
