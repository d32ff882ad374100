//! Experts of a mixture of experts: feed-forward layers, of which each row is routed to a few.

use std::collections::BTreeMap;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::argsort;
use rayon::prelude::*;

use super::activation::Activation;
use super::expert_stack::{ExpertStack, ExpertView};
use super::moe_route::ExpertChoice;
use crate::array::elements;

/// Pairs of a row and an expert from which a GPU is faster if they are sorted by expert.
const SORTED: usize = 64;

/// Feed-forward layers of all experts.
pub struct Experts {
    /// Gate projections [experts, inner, hidden]; `None` if the experts are not gated.
    pub gate_proj: Option<ExpertStack>,
    /// Up projections, [experts, inner, hidden].
    pub up_proj: ExpertStack,
    /// Down projections, [experts, hidden, inner].
    pub down_proj: ExpertStack,
    /// Activation of the gate, or of the up projection if there is no gate.
    pub activation: Activation,
    /// True if routing weights multiply the inputs of experts instead of their outputs.
    pub before: bool,
}

impl Experts {
    /// Views of the weights in memory.
    fn views(&self) -> Result<ExpertsView<'_>> {
        Ok(ExpertsView {
            gate_proj: self.gate_proj.as_ref().map(ExpertStack::view).transpose()?,
            up_proj: self.up_proj.view()?,
            down_proj: self.down_proj.view()?,
            activation: self.activation,
        })
    }
}

/// Weighted sum of the chosen experts, in MLX.
pub fn mlx(experts: &Experts, x: &Array, choice: &ExpertChoice) -> Result<Array> {
    let ExpertChoice { ids, weights } = choice;
    let (rows, chosen, hidden) = (ids.dim(0), ids.dim(1), x.dim(-1));
    let weights = weights.expand_dims_axes(&[-1, -2])?.as_dtype(x.dtype())?;
    let mut inputs = x.reshape(&[rows, 1, 1, hidden])?;
    if experts.before {
        inputs = inputs.multiply(&weights)?;
    }
    let run = |x: &Array, ids: &Array, sorted| {
        let up = experts.up_proj.gather(x, ids, sorted)?;
        let inner = match &experts.gate_proj {
            Some(gate) => experts.activation.glu(&gate.gather(x, ids, sorted)?, &up)?,
            None => experts.activation.apply(&up)?,
        };
        experts.down_proj.gather(&inner, ids, sorted)
    };
    let y = if ((rows * chosen) as usize) < SORTED {
        run(&inputs, ids, false)?
    } else {
        let ids = ids.flatten(None, None)?;
        let order = argsort(&ids)?;
        let each = inputs.dim(1);
        let inputs = inputs.reshape(&[-1, 1, hidden])?;
        let source = order.floor_divide(Array::from_int(chosen / each))?;
        let y = run(&inputs.take_axis(source, 0)?, &ids.take_axis(&order, 0)?, true)?;
        y.take_axis(argsort(order)?, 0)?.reshape(&[rows, chosen, 1, hidden])?
    };
    let y = if experts.before { y } else { y.multiply(weights)? };
    y.sum_axis(1, false)?.reshape(x.shape())
}

/// Weighted sum of the chosen experts, on the CPU: each expert multiplies all its rows together,
/// and experts run in parallel.
pub fn cpu(experts: &Experts, x: &Array, choice: &ExpertChoice) -> Result<Array> {
    let hidden = x.dim(-1) as usize;
    let (views, inputs, before) = (experts.views()?, elements(x)?, experts.before);
    let mut y = vec![0.0; inputs.len()];
    let outputs: Vec<(Vec<Routed>, Vec<f32>)> = by_expert(experts, choice)?
        .into_par_iter()
        .map(|(expert, routed)| {
            let input = |routed: &Routed| {
                let factor = if before { routed.weight } else { 1.0 };
                inputs[routed.row * hidden..][..hidden].iter().map(move |x| x * factor)
            };
            let inputs: Vec<f32> = routed.iter().flat_map(input).collect();
            let outputs = views.forward(expert, &inputs);
            (routed, outputs)
        })
        .collect();
    for (routed, outputs) in &outputs {
        for (routed, output) in routed.iter().zip(outputs.chunks_exact(hidden)) {
            let factor = if before { 1.0 } else { routed.weight };
            let y = &mut y[routed.row * hidden..][..hidden];
            y.iter_mut().zip(output).for_each(|(y, output)| *y += factor * output);
        }
    }
    Ok(Array::from_slice(&y, x.shape()))
}

/// Row that is routed to an expert, with its weight.
struct Routed {
    row: usize,
    weight: f32,
}

/// Rows of each chosen expert, by expert. Errors if an id is not below the number of experts.
fn by_expert(experts: &Experts, choice: &ExpertChoice) -> Result<Vec<(usize, Vec<Routed>)>> {
    let chosen = choice.ids.dim(1) as usize;
    let ids: &[u32] = choice.ids.try_as_slice().map_err(|e| Exception::custom(e.to_string()))?;
    let mut all: BTreeMap<usize, Vec<Routed>> = BTreeMap::new();
    for (n, (&id, &weight)) in ids.iter().zip(elements(&choice.weights)?).enumerate() {
        if id as usize >= experts.up_proj.count() {
            return Err(Exception::custom(format!("there is no expert {id}")));
        }
        all.entry(id as usize).or_default().push(Routed { row: n / chosen, weight });
    }
    Ok(all.into_iter().collect())
}

