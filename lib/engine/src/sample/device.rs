//! Sampling on the device, for all sequences of a step at once: nothing waits until [`Sampled::read`].

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::ops::{arange, argsort_axis, concatenate, select};
use mlx_rs::{Array, Dtype};
use mlxk_processor::{Sampling, Token};
use mlxk_tensor::mlx;
use mlxk_tensor::quantized::call;

use super::{Draw, SPREAD, STIRS, dry};

const NEVER: f32 = f32::NEG_INFINITY;

/// Tokens sampled for several sequences, which may not be computed yet.
pub struct Sampled {
    /// Token ids [rows, 1], uint32.
    pub ids: Array,
    /// Log probabilities of the tokens [rows, 1], and ids and log probabilities of the most likely ones
    /// [rows, most].
    top_logprobs: Option<[Array; 3]>,
}

/// Samples by `logits` [rows, vocabulary], a row for each of `draws`. The tokens `unread` [rows, 1]
/// follow those that the draws know.
///
/// # Errors
/// If MLX fails.
pub fn choose(logits: &Array, draws: &[Draw], unread: Option<&Array>) -> Result<Sampled> {
    let mut logits = logits.as_dtype(Dtype::Float32)?;
    let biases = draws.iter().map(|draw| draw.sampling.logit_bias.clone()).collect();
    logits = add(logits, biases)?;
    if draws.iter().any(|draw| draw.sampling.penalises()) {
        logits = penalise(&logits, draws, unread)?;
    }
    let repeated = |draw: &Draw| {
        let penalties = dry::penalties(draw.sampling, draw.tokens).into_iter();
        penalties.map(|(id, penalty)| (id, -penalty)).collect()
    };
    logits = add(logits, draws.iter().map(repeated).collect())?;
    if draws.iter().any(|draw| draw.allowed.is_some()) {
        logits = bar(&logits, draws)?;
    }
    let logprobs = match draws.iter().all(|draw| draw.kind() == Kind::Greedy) {
        true => logits.clone(),
        false => logits.subtract(logits.logsumexp_axis(-1, true)?)?,
    };
    let ids = each_kind(&logprobs, draws)?;
    let top_logprobs = match draws.iter().filter_map(|draw| draw.sampling.logprobs).max() {
        Some(most) => Some(most_likely(&logits, &ids, most as i32)?),
        None => None,
    };
    Ok(Sampled { ids, top_logprobs })
}

impl Sampled {
    /// Arrays to compute before [`read`](Self::read).
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        std::iter::once(&self.ids).chain(self.top_logprobs.iter().flatten())
    }

    /// Waits for the tokens; `counts` is the [`Sampling::logprobs`] of each.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn read(&self, counts: impl Iterator<Item = Option<u32>>) -> Result<Vec<Token>> {
        let top_logprobs = self.top_logprobs.as_ref();
        let top_logprobs = top_logprobs.map(|[own, ids, top]| {
            Ok::<_, mlx_rs::error::Exception>((floats(own)?, whole(ids)?, floats(top)?))
        });
        let top_logprobs = top_logprobs.transpose()?;
        let token = |(row, (id, count)): (usize, (u32, Option<u32>))| {
            let Some(((own, ids, top), count)) = top_logprobs.as_ref().zip(count) else {
                return Token::new(id);
            };
            let most = ids.len() / own.len();
            let top = ids.iter().copied().zip(top.iter().copied()).skip(row * most);
            let top = top.take(count as usize).filter(|(_, logprob)| *logprob > NEVER);
            Token { id, logprob: Some(own[row]), top: top.collect() }
        };
        Ok(whole(&self.ids)?.into_iter().zip(counts).enumerate().map(token).collect())
    }
}

/// Kind of a draw, by the work that it takes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Greedy,
    Filtered,
    Plain,
}

impl Draw<'_> {
    fn kind(&self) -> Kind {
        match self.sampling {
            Sampling { temperature: 0.0, .. } => Kind::Greedy,
            sampling if sampling.filters() => Kind::Filtered,
            _ => Kind::Plain,
        }
    }
}

