//! Vision towers of Qwen2-VL (arXiv 2409.12191) and Qwen2.5-VL (arXiv 2502.13923).
//!
//! The patches of a cell, a square, are merged to one token, and are adjacent in every order.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::{Architecture, Result as Loaded};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;
use mlxk_tensor::ops::rope::Rope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::mrope::{self, MropePositions};
use super::patch_embed::{PatchArch, PatchEmbed};
use super::tower::{Features, Load, Tower};
use super::vit::{Patches, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive};
use crate::checkpoint::cursor::Cursor;
use crate::config::{given, renamed};
use crate::nn::linear::Linear;
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[(Architecture::Qwen2Vl, load)];

/// Rotary base of the tower.
const THETA: f64 = 10_000.0;
/// Epsilon of all norms, added to the mean square.
const EPS: f32 = 1e-6;
/// Largest number of channels, and largest side of a patch or of a cell, of any tower.
const MAX_SIDE: usize = 1024;

/// Fields of `vision_config` under the names of Qwen2.5-VL.
#[derive(Deserialize)]
struct Config {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    in_channels: usize,
    patch_size: usize,
    temporal_patch_size: usize,
    spatial_merge_size: usize,
    out_hidden_size: usize,
    /// Side of an attention window in pixels; `None` attends to the whole image.
    window_size: Option<usize>,
    /// Layers with attention to the whole image.
    #[serde(default)]
    fullatt_block_indexes: Vec<usize>,
}

/// Loads the tower of a `qwen2_vl`, or of a `qwen2_5_vl`, whose feed-forward layers are gated.
pub fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let converted = w.has("vision_tower.patch_embed.proj.weight");
    let mut w = w.at(if converted { "vision_tower" } else { "visual" });
    let gated = w.has("blocks.0.mlp.gate_proj.weight");
    let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
    let (c, kind, activation) = match gated {
        true => (qwen2_5(&stated)?, NormKind::Rms, Activation::Silu),
        false => {
            w.rename(&[("up_proj", "fc1"), ("down_proj", "fc2")]);
            (qwen2(&stated)?, NormKind::Layer, Activation::QuickGelu)
        }
    };
    w.rename(&[("attn.o_proj", "attn.proj")]);
    c.check()?;
    let norm = NormArch { kind, eps: EPS };
    let patch = PatchArch {
        hidden: c.hidden_size,
        channels: c.in_channels,
        kernel: [c.temporal_patch_size, c.patch_size, c.patch_size],
    };
    let vit = VitArch {
        hidden: c.hidden_size,
        heads: c.num_heads,
        norm,
        mlp: MlpArch { inner: c.intermediate_size, gated, fused: false, activation },
        fused: true,
        rope: Some(Rope::planar(c.hidden_size / c.num_heads, THETA)),
        windowed: (0..c.depth).map(|i| c.windowed(i)).collect(),
    };
    Ok(Box::new(QwenVl {
        patch_embed: PatchEmbed::load(&mut w, "patch_embed.proj", &patch)?,
        vit: Vit::load(&mut w, &vit)?,
        merger: Merger::load(&mut w.at("merger"), &c, norm)?,
        merge: c.spatial_merge_size as i32,
        window: c.window().map(|cells| cells as i32),
    }))
}

/// Configuration of a `qwen2_vl`, where `embed_dim` is the hidden size of the tower and
/// `hidden_size` that of the language model. Defaults are those of transformers, which omits them
/// in the files that it writes.
fn qwen2(vision: &Value) -> Loaded<Config> {
    let names = [
        ("hidden_size", "out_hidden_size"),
        ("embed_dim", "hidden_size"),
        ("in_chans", "in_channels"),
    ];
    let vision = given(
        &renamed(vision, &names),
        json!({
            "depth": 32, "hidden_size": 1280, "mlp_ratio": 4, "num_heads": 16, "in_channels": 3,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2,
            "out_hidden_size": 3584,
        }),
    );
    let number = |name: &str| vision[name].as_f64().unwrap_or_default();
    let inner = (number("hidden_size") * number("mlp_ratio")) as usize;
    fields(&given(&vision, json!({ "intermediate_size": inner })))
}

/// Configuration of a `qwen2_5_vl`, with the defaults of transformers.
fn qwen2_5(vision: &Value) -> Loaded<Config> {
    fields(&given(
        &renamed(vision, &[("in_chans", "in_channels")]),
        json!({
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "in_channels": 3, "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2,
            "out_hidden_size": 3584, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        }),
    ))
}

impl Config {
    fn check(&self) -> Loaded<()> {
        most_layers(self.depth)?;
        positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_heads", self.num_heads),
            ("in_channels", self.in_channels),
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("spatial_merge_size", self.spatial_merge_size),
            ("out_hidden_size", self.out_hidden_size),
            ("window_size", self.window().unwrap_or(1)),
        ])?;
        let sides = [
            ("in_channels", self.in_channels),
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("spatial_merge_size", self.spatial_merge_size),
        ];
        if let Some((name, side)) = sides.iter().find(|(_, side)| *side > MAX_SIDE) {
            return Err(invalid(format!("`{name}` cannot be {side}")));
        }
        // A quarter of a head rotates by height, a quarter by width, each element with a partner.
        if !self.hidden_size.is_multiple_of(4 * self.num_heads) {
            let (hidden, heads) = (self.hidden_size, self.num_heads);
            return Err(invalid(format!("{hidden} elements cannot be {heads} heads that rotate")));
        }
        Ok(())
    }

    /// Side of a window in cells.
    fn window(&self) -> Option<usize> {
        let cell = self.patch_size.checked_mul(self.spatial_merge_size)?;
        self.window_size?.checked_div(cell)
    }

    fn windowed(&self, layer: usize) -> bool {
        self.window_size.is_some() && !self.fullatt_block_indexes.contains(&layer)
    }
}

