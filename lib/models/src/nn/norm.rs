//! Normalisation of the last axis.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::stack;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::NormParams;

use crate::checkpoint::cursor::Cursor;

/// What a model's norms are like.
#[derive(Clone, Copy, Debug)]
pub struct NormArch {
    /// What they do.
    pub kind: NormKind,
    /// What is added to the mean square.
    pub eps: f32,
}

/// What a norm does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormKind {
    /// Divides by the root of the mean square; a factor for each element.
    Rms,
    /// The same, with factors that are stored less one.
    RmsLessOne,
    /// The same, without factors.
    Bare,
    /// Takes the mean away first; factors, and summands if the checkpoint has them.
    Layer,
    /// The same, with factors that are stored less one.
    LayerLessOne,
    /// The same, without factors and summands.
    LayerBare,
}

impl NormKind {
    /// Whether the mean is taken away.
    fn centred(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::LayerLessOne | NormKind::LayerBare)
    }
}

/// A norm; it knows its place in the checkpoint no more.
pub struct Norm {
    scale: NormParams,
    ops: &'static dyn Ops,
}

impl NormArch {
    /// The norm `name` of `w` over `size` elements.
    pub fn load(self, w: &mut Cursor, name: &str, size: usize) -> mlxk_core::Result<Norm> {
        self.shaped(w, name, &[size])
    }

    /// The norm `name` of queries or keys, `heads` of `size` elements: of each head with factors for
    /// all or with its own, or of all heads as one. `None` if the checkpoint has no such norm.
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
        Ok(Norm { scale: self.scale(weight, bias), ops })
    }

    /// A norm for each head, each a tensor of its own.
    fn listed(self, w: &mut Cursor, heads: usize, size: usize) -> mlxk_core::Result<Norm> {
        let factors = (0..heads).map(|i| w.floats(&format!("{i}.weight"), &[size]));
        let factors = factors.collect::<mlxk_core::Result<Vec<Array>>>()?;
        let weight = stack(&factors, 0).map_err(mlx::failed)?;
        Ok(Norm { scale: self.scale(Some(weight), None), ops: w.ops() })
    }

    fn scale(self, weight: Option<Array>, bias: Option<Array>) -> NormParams {
        NormParams { weight, bias, eps: self.eps, centred: self.kind.centred() }
    }
}

impl Norm {
    /// The norms of queries and keys with the factors of both on queries, which leaves products of the
    /// two as they are: keys then fit layers whose factors differ.
    pub fn on_queries(queries: Norm, keys: Norm) -> Result<[Norm; 2]> {
        let Norm { scale: NormParams { weight, bias, eps, centred }, ops } = keys;
        let factors = match (queries.scale.weight, weight) {
            (Some(queries), Some(keys)) => Some(queries.multiply(keys)?),
            (queries, keys) => queries.or(keys),
        };
        let queries = Norm { scale: NormParams { weight: factors, ..queries.scale }, ..queries };
        Ok([queries, Norm { scale: NormParams { weight: None, bias, eps, centred }, ops }])
    }

    /// Normalises the last axis, whatever the others.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        self.ops.norm(x, &self.scale)
    }

    /// Whether it norms `size` elements at once.
    pub fn spans(&self, size: i32) -> bool {
        self.scale.weight.as_ref().is_some_and(|weight| weight.shape() == [size])
    }

    /// What it multiplies with, and how.
    pub fn scale(&self) -> &NormParams {
        &self.scale
    }
}