/// Draws for the sequences of each kind together; what is drawn for one does not depend on the others.
fn each_kind(logprobs: &Array, draws: &[Draw]) -> Result<Array> {
    type Choose = fn(&Array, &[&Draw]) -> Result<Array>;
    let kinds: [(Kind, Choose); 3] = [
        (Kind::Greedy, |logprobs, _| argmax_axis(logprobs, -1, true)),
        (Kind::Filtered, filtered),
        (Kind::Plain, plain),
    ];
    let mut chosen = Vec::new();
    let mut rows = Vec::new();
    for (kind, choose) in kinds {
        let own = |&n: &i32| draws[n as usize].kind() == kind;
        let own: Vec<i32> = (0..draws.len() as i32).filter(own).collect();
        let draws: Vec<&Draw> = own.iter().map(|&n| &draws[n as usize]).collect();
        if own.len() as i32 == logprobs.dim(0) {
            return choose(logprobs, &draws)?.as_dtype(Dtype::Uint32);
        }
        if !own.is_empty() {
            let logprobs = logprobs.take_axis(Array::from_slice(&own, &[own.len() as i32]), 0)?;
            chosen.push(choose(&logprobs, &draws)?.as_dtype(Dtype::Uint32)?);
            rows.extend(own);
        }
    }
    let mut places: Vec<i32> = (0..rows.len() as i32).collect();
    places.sort_unstable_by_key(|&place| rows[place as usize]);
    let places = Array::from_slice(&places, &[places.len() as i32]);
    concatenate(&chosen, 0)?.take_axis(places, 0)
}

/// Tokens [rows, 1] drawn from all by their probabilities at the temperature.
fn plain(logprobs: &Array, draws: &[&Draw]) -> Result<Array> {
    let ids = arange::<u32, u32>(None, logprobs.dim(-1) as u32, None)?;
    pick(logprobs, &ids, draws)
}

/// Tokens [rows, 1] drawn from those that the filters keep; filters see tokens in the order of their
/// probabilities.
fn filtered(logprobs: &Array, draws: &[&Draw]) -> Result<Array> {
    let order = argsort_axis(logprobs.negative()?, -1)?;
    let sorted = logprobs.take_along_axis(&order, -1)?;
    let none = Array::from_f32(NEVER);
    let (mut keep, total) = pool(&sorted, draws)?;
    let share = column(draws, |draw| draw.sampling.nucleus().unwrap_or(f32::INFINITY));
    let weights = select(&keep, sorted.exp()?, Array::from_f32(0.0))?;
    let before = weights.cumsum(-1, None, false)?;
    let best = select(&keep, &sorted, &none)?.max_axis(-1, true)?;
    let least = best.add(column(draws, |draw| draw.sampling.min_p.ln()))?;
    let narrow = before.lt(share.multiply(total)?)?.logical_and(sorted.ge(least)?)?;
    keep = keep.logical_and(narrow)?;
    if draws.iter().any(|draw| draw.drops()) {
        keep = exclude_top_choices(&sorted, &order, &keep, draws)?;
    }
    if draws.iter().any(|draw| draw.sampling.top_k > 0) {
        let most = column(draws, |draw| match draw.sampling.top_k {
            0 => f32::INFINITY,
            k => k as f32,
        });
        let rank = keep.as_dtype(Dtype::Float32)?.cumsum(-1, None, None)?;
        keep = keep.logical_and(rank.le(most)?)?;
    }
    let kept = select(&keep, &sorted, &none)?;
    let place = pick(&kept, &order, draws)?;
    order.take_along_axis(place, -1)
}

/// Tokens [rows, vocabulary] that top-n-sigma and typical-p keep of those `sorted` by their logarithms,
/// and the sum [rows, 1] of their probabilities: 1 for sequences that have neither filter.
fn pool(sorted: &Array, draws: &[&Draw]) -> Result<(Array, Array)> {
    let mut keep = sorted.gt(Array::from_f32(NEVER))?;
    let sigma = draws.iter().any(|draw| draw.sampling.sigma().is_some());
    let typical = draws.iter().any(|draw| draw.sampling.typical().is_some());
    if !sigma && !typical {
        return Ok((keep, Array::from_f32(1.0)));
    }
    if sigma {
        keep = within_deviations(sorted, &keep, draws)?;
    }
    if typical {
        keep = typical_tokens(sorted, &keep, draws)?;
    }
    let total = sum_of(&keep, &sorted.exp()?)?;
    let pools = column(draws, |draw| {
        let pools = draw.sampling.sigma().is_some() || draw.sampling.typical().is_some();
        f32::from(u8::from(pools))
    });
    let total = select(pools.gt(Array::from_f32(0.0))?, total, Array::from_f32(1.0))?;
    Ok((keep, total))
}

