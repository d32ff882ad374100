//! Routing of a mixture of experts: the experts of each token, and their weights.

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::{put_along_axis, take_along_axis, topk_axis};
use mlx_rs::ops::{
    argpartition_axis, concatenate, maximum, select, sigmoid, softmax_axis, tanh, unflatten,
};
use mlx_rs::{Array, Dtype};

use super::scan::{softplus, softplus_of};
use crate::array::elements;
use crate::mlx;

/// Parameters of the router.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Experts of a token (top-k).
    pub chosen: usize,
    /// Function from logits to scores.
    pub score: Score,
    /// Groups that limit the choice; `None` if all experts can be chosen.
    pub groups: Option<Groups>,
    /// True if the chosen scores are divided by their sum. With softmax this equals softmax over
    /// the chosen logits.
    pub normalised: bool,
    /// Factor of the chosen scores.
    pub scale: f32,
    /// True if routing weights multiply the inputs of experts instead of their outputs.
    pub before: bool,
    /// Divisor of the logits.
    pub temperature: f32,
    /// Bound of the logits: `softcap * tanh(logit / softcap)`.
    pub softcap: Option<f32>,
    /// True if the router computes logits in float32 whatever the type of hidden vectors.
    pub wide: bool,
}

impl Routing {
    /// Routing to the `chosen` best of all experts, weighted by their scores.
    pub fn new(chosen: usize, score: Score) -> Routing {
        Routing {
            chosen,
            score,
            groups: None,
            normalised: false,
            scale: 1.0,
            before: false,
            temperature: 1.0,
            softcap: None,
            wide: false,
        }
    }
}

/// Function from logits to scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each logit.
    Sigmoid,
    /// Square root of softplus of each logit, `sqrt(log(1 + exp(x)))`.
    RootSoftplus,
    /// SparseMixer-v2 (arXiv 2409.12136): experts are chosen one after another, each weighted by
    /// softmax over the experts left whose logits are within this relative distance of its own.
    Mixer(f32),
}

/// Group-limited routing: experts are chosen from the best groups only.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// Number of groups, of equal size.
    pub count: usize,
    /// Groups that remain.
    pub kept: usize,
    /// Best scores of a group that are summed up to its own score: 1 or 2.
    pub judged: usize,
    /// Score that the experts of the other groups get.
    pub dropped: f32,
}

/// Experts and weights of rows.
pub struct ExpertChoice {
    /// Indices of the chosen experts, [rows, chosen], uint32.
    pub ids: Array,
    /// Weights of the chosen experts, [rows, chosen], float32.
    pub weights: Array,
}

/// Routing by `logits` [rows, experts], in MLX.
pub fn mlx(routing: &Routing, logits: &Array, correction: Option<&Array>) -> Result<ExpertChoice> {
    let mut logits = logits.as_dtype(Dtype::Float32)?;
    if routing.temperature != 1.0 {
        logits = logits.divide(Array::from_f32(routing.temperature))?;
    }
    if let Some(cap) = routing.softcap.map(Array::from_f32) {
        logits = tanh(logits.divide(&cap)?)?.multiply(cap)?;
    }
    let scores = match routing.score {
        Score::Softmax => softmax_axis(&logits, -1, true)?,
        Score::Sigmoid => sigmoid(&logits)?,
        Score::RootSoftplus => softplus(&logits)?.sqrt()?,
        Score::Mixer(part) => return mlx_mixer(&logits, routing.chosen, part),
    };
    let mut judged = match correction {
        Some(correction) => scores.add(correction)?,
        None => scores.clone(),
    };
    if let Some(groups) = &routing.groups {
        judged = mlx_groups(&judged, groups)?;
    }
    let chosen = routing.chosen as i32;
    let ids = argpartition_axis(judged.negative()?, chosen - 1, -1)?;
    let ids = mlx::columns(&ids, 0..chosen)?;
    let mut weights = take_along_axis(&scores, &ids, -1)?;
    if routing.normalised {
        let sum = weights.sum_axis(-1, true)?.add(Array::from_f32(LEAST))?;
        weights = weights.divide(sum)?;
    }
    Ok(ExpertChoice { ids, weights: weights.multiply(Array::from_f32(routing.scale))? })
}