/// Weights of all experts in memory.
struct ExpertsView<'a> {
    gate_proj: Option<ExpertView<'a>>,
    up_proj: ExpertView<'a>,
    down_proj: ExpertView<'a>,
    activation: Activation,
}

impl ExpertsView<'_> {
    /// Output of one expert for `x` [rows, hidden].
    fn forward(&self, expert: usize, x: &[f32]) -> Vec<f32> {
        let mut inner = self.up_proj.times(expert, x);
        match &self.gate_proj {
            Some(gate) => {
                for (up, gate) in inner.iter_mut().zip(gate.times(expert, x)) {
                    *up = self.activation.glu_of(gate, *up);
                }
            }
            None => inner.iter_mut().for_each(|up| *up = self.activation.of(*up)),
        }
        self.down_proj.times(expert, &inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlxk_core::quantization::Mode;

    use super::*;
    use crate::weight::Quantized;

    const COUNT: i32 = 5;

    fn some(shape: &[i32]) -> Array {
        crate::mlx::noise(shape, 7)
    }

    fn integers(shape: &[i32], below: u32) -> Vec<u32> {
        let word = |n: i32| (n as u32 + 1).wrapping_mul(2_654_435_761).rotate_left(13) % below;
        (0..shape.iter().product()).map(word).collect()
    }

    fn dense(outs: i32, ins: i32) -> ExpertStack {
        let weight = some(&[COUNT, outs, ins]);
        ExpertStack::plain(weight, Some(some(&[COUNT, outs])))
    }

    /// Experts with random 4-bit codes and small scales.
    fn packed(mode: Mode, outs: i32, ins: i32) -> ExpertStack {
        let group_size = mode.supported().next().unwrap().1 as i32;
        let [codes, groups] = [[COUNT, outs, ins / 8], [COUNT, outs, ins / group_size]];
        let scales: Vec<u8> = integers(&groups, 8).iter().map(|n| *n as u8).collect();
        let scales = match mode {
            Mode::Affine => some(&groups),
            Mode::Nvfp4 => Array::from_slice(&scales, &groups),
            _ => Array::from_slice(&scales.iter().map(|n| n + 117).collect::<Vec<u8>>(), &groups),
        };
        ExpertStack::packed(Quantized {
            weight: Array::from_slice(&integers(&codes, u32::MAX), &codes),
            scales,
            biases: (mode == Mode::Affine).then(|| some(&groups)),
            group_size,
            bits: 4,
            mode,
        })
    }

    #[track_caller]
    fn both_ways_agree(experts: &Experts) {
        for rows in [1, 3, 40] {
            let x = some(&[1, rows, 64]);
            // Two different experts a row.
            let first = integers(&[rows], COUNT as u32);
            let ids: Vec<u32> = first.iter().flat_map(|&n| [n, (n + 2) % COUNT as u32]).collect();
            let ids = Array::from_slice(&ids, &[rows, 2]);
            let choice = ExpertChoice { ids, weights: some(&[rows, 2]).abs().unwrap() };
            let ours = cpu(experts, &x, &choice).unwrap();
            let theirs = mlx(experts, &x, &choice).unwrap();
            assert_eq!((ours.shape(), ours.dtype()), (theirs.shape(), theirs.dtype()));
            let most = |x: Array| x.abs().unwrap().max(None).unwrap().item_exact::<f32>();
            let largest = most(theirs.clone());
            let apart = most(ours.subtract(theirs).unwrap());
            assert!(apart <= 1e-5 * largest, "{rows} rows: {apart} apart, {largest} large");
        }
    }

    #[test]
    fn both_ways_give_the_same_for_every_kind_of_weights() {
        let make = |make: &dyn Fn(i32, i32) -> ExpertStack, before| Experts {
            gate_proj: Some(make(96, 64)),
            up_proj: make(96, 64),
            down_proj: make(64, 96),
            activation: Activation::Silu,
            before,
        };
        both_ways_agree(&make(&dense, false));
        both_ways_agree(&make(&dense, true));
        both_ways_agree(&Experts { gate_proj: None, ..make(&dense, false) });
        for mode in [Mode::Affine, Mode::Mxfp4, Mode::Nvfp4] {
            both_ways_agree(&make(&|outs, ins| packed(mode, outs, ins), false));
        }
    }

    #[test]
    fn an_expert_that_is_not_there_is_an_error() {
        let [gate_proj, up_proj, down_proj] = [dense(96, 64), dense(96, 64), dense(64, 96)];
        let (activation, before) = (Activation::Silu, false);
        let gate_proj = Some(gate_proj);
        let experts = Experts { gate_proj, up_proj, down_proj, activation, before };
        let ids = Array::from_slice(&[COUNT as u32], &[1, 1]);
        let choice = ExpertChoice { ids, weights: Array::ones::<f32>(&[1, 1]).unwrap() };
        assert!(cpu(&experts, &some(&[1, 1, 64]), &choice).is_err());
    }
}