/// Tokens of `keep` [rows, vocabulary] that top-n-sigma keeps.
fn within_deviations(sorted: &Array, keep: &Array, draws: &[&Draw]) -> Result<Array> {
    let none = Array::from_f32(0.0);
    let count = keep.as_dtype(Dtype::Float32)?.sum_axis(-1, true)?;
    let mean = sum_of(keep, sorted)?.divide(&count)?;
    let off = select(keep, sorted.subtract(mean)?, &none)?;
    let deviation = off.multiply(&off)?.sum_axis(-1, true)?.divide(count)?.sqrt()?;
    let deviations = column(draws, |draw| draw.sampling.sigma().unwrap_or(0.0));
    let least = mlx::columns(sorted, 0..1)?.subtract(deviation.multiply(&deviations)?)?;
    let least = select(deviations.gt(none)?, least, Array::from_f32(NEVER))?;
    keep.logical_and(sorted.ge(least)?)
}

/// Tokens of `keep` [rows, vocabulary] that typical-p keeps.
fn typical_tokens(sorted: &Array, keep: &Array, draws: &[&Draw]) -> Result<Array> {
    let total = sum_of(keep, &sorted.exp()?)?;
    let logprobs = sorted.subtract(total.log()?)?;
    let shares = select(keep, logprobs.exp()?, Array::from_f32(0.0))?;
    let entropy = sum_of(keep, &shares.multiply(&logprobs)?)?.negative()?;
    let far = logprobs.add(entropy)?.abs()?;
    let far = select(keep, far, Array::from_f32(f32::INFINITY))?;
    let order = argsort_axis(far, -1)?;
    let before = shares.take_along_axis(&order, -1)?.cumsum(-1, None, false)?;
    let mass = column(draws, |draw| draw.sampling.typical().unwrap_or(f32::INFINITY));
    let near = before.le(mass)?.as_dtype(Dtype::Float32)?;
    let near = shares.put_along_axis(order, near, -1)?;
    keep.logical_and(near.gt(Array::from_f32(0.0))?)
}

/// Sums [rows, 1] of the `values` of the tokens that are kept.
fn sum_of(keep: &Array, values: &Array) -> Result<Array> {
    select(keep, values, Array::from_f32(0.0))?.sum_axis(-1, true)
}

/// XTC: drops the most likely of the tokens above a threshold, all but the last of them.
fn exclude_top_choices(
    sorted: &Array,
    order: &Array,
    keep: &Array,
    draws: &[&Draw],
) -> Result<Array> {
    let weights = select(keep, sorted.exp()?, Array::from_f32(0.0))?;
    let shares = weights.divide(weights.sum_axis(-1, true)?)?;
    let threshold = column(draws, |draw| match draw.drops() {
        true => draw.sampling.xtc_threshold,
        false => f32::INFINITY,
    });
    let above = select(shares.gt(threshold)?, sorted, Array::from_f32(f32::INFINITY))?;
    let mut stay = sorted.le(above.min_axis(-1, true)?)?;
    let most = draws.iter().map(|draw| draw.sampling.xtc_spared.len()).max().unwrap_or(0);
    for n in 0..most {
        // No token has the number -1.
        let spared = |draw: &&Draw| draw.sampling.xtc_spared.get(n).map_or(-1, |&id| id as i32);
        let spared: Vec<i32> = draws.iter().map(spared).collect();
        let spared = Array::from_slice(&spared, &[draws.len() as i32, 1]);
        stay = stay.logical_or(order.as_dtype(Dtype::Int32)?.eq(spared)?)?;
    }
    keep.logical_and(stay)
}

