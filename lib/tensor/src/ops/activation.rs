//! Activation functions of feed-forward layers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{erf, expm1, maximum, minimum, select, sigmoid, tanh};

use crate::cpu::exp;
use crate::mlx;

/// Activation function, applied to each element, or to the gate of a gated linear unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// SiLU, also called swish: `x * sigmoid(x)`.
    Silu,
    /// GELU: `x` times the normal distribution function (arXiv 1606.08415).
    Gelu,
    /// GELU with the hyperbolic tangent in place of the normal distribution function.
    GeluTanh,
    /// Sigmoid approximation of GELU (arXiv 1606.08415): `x * sigmoid(1.702 * x)`.
    QuickGelu,
    /// ReLU: `max(x, 0)`.
    Relu,
    /// Squared ReLU: `max(x, 0)^2`.
    ReluSquared,
    /// Logistic sigmoid: `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// Clipped swish of gpt-oss: gate `g * sigmoid(alpha * g)` with `g = min(gate, limit)`, times
    /// `clamp(up, -limit, limit) + 1`.
    ClippedSwish {
        /// Slope of the sigmoid's argument.
        alpha: f32,
        /// Bound of the gate from above, and of `up` on both sides.
        limit: f32,
    },
    /// Clipped SiLU: `silu(min(gate, limit)) * clamp(up, -limit, limit)`.
    ClippedSilu {
        /// Bound of the gate from above, and of `up` on both sides.
        limit: f32,
    },
    /// xIELU (arXiv 2411.13010): `positive x^2 + beta x` for positive `x`, else `negative
    /// (exp(min(x, eps)) - 1 - x) + beta x`. The factors are tensors of the checkpoint.
    Xielu {
        /// Factor of the quadratic part.
        positive: f32,
        /// Factor of the exponential part.
        negative: f32,
        /// Slope at zero.
        beta: f32,
        /// Upper bound of the exponent.
        eps: f32,
    },
}

impl Activation {
    /// xIELU with the default `beta` and `eps`, before the factors are read from the checkpoint.
    pub const XIELU: Activation =
        Activation::Xielu { positive: 0.0, negative: 0.0, beta: 0.5, eps: -1e-6 };

    /// Gated linear unit in MLX: `activation(gate) * up`, with `up` clipped if the activation
    /// clips.
    pub fn glu(self, gate: &Array, up: &Array) -> Result<Array> {
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

    /// Gated linear unit of two numbers.
    pub fn glu_of(self, gate: f32, up: f32) -> f32 {
        let up = match self {
            Activation::ClippedSwish { limit, .. } => up.clamp(-limit, limit) + 1.0,
            Activation::ClippedSilu { limit } => up.clamp(-limit, limit),
            _ => up,
        };
        self.of(gate) * up
    }

    /// Activation of each element, in MLX.
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
            Activation::Relu => maximum(x, n(0.0)?),
            Activation::ReluSquared => maximum(x, n(0.0)?)?.square(),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => tanh(x),
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

    /// Activation of one number.
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
            Activation::Relu => x.max(0.0),
            Activation::ReluSquared => x.max(0.0) * x.max(0.0),
            Activation::Sigmoid => 1.0 / (1.0 + exp(-x)),
            Activation::Tanh => x.tanh(),
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

/// Square root of 2/π.
const ROOT_2_OVER_PI: f32 = 0.797_884_6;
