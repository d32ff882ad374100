//! Long short-term memory (doi 10.1162/neco.1997.9.8.1735) in layers, a token at a time.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::weight::Weight;

use crate::checkpoint::cursor::Cursor;

/// Layers of long short-term memory, of equal sizes.
pub struct Lstm {
    layers: Vec<Layer>,
}

/// Hidden states and cells [1, 1, size] of all layers after some tokens.
#[derive(Clone)]
pub struct LstmState(Vec<[Array; 2]>);

impl Lstm {
    /// Loads `count` layers `0`, `1` and so on of `w`, each of `size` elements.
    pub fn load(w: &mut Cursor, count: usize, size: usize) -> mlxk_core::Result<Lstm> {
        let layers = (0..count).map(|i| Layer::load(&mut w.at(&i.to_string()), size));
        Ok(Lstm { layers: layers.collect::<mlxk_core::Result<_>>()? })
    }

    /// Output [1, 1, size] for `x` of that shape, which is zeros if absent, and the state after it;
    /// `state` is the one before it, zeros if absent.
    pub fn forward(
        &self,
        x: Option<&Array>,
        state: Option<&LstmState>,
    ) -> Result<(Array, LstmState)> {
        let mut next: Vec<[Array; 2]> = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let x = next.last().map(|[hidden, _]| hidden).or(x);
            next.push(layer.forward(x, state.and_then(|state| state.0.get(i)))?);
        }
        let last = next.last().map(|[hidden, _]| hidden.clone());
        Ok((last.ok_or("an LSTM without layers")?, LstmState(next)))
    }
}

/// Layer. Its weights, small and used for each token, are never quantised.
struct Layer {
    /// Weight of the input, [4 * size, size].
    of_input: Weight,
    /// Weight of the hidden state, [4 * size, size].
    of_hidden: Weight,
    /// Bias, [1, 1, 4 * size].
    bias: Array,
    ops: &'static dyn Ops,
}

impl Layer {
    fn load(w: &mut Cursor, size: usize) -> mlxk_core::Result<Layer> {
        let bias = w.floats("bias", &[4 * size])?;
        let bias = bias.reshape(&[1, 1, -1]).map_err(mlxk_tensor::mlx::failed)?;
        Ok(Layer {
            of_input: Weight::Dense(w.stored("Wx", &[4 * size, size])?),
            of_hidden: Weight::Dense(w.stored("Wh", &[4 * size, size])?),
            bias,
            ops: w.ops(),
        })
    }

    /// Hidden state and cell after `x`.
    fn forward(&self, x: Option<&Array>, state: Option<&[Array; 2]>) -> Result<[Array; 2]> {
        let mut gates = self.bias.clone();
        let hidden = state.map(|[hidden, _]| hidden);
        for (weight, input) in [(&self.of_input, x), (&self.of_hidden, hidden)] {
            if let Some(input) = input {
                gates = self.ops.add(&gates, &self.ops.linear(weight, input)?)?;
            }
        }
        self.ops.lstm(&gates, state.map(|[_, cell]| cell))
    }
}