/// Column [rows, 1] of the token that is drawn from `ids` [.., count] by their logarithms
/// [rows, count].
fn pick(logarithms: &Array, ids: &Array, draws: &[&Draw]) -> Result<Array> {
    let most = logarithms.max_axis(-1, true)?;
    let temperature = column(draws, |draw| draw.sampling.temperature);
    let scores = logarithms.subtract(most)?.divide(temperature)?.add(noise(ids, draws)?)?;
    argmax_axis(scores, -1, true)
}

/// [`Draw::noise`] of the tokens `ids` [.., count] for each sequence, [rows, count].
fn noise(ids: &Array, draws: &[&Draw]) -> Result<Array> {
    let number = |n: u32| Array::from_slice(&[n], &[1]);
    let keys: Vec<u32> = draws.iter().map(|draw| draw.key()).collect();
    let keys = Array::from_slice(&keys, &[draws.len() as i32, 1]);
    let ids = ids.as_dtype(Dtype::Uint32)?;
    let mut bits = ids.multiply(number(SPREAD))?.add(keys)?;
    for (shift, factor) in STIRS {
        bits = xor(&bits, &shifted(&bits, shift)?)?.multiply(number(factor))?;
    }
    let bits = xor(&bits, &shifted(&bits, 16)?)?;
    let bits = shifted(&bits, 9)?.as_dtype(Dtype::Float32)?;
    let half = Array::from_f32(0.5);
    let unit = bits.add(half)?.divide(Array::from_f32((1 << 23) as f32))?;
    unit.log()?.negative()?.log()?.negative()
}

fn xor(a: &Array, b: &Array) -> Result<Array> {
    call("bitwise_xor", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe { mlx_sys::mlx_bitwise_xor(result, a.as_ptr(), b.as_ptr(), stream) }
    })
}

/// `bits >> shift`.
fn shifted(bits: &Array, shift: u32) -> Result<Array> {
    let shift = Array::from_slice(&[shift], &[1]);
    call("right_shift", |result, stream| {
        // SAFETY: as above.
        unsafe { mlx_sys::mlx_right_shift(result, bits.as_ptr(), shift.as_ptr(), stream) }
    })
}

/// Column [rows, 1] of a number of each draw.
fn column(draws: &[&Draw], number: impl Fn(&Draw) -> f32) -> Array {
    let numbers: Vec<f32> = draws.iter().map(|draw| number(draw)).collect();
    Array::from_slice(&numbers, &[draws.len() as i32, 1])
}

/// Logits with `changes` added: for each row, pairs of a token and a number, each token once.
fn add(logits: Array, changes: Vec<Vec<(u32, f32)>>) -> Result<Array> {
    let most = changes.iter().map(Vec::len).max().unwrap_or(0);
    if most == 0 {
        return Ok(logits);
    }
    let known = |&(id, _): &(u32, f32)| (id as i32) < logits.dim(-1);
    let shape = [changes.len() as i32, most as i32];
    let (mut ids, mut added) = (Vec::new(), Vec::new());
    for changes in changes {
        let all: Vec<(u32, f32)> = changes.into_iter().filter(known).collect();
        // The same change twice is written twice, not added twice.
        let filler = all.first().copied().unwrap_or((0, 0.0));
        let padded = all.into_iter().chain(std::iter::repeat(filler)).take(most);
        padded.for_each(|(id, change)| {
            ids.push(id);
            added.push(change);
        });
    }
    let (ids, added) = (Array::from_slice(&ids, &shape), Array::from_slice(&added, &shape));
    let changed = logits.take_along_axis(&ids, -1)?.add(added)?;
    logits.put_along_axis(ids, changed, -1)
}

