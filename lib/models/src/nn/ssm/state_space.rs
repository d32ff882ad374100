//! State spaces of Mamba (arXiv 2312.00752) and Mamba 2 (arXiv 2405.21060) with their weights.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::scan::wide;
use mlxk_tensor::ops::ssd::{self, SsdSizes};
use mlxk_tensor::ops::{Ops, selective_scan};

use crate::checkpoint::cursor::Cursor;

/// State space of Mamba, in which each element of the state decays by itself.
pub struct SelectiveScan {
    op: selective_scan::SelectiveScan,
    ops: &'static dyn Ops,
}

impl SelectiveScan {
    /// Loads the tensors `A_log` and `D` of `w`, for `channels` states of `size` elements.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn load(w: &mut Cursor, channels: usize, size: usize) -> mlxk_core::Result<SelectiveScan> {
        let log = w.floats("A_log", &[channels, size])?;
        let rate = wide(&log).and_then(|log| log.exp()?.negative()).map_err(mlx::failed)?;
        let d = wide(&w.floats("D", &[channels])?).map_err(mlx::failed)?;
        Ok(SelectiveScan { op: selective_scan::SelectiveScan { rate, d }, ops: w.ops() })
    }

    /// Output [1, rows, channels] for `x` and `dt` of that shape, `b` and `c` [1, rows, size].
    /// `state` is that after the tokens before, and is updated.
    pub fn forward(&self, [x, dt, b, c]: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
        self.ops.selective_scan(&self.op, [x, dt, b, c], state)
    }
}

/// State space of Mamba 2, in which each head decays by one factor a token.
pub struct Ssd {
    op: ssd::Ssd,
    ops: &'static dyn Ops,
}

impl Ssd {
    /// Loads the tensors `A_log`, `D` and `dt_bias` of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn load(w: &mut Cursor, sizes: SsdSizes) -> mlxk_core::Result<Ssd> {
        let mut of_heads = |name| wide(&w.floats(name, &[sizes.heads])?).map_err(mlx::failed);
        let rate = of_heads("A_log")?.exp().and_then(|a| a.negative()).map_err(mlx::failed)?;
        let (d, dt_bias) = (of_heads("D")?, of_heads("dt_bias")?);
        Ok(Ssd { op: ssd::Ssd { rate, d, dt_bias, sizes }, ops: w.ops() })
    }

    /// Output [1, rows, heads * head_dim] for `x` of that shape, with `b` and `c` [1, rows, groups
    /// * state] and `dt` [1, rows, heads]. `state` is that after the tokens before, and is updated.
    pub fn forward(&self, [x, b, c, dt]: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
        self.ops.ssd(&self.op, [x, b, c, dt], state)
    }
}
