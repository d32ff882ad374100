//! Norms over the last axis.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::stack;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::NormParams;

use crate::checkpoint::cursor::Cursor;

/// Kind and epsilon of a model's norms.
#[derive(Clone, Copy, Debug)]
pub struct NormArch {
    /// Kind of norm.
    pub kind: NormKind,
    /// Epsilon, added to the mean square.
    pub eps: f32,
}

/// Kind of norm, and form of its stored weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// RMS norm with weights.
    Rms,
    /// RMS norm whose stored weights are less than the true ones by one.
    RmsLessOne,
    /// RMS norm without weights.
    Bare,
    /// Layer norm with weights, and biases if the checkpoint has them.
    Layer,
    /// Layer norm whose stored weights are less than the true ones by one.
    LayerLessOne,
    /// Layer norm without weights and biases.
    LayerBare,
}

impl NormKind {
    /// True if the mean is subtracted (layer norm).
    fn centred(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::LayerLessOne | NormKind::LayerBare)
    }
}

/// Norm with its weights.
pub struct Norm {
    params: NormParams,
    ops: &'static dyn Ops,
}

impl NormArch {
    /// Loads the norm `name` of `w` over `size` elements.
    pub fn load(self, w: &mut Cursor, name: &str, size: usize) -> mlxk_core::Result<Norm> {
        self.shaped(w, name, &[size])
    }

    /// Loads the norm `name` of queries or keys with `heads` heads of `size` elements: over each
    /// head, with weights that heads share or not, or over all heads. `None` if the checkpoint has
    /// no such norm.
    pub fn of_heads(
        self,
        w: &mut Cursor,
        name: &str,
        heads: usize,
        size: usize,
    ) -> mlxk_core::Result<Option<Norm>> {
        if self.kind == NormKind::Bare {
            return self.load(w, name, size).map(Some);
        }
        let mut at = w.at(name);
        if at.has("norms.0.weight") {
            return self.listed(&mut at.at("norms"), heads, size).map(Some);
        }
        if !at.offers("weight") {
            return Ok(None);
        }
        let (shape, _) = at.form("weight")?;
        let shapes = [vec![size], vec![heads * size], vec![heads, size]];
        let shape = shapes.into_iter().find(|known| *known == shape).unwrap_or(vec![size]);
        self.shaped(w, name, &shape).map(Some)
    }

    /// Loads the norm `name` with weights of `shape`.
    fn shaped(self, w: &mut Cursor, name: &str, shape: &[usize]) -> mlxk_core::Result<Norm> {
        let ops = w.ops();
        let mut w = w.at(name);
        let weight = match self.kind {
            NormKind::Rms | NormKind::Layer => Some(w.floats("weight", shape)?),
            NormKind::RmsLessOne | NormKind::LayerLessOne => {
                let weight = w.floats("weight", shape)?;
                let one = mlx::number(1.0, &weight).map_err(mlx::failed)?;
                Some(weight.add(one).map_err(mlx::failed)?)
            }
            NormKind::Bare | NormKind::LayerBare => None,
        };
        let bias = match self.kind {
            NormKind::Layer | NormKind::LayerLessOne => w.optional("bias", shape)?,
            _ => None,
        };
        Ok(Norm { params: self.params(weight, bias), ops })
    }

    /// Loads a norm over each head whose weights are one tensor for each head.
    fn listed(self, w: &mut Cursor, heads: usize, size: usize) -> mlxk_core::Result<Norm> {
        let factors = (0..heads).map(|i| w.floats(&format!("{i}.weight"), &[size]));
        let factors = factors.collect::<mlxk_core::Result<Vec<Array>>>()?;
        let weight = stack(&factors, 0).map_err(mlx::failed)?;
        Ok(Norm { params: self.params(Some(weight), None), ops: w.ops() })
    }

    /// Parameters of the norm operation.
    fn params(self, weight: Option<Array>, bias: Option<Array>) -> NormParams {
        NormParams { weight, bias, eps: self.eps, centred: self.kind.centred() }
    }
}

impl Norm {
    /// Norms of queries and keys whose weights are all applied to queries, which keeps the products
    /// of the two, and makes keys independent of a layer's weights.
    pub fn on_queries(queries: Norm, keys: Norm) -> Result<[Norm; 2]> {
        let Norm { params: NormParams { weight, bias, eps, centred }, ops } = keys;
        let factors = match (queries.params.weight, weight) {
            (Some(queries), Some(keys)) => Some(queries.multiply(keys)?),
            (queries, keys) => queries.or(keys),
        };
        let queries = Norm { params: NormParams { weight: factors, ..queries.params }, ..queries };
        Ok([queries, Norm { params: NormParams { weight: None, bias, eps, centred }, ops }])
    }

    /// Normalises the last axis of `x`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.ops.norm(x, &self.params)
    }

    /// True if the norm is over exactly `size` elements.
    pub fn spans(&self, size: i32) -> bool {
        self.params.weight.as_ref().is_some_and(|weight| weight.shape() == [size])
    }

    /// Parameters of the norm operation.
    pub fn params(&self) -> &NormParams {
        &self.params
    }
}