/// Logits with the penalties of recent tokens, by their counts.
fn penalise(logits: &Array, draws: &[Draw], unread: Option<&Array>) -> Result<Array> {
    let (ids, counted) = recent(draws, unread)?;
    let rows: Vec<&Draw> = draws.iter().collect();
    let [repetition, presence, frequency] = [
        column(&rows, |draw| draw.sampling.repetition_penalty),
        column(&rows, |draw| draw.sampling.presence_penalty),
        column(&rows, |draw| draw.sampling.frequency_penalty),
    ];
    let same = ids.expand_dims(2)?.eq(ids.expand_dims(1)?)?.as_dtype(Dtype::Float32)?;
    let often = same.multiply(counted.expand_dims(1)?)?.sum_axis(-1, false)?;
    let own = logits.take_along_axis(&ids, -1)?;
    let below = own.lt(Array::from_f32(0.0))?;
    let own = select(below, own.multiply(&repetition)?, own.divide(&repetition)?)?;
    let own = own.subtract(presence)?.subtract(often.multiply(frequency)?)?;
    logits.put_along_axis(ids, own, -1)
}

/// Recent tokens [rows, most] and their weights: 0 for those that pad a row, which repeat its last
/// one.
fn recent(draws: &[Draw], unread: Option<&Array>) -> Result<(Array, Array)> {
    let own = |draw: &Draw| {
        let context = draw.sampling.penalty_context as usize - usize::from(unread.is_some());
        draw.recent[draw.recent.len().saturating_sub(context)..].to_vec()
    };
    let own: Vec<Vec<u32>> = draws.iter().map(own).collect();
    let most = own.iter().map(Vec::len).max().unwrap_or(0);
    let (mut ids, mut counted) = (Vec::new(), Vec::new());
    for own in own {
        let missing = most - own.len();
        let filler = own.last().copied().unwrap_or_default();
        counted.extend(std::iter::repeat_n(0.0f32, missing).chain(own.iter().map(|_| 1.0)));
        ids.extend(std::iter::repeat_n(filler, missing).chain(own));
    }
    let shape = [draws.len() as i32, most as i32];
    let (ids, counted) = (Array::from_slice(&ids, &shape), Array::from_slice(&counted, &shape));
    let Some(unread) = unread else {
        return Ok((ids, counted));
    };
    let one = Array::ones::<f32>(&[draws.len() as i32, 1])?;
    let ids = select(counted.gt(Array::from_f32(0.0))?, ids, unread)?;
    Ok((concatenate(&[&ids, unread], -1)?, concatenate(&[counted, one], -1)?))
}

/// Leaves only the tokens that may come.
fn bar(logits: &Array, draws: &[Draw]) -> Result<Array> {
    let words = (logits.dim(-1) as usize).div_ceil(32);
    let allowed = |draw: &Draw| match &draw.allowed {
        None => vec![u32::MAX; words],
        Some(allowed) => allowed.iter().copied().chain(std::iter::repeat(0)).take(words).collect(),
    };
    let masks: Vec<u32> = draws.iter().flat_map(allowed).collect();
    let rows = draws.len() as i32;
    let masks = Array::from_slice(&masks, &[rows, words as i32, 1]);
    let powers: Vec<u32> = (0..32).map(|bit| 1 << bit).collect();
    let shifted = masks.floor_divide(Array::from_slice(&powers, &[32]))?.reshape(&[rows, -1])?;
    let bits =
        mlx::columns(&shifted, 0..logits.dim(-1))?.remainder(Array::from_slice(&[2u32], &[1]))?;
    let may = bits.gt(Array::from_slice(&[0u32], &[1]))?;
    select(may, logits, Array::from_f32(NEVER))
}

/// The logarithms of the probabilities of `ids` and of the `most` likely tokens.
fn most_likely(logits: &Array, ids: &Array, most: i32) -> Result<[Array; 3]> {
    let logprobs = logits.subtract(logits.logsumexp_axis(-1, true)?)?;
    let most = most.min(logits.dim(-1));
    let order = argsort_axis(logprobs.negative()?, -1)?;
    // Rows of what was cut out do not follow one another.
    let top = mlx::columns(&order, 0..most)?.as_dtype(Dtype::Uint32)?.contiguous()?;
    let values = logprobs.take_along_axis(&top, -1)?;
    Ok([logprobs.take_along_axis(ids, -1)?, top, values])
}

fn whole(array: &Array) -> Result<Vec<u32>> {
    array.to_vec_exact().map_err(|e| e.to_string().as_str().into())
}

fn floats(array: &Array) -> Result<Vec<f32>> {
    array.to_vec_exact().map_err(|e| e.to_string().as_str().into())
}
