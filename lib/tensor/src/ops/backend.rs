//! The operations of a layer, each implemented once per backend.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

use super::activation::Activation;
use super::conv1d::Conv1d;
use super::gated_delta::GatedDelta;
use super::gated_norm::GatedNorm;
use super::moe_experts::Experts;
use super::moe_route::{ExpertChoice, Routing};
use super::params::{AttentionParams, HeadsParams, Mask, NormParams};
use super::selective_scan::SelectiveScan;
use super::ssd::Ssd;
use crate::cache::Kv;
use crate::weight::Weight;

/// Operations of layers, implemented by each backend. Inputs are [1, rows, size] unless said
/// otherwise.
pub trait Ops: Sync {
    /// Linear layer without bias, `x W.T`: [.., ins] to [.., outs].
    fn linear(&self, w: &Weight, x: &Array) -> Result<Array>;

    /// Embedding lookup: rows `ids` [..] of `w` as [.., ins].
    fn embedding(&self, w: &Weight, ids: &Array) -> Result<Array>;

    /// Norm over the last axis.
    fn norm(&self, x: &Array, params: &NormParams) -> Result<Array>;

    /// Splits [1, length, heads * size] into heads [1, heads, length, size], each normed and
    /// rotated according to `params`.
    fn split_heads(&self, x: &Array, params: &HeadsParams) -> Result<Array>;

    /// Appends keys and values [1, heads, n, head size] to a kv cache.
    fn append_kv(&self, kv: &mut Kv, keys: &Array, values: &Array) -> Result<()>;

    /// Attention of queries [1, heads, length, size] to the cached keys and values, of which the
    /// last `length` belong to the queries: [1, length, heads * value size].
    fn attend_cached(&self, queries: &Array, kv: &Kv, params: &AttentionParams) -> Result<Array>;

    /// Attention without a cache: queries [1, heads, length, size] to keys [1, kv heads, keys,
    /// size] and values [1, kv heads, keys, value size] under `mask`, giving [1, length, heads *
    /// value size].
    fn attend(
        &self,
        queries: &Array,
        keys_values: [&Array; 2],
        mask: &Mask,
        params: &AttentionParams,
    ) -> Result<Array>;

    /// Gated linear unit, `activation(gate) * up`.
    fn glu(&self, gate: &Array, up: &Array, activation: Activation) -> Result<Array>;

    /// Activation of each element.
    fn activate(&self, x: &Array, activation: Activation) -> Result<Array>;

    /// Sum of two arrays of one shape.
    fn add(&self, a: &Array, b: &Array) -> Result<Array>;

    /// Product of two arrays of one shape, element by element.
    fn multiply(&self, a: &Array, b: &Array) -> Result<Array>;

    /// Splits the last axis into parts of `sizes`, which sum up to its length.
    fn split(&self, x: &Array, sizes: &[i32]) -> Result<Vec<Array>>;

    /// Depthwise causal convolution of [1, rows, channels]. `tail` is the state: the last rows
    /// before `x` [1, taps - 1, channels], replaced by the last rows of `x`.
    fn conv1d(&self, conv: &Conv1d, x: &Array, tail: &mut Option<Array>) -> Result<Array>;

    /// State space of Mamba 2: `x` [1, rows, heads * head_dim] to an output of that shape, with `b`
    /// and `c` [1, rows, groups * state] and `dt` [1, rows, heads]. `state` [1, heads, head_dim,
    /// state] is that after the tokens before, and is updated.
    fn ssd(&self, ssd: &Ssd, inputs: [&Array; 4], state: &mut Option<Array>) -> Result<Array>;

    /// State space of Mamba: `x` and `dt` [1, rows, channels], `b` and `c` [1, rows, size], to [1,
    /// rows, channels]. `state` [1, channels, size] is that after the tokens before, and is
    /// updated.
    fn selective_scan(
        &self,
        scan: &SelectiveScan,
        inputs: [&Array; 4],
        state: &mut Option<Array>,
    ) -> Result<Array>;

    /// Gated delta rule: concatenated queries, keys and values [1, rows, ..], decay inputs `a` and
    /// beta logits `b` [1, rows, value heads], to [1, rows, value heads * value_dim]. `state` [1,
    /// value heads, value_dim, key_dim] is that after the tokens before, and is updated.
    fn gated_delta(
        &self,
        rule: &GatedDelta,
        inputs: [&Array; 3],
        state: &mut Option<Array>,
    ) -> Result<Array>;

    /// RMS norm of a recurrent layer's output, multiplied by SiLU of `gate`.
    fn gated_norm(&self, norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array>;

    /// Choice of experts by router logits [rows, experts] and a score correction `[experts]`.
    fn moe_route(
        &self,
        routing: &Routing,
        logits: &Array,
        correction: Option<&Array>,
    ) -> Result<ExpertChoice>;

    /// Weighted sum of the outputs of the chosen experts, [1, rows, hidden] for `x` of that shape.
    fn moe_experts(&self, experts: &Experts, x: &Array, choice: &ExpertChoice) -> Result<Array>;

    /// Step of an LSTM (doi 10.1162/neco.1997.9.8.1735): the next hidden state and cell [1, 1, size]
    /// of the sums [1, 1, 4 * size] that enter its input, forget, cell and output gate, and of the
    /// `cell` before, zeros at first.
    fn lstm(&self, gates: &Array, cell: Option<&Array>) -> Result<[Array; 2]>;

    /// Sinkhorn normalisation of matrices [.., n, n]: columns are divided by their sums, then
    /// `rounds - 1` times rows and columns; `eps` is added to sums.
    fn sinkhorn(&self, matrices: &Array, rounds: usize, eps: f32) -> Result<Array>;
}

impl dyn Ops {
    /// Splits the last axis into `N` parts of `sizes`, which sum up to its length.
    pub fn parts<const N: usize>(&self, x: &Array, sizes: [i32; N]) -> Result<[Array; N]> {
        let parts = self.split(x, &sizes)?;
        parts.try_into().map_err(|_| Exception::custom("a part was lost"))
    }
}
