//! Linear layers and embeddings.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::clip;
use mlxk_tensor::collective::all_sum;

use super::lora::Lora;
use super::matrix::Matrix;
use crate::checkpoint::cursor::Cursor;

/// Linear layer `x W.T + b`, with a bias and ranges of inputs and outputs if the checkpoint has them,
/// and with the LoRA of an adapter.
pub struct Linear {
    weight: Matrix,
    bias: Option<Array>,
    lora: Option<Lora>,
    /// True if other ranks have the other columns of the weight, so that outputs are summed over
    /// ranks.
    partial: bool,
    ranges: Option<Box<Ranges>>,
}

/// Least and largest values of the inputs and the outputs of a layer, beyond which they are clipped.
struct Ranges {
    input: Option<[Array; 2]>,
    output: Option<[Array; 2]>,
}

impl Linear {
    /// Loads the layer `name` of `w`, from `ins` to `outs` elements. A layer with ranges has them
    /// beside the layer itself, `linear`, as Gemma 4's towers do.
    pub fn load(w: &mut Cursor, name: &str, outs: usize, ins: usize) -> mlxk_core::Result<Linear> {
        let mut w = w.at(name);
        let ranges = Ranges::load(&mut w)?;
        let mut inner;
        let w = match w.has("linear.weight") {
            true => {
                inner = w.at("linear");
                &mut inner
            }
            false => &mut w,
        };
        let bias = w.optional("bias", &[outs])?;
        let weight = Matrix::load(w, outs, ins)?;
        let lora = Lora::load(w, &weight, outs, ins)?;
        let partial = w.partial();
        Ok(Linear { weight, bias, lora, partial, ranges })
    }

    /// Output [.., outs] for `x` [.., ins].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let [input, output] = self
            .ranges
            .as_ref()
            .map_or([None, None], |ranges| [ranges.input.as_ref(), ranges.output.as_ref()]);
        let clipped = input.map(|[least, most]| clip(x, (least, most))).transpose()?;
        let x = clipped.as_ref().unwrap_or(x);
        let y = self.weight.times(x)?;
        let y = match &self.lora {
            Some(lora) => lora.add(x, &y)?,
            None => y,
        };
        let y = match &self.bias {
            Some(bias) => y.add(bias)?,
            None => y,
        };
        let y = match output {
            Some([least, most]) => clip(&y, (least, most))?,
            None => y,
        };
        if self.partial { all_sum(&y) } else { Ok(y) }
    }
}

impl Ranges {
    /// Ranges of the layer at `w`; `None` if neither inputs nor outputs are bounded.
    fn load(w: &mut Cursor) -> mlxk_core::Result<Option<Box<Ranges>>> {
        let mut range = |side: &str| {
            let mut bound = |end| w.optional(&format!("{side}_{end}"), &[]);
            Ok(bound("min")?.zip(bound("max")?).map(|(least, most)| [least, most]))
        };
        let ranges = Ranges { input: range("input")?, output: range("output")? };
        let bounded = ranges.input.is_some() || ranges.output.is_some();
        Ok(bounded.then(|| Box::new(ranges)))
    }
}

/// Token embedding.
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// Loads the layer `name` of `w`: `count` vectors of `size` elements.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        count: usize,
        size: usize,
    ) -> mlxk_core::Result<Embedding> {
        Ok(Embedding { weight: Matrix::load(&mut w.at(name), count, size)? })
    }

    /// Vectors [1, length, size] of `ids` [1, length].
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        self.weight.rows(ids)
    }

    /// Products of `x` with all vectors, which is the head of a model with tied embeddings.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.times(x)
    }
}