struct QwenVl {
    patch_embed: PatchEmbed,
    vit: Vit,
    merger: Merger,
    /// Side of a cell in patches.
    merge: i32,
    /// Side of a window in cells.
    window: Option<i32>,
}

impl Tower for QwenVl {
    fn encode(&self, pixels: &Array, grid: &[[i32; 3]]) -> Result<Features> {
        let Layout { order, patches } = Layout::of(grid, self.merge, self.window)?;
        let rows = patches.positions.len() as i32;
        if pixels.dim(0) != rows {
            let message = format!("{} patches, for grids of {rows}", pixels.dim(0));
            return Err(message.as_str().into());
        }
        let x = self.patch_embed.forward(pixels)?;
        let cells = |x: Array, order: &[i32]| {
            let count = order.len() as i32;
            x.reshape(&[count, -1])?.take_axis(Array::from_slice(order, &[count]), 0)
        };
        let x = cells(x, &order)?.reshape(&[1, rows, -1])?;
        let h = self.vit.forward(x, &patches)?;
        let merged = self.merger.forward(&h)?;
        Ok(Features { rows: cells(merged, &inverse(&order))?, deep: Vec::new() })
    }

    fn positions(
        &self,
        ids: &[u32],
        image_token: u32,
        grids: &[[i32; 3]],
    ) -> mlxk_core::Result<Option<MropePositions>> {
        mrope::positions(ids, image_token, grids, self.merge).map(Some)
    }
}

/// Projector: merges the normed patches of each cell to one row.
struct Merger {
    ln_q: Norm,
    first: Linear,
    second: Linear,
    /// Number of elements of the patches of a cell.
    cell: i32,
    ops: &'static dyn Ops,
}

impl Merger {
    fn load(w: &mut Cursor, c: &Config, norm: NormArch) -> Loaded<Merger> {
        let cell = c.hidden_size * c.spatial_merge_size * c.spatial_merge_size;
        Ok(Merger {
            ln_q: norm.load(w, "ln_q", c.hidden_size)?,
            first: Linear::load(w, "mlp.0", cell, cell)?,
            second: Linear::load(w, "mlp.2", c.out_hidden_size, cell)?,
            cell: cell as i32,
            ops: w.ops(),
        })
    }

    /// Merges [1, patches, hidden] to [cells, hidden size of the language model].
    fn forward(&self, x: &Array) -> Result<Array> {
        let x = self.ln_q.forward(x)?.reshape(&[-1, self.cell])?;
        self.second.forward(&self.ops.activate(&self.first.forward(&x)?, Activation::Gelu)?)
    }
}

/// Order of the cells of images in the tower, and their patches in that order.
struct Layout {
    /// Index of each cell in row-major order, window after window.
    order: Vec<i32>,
    patches: Patches,
}

impl Layout {
    /// Layout of images with the frames, rows and columns of patches in `grid`, in cells of `merge`
    /// patches and windows of `window` cells a side.
    fn of(grid: &[[i32; 3]], merge: i32, window: Option<i32>) -> Result<Layout> {
        let (mut order, mut positions) = (Vec::new(), Vec::new());
        let [mut pictures, mut windows] = [Vec::new(), Vec::new()];
        for &[frames, height, width] in grid {
            if frames < 1 || height < 1 || width < 1 || height % merge != 0 || width % merge != 0 {
                let message = format!("{height} x {width} patches are not whole cells");
                return Err(message.as_str().into());
            }
            let (rows, columns) = (height / merge, width / merge);
            let frame_windows = frame(rows, columns, window.unwrap_or(rows.max(columns)));
            for _ in 0..frames {
                let first = order.len() as i32;
                pictures.push((height * width) as usize);
                for cells in &frame_windows {
                    windows.push(cells.len() * (merge * merge) as usize);
                    order.extend(cells.iter().map(|[y, x]| first + y * columns + x));
                    positions.extend(cells.iter().flat_map(|&[y, x]| places(y, x, merge)));
                }
            }
        }
        let [pictures, windows] = [pictures, windows].map(Mask::Blocks);
        Ok(Layout { order, patches: Patches { positions, pictures, windows } })
    }
}

/// Cells of each window of a frame with `rows` and `columns` of cells; windows at the right and
/// lower edges may be smaller. Windows of one size are adjacent, so that attention computes them
/// together.
fn frame(rows: i32, columns: i32, window: i32) -> Vec<Vec<[i32; 2]>> {
    let starts = |end: i32| (0..end).step_by(window as usize);
    let cells = |top: i32, left: i32| -> Vec<[i32; 2]> {
        let (bottom, right) = ((top + window).min(rows), (left + window).min(columns));
        (top..bottom).flat_map(|y| (left..right).map(move |x| [y, x])).collect()
    };
    let mut windows: Vec<_> = starts(rows)
        .flat_map(|top| starts(columns).map(move |left| (top, left)))
        .map(|(top, left)| cells(top, left))
        .collect();
    windows.sort_by_key(|cells| std::cmp::Reverse(cells.len()));
    windows
}

/// Positions of the patches of the cell in row `y` and column `x`.
fn places(y: i32, x: i32, merge: i32) -> impl Iterator<Item = [i32; 3]> {
    (0..merge)
        .flat_map(move |down| (0..merge).map(move |right| [0, y * merge + down, x * merge + right]))
}

/// Inverse of the permutation `order`.
fn inverse(order: &[i32]) -> Vec<i32> {
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &cell)| inverse[cell as usize] = i as i32);
    inverse
}