/// Added to the sum of scores, which may be zero.
const LEAST: f32 = 1e-20;

/// Scores with those of the worse groups replaced, in MLX.
fn mlx_groups(scores: &Array, groups: &Groups) -> Result<Array> {
    let &Groups { count, kept, judged, dropped: score } = groups;
    if kept >= count {
        return Ok(scores.clone());
    }
    let apart = unflatten(scores, -1, &[count as i32, -1])?;
    let best = topk_axis(&apart, judged as i32, -1)?.sum_axis(-1, true)?;
    let worse = (count - kept) as i32;
    let dropped = argpartition_axis(best, worse - 1, -2)?;
    let dropped = mlx::columns(&dropped, 0..worse)?;
    let left = put_along_axis(apart, dropped, Array::from_f32(score), -2)?;
    left.flatten(-2, -1)
}

/// SparseMixer-v2 routing in MLX; `part` is the relative distance.
fn mlx_mixer(logits: &Array, chosen: usize, part: f32) -> Result<ExpertChoice> {
    let none = Array::from_f32(f32::NEG_INFINITY);
    let mut left = logits.clone();
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..chosen {
        let best = left.max_axis(-1, true)?;
        let id = mlx_rs::ops::indexing::argmax_axis(&left, -1, true)?;
        let apart = best.subtract(logits)?.divide(maximum(logits.abs()?, &best)?)?;
        let near = select(apart.gt(Array::from_f32(part))?, &none, &left)?;
        weights.push(take_along_axis(softmax_axis(near, -1, true)?, &id, -1)?);
        left = put_along_axis(&left, &id, &none, -1)?;
        ids.push(id);
    }
    Ok(ExpertChoice { ids: concatenate(&ids, -1)?, weights: concatenate(&weights, -1)? })
}

/// Routing by `logits` [rows, experts], on the CPU.
pub fn cpu(routing: &Routing, logits: &Array, correction: Option<&Array>) -> Result<ExpertChoice> {
    let (count, chosen) = (logits.dim(-1) as usize, routing.chosen);
    let correction = correction.map(elements).transpose()?;
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    for logits in elements(logits)?.chunks_exact(count) {
        let bounded = |x: f32| routing.softcap.map_or(x, |cap| cap * (x / cap).tanh());
        let logits: Vec<f32> = logits.iter().map(|x| bounded(x / routing.temperature)).collect();
        let best = choose(routing, &logits, correction);
        ids.extend(best.iter().map(|&(id, _)| id as u32));
        weights.extend(best.iter().map(|&(_, weight)| weight));
    }
    let shape = [(ids.len() / chosen) as i32, chosen as i32];
    Ok(ExpertChoice {
        ids: Array::from_slice(&ids, &shape),
        weights: Array::from_slice(&weights, &shape),
    })
}

/// Experts of one row and their weights, the best first.
fn choose(routing: &Routing, logits: &[f32], correction: Option<&[f32]>) -> Vec<(usize, f32)> {
    let scores = match routing.score {
        Score::Softmax => softmax(logits.to_vec()),
        Score::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Score::RootSoftplus => logits.iter().map(|&x| softplus_of(x).sqrt()).collect(),
        Score::Mixer(part) => return cpu_mixer(logits, routing.chosen, part),
    };
    let mut judged = scores.clone();
    if let Some(correction) = correction {
        judged.iter_mut().zip(correction).for_each(|(score, more)| *score += more);
    }
    if let Some(groups) = &routing.groups {
        cpu_groups(&mut judged, groups);
    }
    let mut best: Vec<(usize, f32)> =
        ranked(&judged).take(routing.chosen).map(|id| (id, scores[id])).collect();
    let sum: f32 = best.iter().map(|&(_, score)| score).sum();
    let divisor = if routing.normalised { sum + LEAST } else { 1.0 };
    best.iter_mut().for_each(|(_, score)| *score = *score / divisor * routing.scale);
    best
}

/// Indices of `scores`, the highest score first.
fn ranked(scores: &[f32]) -> impl Iterator<Item = usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places.into_iter()
}

