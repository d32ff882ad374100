//! The functions that bend vectors between the halves of a feed-forward layer.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{erf, expm1, maximum, minimum, select, sigmoid, tanh};

use crate::cpu::exp;
use crate::mlx;

/// Such a function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x` times the share of a normal distribution below `x` (arXiv 1606.08415).
    Gelu,
    /// Nearly the same by a hyperbolic tangent.
    GeluTanh,
    /// `x * sigmoid(1.702 * x)`, GELU's approximation by a sigmoid (arXiv 1606.08415).
    QuickGelu,
    /// The square of what is positive.
    ReluSquared,
    /// `x * sigmoid(alpha * x)` of what is below `limit`, as a gate of `up + 1`, with `up` between
    /// `-limit` and `limit`.
    ClippedSwish {
        /// How steep the sigmoid is.
        alpha: f32,
        /// What nothing exceeds.
        limit: f32,
    },
    /// SiLU of what is below `limit`, as a gate of `up` between `-limit` and `limit`.
    ClippedSilu {
        /// What nothing exceeds.
        limit: f32,
    },
    /// A parabola for what is positive, a bent line for the rest (arXiv 2411.13010): by how much,
    /// each checkpoint says.
    Xielu {
        /// How steep the parabola is.
        positive: f32,
        /// How much the line is bent.
        negative: f32,
        /// How steep both are at zero.
        beta: f32,
        /// What is above this bends no more.
        eps: f32,
    },
}

impl Activation {
    /// xIELU, whose numbers are in the checkpoint.
    pub const XIELU: Activation =
        Activation::Xielu { positive: 0.0, negative: 0.0, beta: 0.5, eps: -1e-6 };

    /// What a gate lets pass of `up`, by MLX.
    pub fn gated(self, gate: &Array, up: &Array) -> Result<Array> {
        let up = match self {
            Activation::ClippedSwish { limit, .. } => {
                let n = |value| mlx::number(value, up);
                &minimum(maximum(up, n(-limit)?)?, n(limit)?)?.add(n(1.0)?)?
            }
            Activation::ClippedSilu { limit } => {
                let n = |value| mlx::number(value, up);
                &minimum(maximum(up, n(-limit)?)?, n(limit)?)?
            }
            _ => up,
        };
        self.apply(gate)?.multiply(up)
    }

    /// The same of single elements.
    pub fn gated_of(self, gate: f32, up: f32) -> f32 {
        let up = match self {
            Activation::ClippedSwish { limit, .. } => up.clamp(-limit, limit) + 1.0,
            Activation::ClippedSilu { limit } => up.clamp(-limit, limit),
            _ => up,
        };
        self.of(gate) * up
    }

    /// Of each element, by MLX.
    pub fn apply(self, x: &Array) -> Result<Array> {
        let n = |value| mlx::number(value, x);
        match self {
            Activation::Silu => x.multiply(sigmoid(x)?),
            Activation::Gelu => {
                let share = erf(x.multiply(n(std::f32::consts::FRAC_1_SQRT_2)?)?)?.add(n(1.0)?)?;
                x.multiply(share)?.multiply(n(0.5)?)
            }
            Activation::GeluTanh => {
                let cube = x.square()?.multiply(x)?.multiply(n(0.044_715)?)?;
                let share = tanh(x.add(cube)?.multiply(n(ROOT_2_OVER_PI)?)?)?.add(n(1.0)?)?;
                x.multiply(share)?.multiply(n(0.5)?)
            }
            Activation::QuickGelu => x.multiply(sigmoid(x.multiply(n(QUICK)?)?)?),
            Activation::ReluSquared => maximum(x, n(0.0)?)?.square(),
            Activation::ClippedSwish { alpha, limit } => {
                let x = minimum(x, n(limit)?)?;
                x.multiply(sigmoid(x.multiply(n(alpha)?)?)?)
            }
            Activation::ClippedSilu { limit } => Activation::Silu.apply(&minimum(x, n(limit)?)?),
            Activation::Xielu { positive, negative, beta, eps } => {
                let line = x.multiply(n(beta)?)?;
                let parabola = x.square()?.multiply(n(positive)?)?.add(&line)?;
                let bend = expm1(minimum(x, n(eps)?)?)?.subtract(x)?;
                let bent = bend.multiply(n(negative)?)?.add(&line)?;
                select(x.gt(n(0.0)?)?, parabola, bent)
            }
        }
    }

    /// Of one element.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Activation::Silu => {
                let e = exp(-x.abs());
                x * if x < 0.0 { e } else { 1.0 } / (1.0 + e)
            }
            Activation::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + (ROOT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())
            }
            Activation::QuickGelu => x / (1.0 + (-QUICK * x).exp()),
            Activation::ReluSquared => x.max(0.0) * x.max(0.0),
            Activation::ClippedSwish { alpha, limit } => {
                let x = x.min(limit);
                x / (1.0 + (-alpha * x).exp())
            }
            Activation::ClippedSilu { limit } => Activation::Silu.of(x.min(limit)),
            Activation::Xielu { positive, beta, .. } if x > 0.0 => positive * x * x + beta * x,
            Activation::Xielu { negative, beta, eps, .. } => {
                (x.min(eps).exp_m1() - x) * negative + beta * x
            }
        }
    }
}

/// Steepness of the sigmoid that approximates GELU.
const QUICK: f32 = 1.702;

/// The square root of 2/π.
const ROOT_2_OVER_PI: f32 = 0.797_884_6;