/// Replaces the scores of the worse groups.
fn cpu_groups(scores: &mut [f32], groups: &Groups) {
    let size = scores.len() / groups.count;
    let best = |group: &[f32]| ranked(group).take(groups.judged).map(|i| group[i]).sum::<f32>();
    let best: Vec<f32> = scores.chunks_exact(size).map(best).collect();
    for group in ranked(&best).skip(groups.kept) {
        scores[group * size..][..size].fill(groups.dropped);
    }
}

/// SparseMixer-v2 routing of one row; `part` is the relative distance.
fn cpu_mixer(logits: &[f32], chosen: usize, part: f32) -> Vec<(usize, f32)> {
    let mut left = logits.to_vec();
    let mut all = Vec::new();
    for id in ranked(logits).take(chosen) {
        let best = logits[id];
        let far = |logit: f32| (best - logit) / logit.abs().max(best) > part;
        let near = logits.iter().zip(&left);
        let near = near.map(|(&logit, &left)| if far(logit) { f32::NEG_INFINITY } else { left });
        all.push((id, softmax(near.collect())[id]));
        left[id] = f32::NEG_INFINITY;
    }
    all
}

/// Softmax of one row.
fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|x| *x /= sum);
    logits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use std::collections::BTreeMap;

    use super::*;

    fn some(shape: &[i32], seed: u64) -> Array {
        crate::mlx::noise(shape, seed)
    }

    /// Weights of each row, by expert.
    fn table(choice: &ExpertChoice) -> Vec<BTreeMap<u32, f32>> {
        let chosen = choice.ids.dim(-1) as usize;
        let ids = choice.ids.contiguous().unwrap();
        let weights = choice.weights.contiguous().unwrap();
        let ids = ids.try_as_slice::<u32>().unwrap().chunks_exact(chosen);
        let weights = elements(&weights).unwrap().chunks_exact(chosen);
        let row = |(ids, weights): (&[u32], &[f32])| {
            ids.iter().copied().zip(weights.iter().copied()).collect()
        };
        ids.zip(weights).map(row).collect()
    }

    #[test]
    fn both_ways_choose_the_same_experts_with_the_same_weights() {
        let plain = Routing::new(3, Score::Softmax);
        let (logits, correction) = (some(&[50, 12], 1), some(&[12], 2));
        let groups = |judged| Some(Groups { count: 4, kept: 2, judged, dropped: 0.0 });
        let sigmoid = Routing { score: Score::Sigmoid, normalised: true, scale: 2.5, ..plain };
        for (routing, correction) in [
            (plain, None),
            (Routing { normalised: true, ..plain }, None),
            (Routing { groups: groups(1), scale: 16.0, ..plain }, None),
            (sigmoid, Some(&correction)),
            (Routing { groups: groups(2), ..sigmoid }, Some(&correction)),
            (
                Routing { score: Score::RootSoftplus, temperature: 0.5, ..sigmoid },
                Some(&correction),
            ),
            (Routing { softcap: Some(0.5), ..sigmoid }, Some(&correction)),
            (Routing { chosen: 2, score: Score::Mixer(0.02), ..plain }, None),
            (Routing { chosen: 2, score: Score::Mixer(0.5), ..plain }, None),
        ] {
            let ours = table(&cpu(&routing, &logits, correction).unwrap());
            let theirs = table(&mlx(&routing, &logits, correction).unwrap());
            assert_eq!(ours.len(), 50);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!(ours.keys().eq(theirs.keys()), "{routing:?}: {ours:?} {theirs:?}");
                let apart = ours.values().zip(theirs.values()).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f32::max) < 1e-5, "{routing:?}: {ours:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn corrections_choose_but_do_not_weigh() {
        let logits = Array::from_slice(&[0.0f32, 3.0, -9.0], &[1, 3]);
        let correction = Array::from_slice(&[0.0f32, -5.0, 5.0], &[3]);
        let routing = Routing::new(2, Score::Sigmoid);
        let choice = table(&cpu(&routing, &logits, Some(&correction)).unwrap());
        assert_eq!(choice[0].keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert!((choice[0][&2] - 1.0 / (1.0 + 9f32.exp())).abs() < 1e-7);
    }
}
