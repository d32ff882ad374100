//! Vision towers of Qwen2-VL (arXiv 2409.12191), Qwen2.5-VL (arXiv 2502.13923) and Qwen3-VL (arXiv
//! 2511.21631), which Qwen3.5 shares.
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
use super::patch_embed::{PatchArch, PatchEmbed, PatchOrder};
use super::tower::{Features, Load, Picture, Tower};
use super::vit::{Patches, Sizes, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::{given, renamed};
use crate::nn::linear::{Embedding, Linear};
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[
    (Architecture::Qwen2Vl, load),
    (Architecture::Qwen3Vl, load_3),
    (Architecture::Qwen3VlMoe, load_3),
    (Architecture::Qwen35, load_3),
    (Architecture::Qwen35Moe, load_3),
];

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
    /// Number of learned positions, a square; `None` if the tower only rotates.
    num_position_embeddings: Option<usize>,
    /// Layers after which hidden states are also merged, for the layers of the language model.
    #[serde(default)]
    deepstack_visual_indexes: Vec<usize>,
}

/// Names of the norm and of the linear layers of a merger.
const MERGER: [&str; 3] = ["ln_q", "mlp.0", "mlp.2"];
/// Those names in Qwen3-VL.
const MERGER_3: [&str; 3] = ["norm", "linear_fc1", "linear_fc2"];

/// Loads the tower of a `qwen2_vl`, or of a `qwen2_5_vl`, whose feed-forward layers are gated.
pub fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let mut w = w.at(place(&w));
    let gated = w.has("blocks.0.mlp.gate_proj.weight");
    let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
    let (c, kind, activation) = match gated {
        true => (qwen2_5(&stated)?, NormKind::Rms, Activation::Silu),
        false => {
            w.rename(&[("up_proj", "fc1"), ("down_proj", "fc2")]);
            (qwen2(&stated)?, NormKind::Layer, Activation::QuickGelu)
        }
    };
    let mlp = MlpArch { inner: c.intermediate_size, gated, fused: false, activation };
    tower(&c, NormArch { kind, eps: EPS }, mlp, MERGER, w)
}

/// Loads the tower of a `qwen3_vl`.
fn load_3(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let mut w = w.at(place(&w));
    w.rename(&[("up_proj", "linear_fc1"), ("down_proj", "linear_fc2")]);
    let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
    let c = qwen3(&stated)?;
    let activation = match stated.get("hidden_act").and_then(Value::as_str) {
        None | Some("gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some(other) => return Err(unknown(format!("activation `{other}` cannot run yet"))),
    };
    let mlp = MlpArch { inner: c.intermediate_size, gated: false, fused: false, activation };
    tower(&c, NormArch { kind: NormKind::Layer, eps: EPS }, mlp, MERGER_3, w)
}

/// Place of the tower's tensors in checkpoints in MLX's form, or in transformers'.
fn place(w: &Cursor) -> &'static str {
    if w.has("vision_tower.patch_embed.proj.weight") { "vision_tower" } else { "visual" }
}

/// Loads the tower at `w`, whose mergers have layers of the names `merger`.
fn tower(
    c: &Config,
    norm: NormArch,
    mlp: MlpArch,
    merger: [&'static str; 3],
    mut w: Cursor,
) -> Loaded<Box<dyn Tower>> {
    w.rename(&[("attn.o_proj", "attn.proj")]);
    c.check()?;
    let hidden = c.hidden_size;
    let patch = PatchArch {
        hidden: c.hidden_size,
        channels: c.in_channels,
        kernel: [c.temporal_patch_size, c.patch_size, c.patch_size],
        order: PatchOrder::ChannelsFirst,
    };
    let sizes = Sizes { hidden, heads: c.num_heads, layers: c.depth };
    let vit = VitArch {
        fused: true,
        rope: Some(Rope::planar(hidden / c.num_heads, THETA)),
        windowed: (0..c.depth).map(|i| c.windowed(i)).collect(),
        ..VitArch::new(&sizes, norm, mlp)
    };
    let patch_embed = PatchEmbed::load(&mut w, "patch_embed.proj", &patch)?;
    let positions = |side| LearnedPositions::load(&mut w, side, hidden);
    let positions = c.position_side()?.map(positions).transpose()?;
    let vit = Vit::load(&mut w, &vit)?;
    let mergers = c.deepstack_visual_indexes.iter().enumerate().map(|(i, &layer)| {
        let mut at = w.at(&format!("deepstack_merger_list.{i}"));
        Ok((layer, Merger::load(&mut at, c, norm, merger, true)?))
    });
    let deep = mergers.collect::<Loaded<_>>()?;
    Ok(Box::new(QwenVl {
        patch_embed,
        positions,
        vit,
        merger: Merger::load(&mut w.at("merger"), c, norm, merger, false)?,
        deep,
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

/// Configuration of a `qwen3_vl` or `qwen3_5`, with the defaults of transformers.
fn qwen3(vision: &Value) -> Loaded<Config> {
    fields(&given(
        &renamed(vision, &[("in_chans", "in_channels")]),
        json!({
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
            "in_channels": 3, "patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2,
            "out_hidden_size": 3584, "num_position_embeddings": 2304,
        }),
    ))
}

impl Config {
    /// Side of the square of learned positions. Errors if they are no square.
    fn position_side(&self) -> Loaded<Option<usize>> {
        let Some(count) = self.num_position_embeddings else { return Ok(None) };
        let side = count.isqrt();
        match side > 0 && side * side == count {
            true => Ok(Some(side)),
            false => Err(invalid(format!("`num_position_embeddings` cannot be {count}"))),
        }
    }

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
        if let Some(layer) = self.deepstack_visual_indexes.iter().find(|i| **i >= self.depth) {
            let message =
                format!("`deepstack_visual_indexes` names layer {layer} of {}", self.depth);
            return Err(invalid(message));
        }
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
    positions: Option<LearnedPositions>,
    vit: Vit,
    merger: Merger,
    /// Mergers of the hidden states after layers of these numbers.
    deep: Vec<(usize, Merger)>,
    /// Side of a cell in patches.
    merge: i32,
    /// Side of a window in cells.
    window: Option<i32>,
}

impl Tower for QwenVl {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let &Picture { pixels, grid, .. } = picture;
        let Layout { order, patches } = Layout::of(grid, self.merge, self.window)?;
        let rows = patches.positions.len() as i32;
        if pixels.dim(0) != rows {
            let message = format!("{} patches, for grids of {rows}", pixels.dim(0));
            return Err(message.as_str().into());
        }
        let mut x = self.patch_embed.forward(pixels)?;
        let cells = |x: Array, order: &[i32]| {
            let count = order.len() as i32;
            x.reshape(&[count, -1])?.take_axis(Array::from_slice(order, &[count]), 0)
        };
        x = cells(x, &order)?.reshape(&[1, rows, -1])?;
        if let Some(positions) = &self.positions {
            x = x.add(positions.forward(&patches.positions, grid)?)?;
        }
        let inverse = inverse(&order);
        let mut deep = Vec::new();
        let h = self.vit.forward_with(x, &patches, |layer, h| {
            let own = self.deep.iter().filter(|(own, _)| *own == layer);
            for (_, merger) in own {
                deep.push(cells(merger.forward(h)?, &inverse)?);
            }
            Ok(())
        })?;
        Ok(Features { rows: cells(self.merger.forward(&h)?, &inverse)?, deep })
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

/// Learned position embeddings of a square of patches, interpolated for pictures of other sizes.
struct LearnedPositions {
    pos_embed: Embedding,
    /// Side of the square.
    side: usize,
}

impl LearnedPositions {
    fn load(w: &mut Cursor, side: usize, hidden: usize) -> Loaded<LearnedPositions> {
        Ok(LearnedPositions {
            pos_embed: Embedding::load(w, "pos_embed", side * side, hidden)?,
            side,
        })
    }

    /// Embeddings [1, patches, hidden] of patches at `places` of a picture of `grid`, bilinear between
    /// the four learned ones around each.
    fn forward(&self, places: &[[i32; 3]], [_, rows, columns]: [i32; 3]) -> Result<Array> {
        let last = self.side - 1;
        // The learned place before, and the distance to it, of patch `i` of `count`.
        let place = |i: i32, count: i32| {
            let at = if count > 1 { (i * last as i32) as f32 / (count - 1) as f32 } else { 0.0 };
            (at as usize, at.fract())
        };
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        for &[_, row, column] in places {
            let ((y, down), (x, right)) = (place(row, rows), place(column, columns));
            for (y, x, weight) in [
                (y, x, (1.0 - down) * (1.0 - right)),
                (y, x + 1, (1.0 - down) * right),
                (y + 1, x, down * (1.0 - right)),
                (y + 1, x + 1, down * right),
            ] {
                ids.push((y.min(last) * self.side + x.min(last)) as u32);
                weights.push(weight);
            }
        }
        let count = places.len() as i32;
        let near = self.pos_embed.forward(&Array::from_slice(&ids, &[1, 4 * count]))?;
        let near = near.reshape(&[1, count, 4, -1])?;
        let weights = Array::from_slice(&weights, &[1, count, 4, 1]).as_dtype(near.dtype())?;
        near.multiply(weights)?.sum_axis(2, false)
    }
}

/// Projector: merges the normed patches of each cell to one row.
struct Merger {
    norm: Norm,
    /// True if the norm is over cells, not over patches.
    over_cells: bool,
    first: Linear,
    second: Linear,
    /// Number of elements of the patches of a cell.
    cell: i32,
    ops: &'static dyn Ops,
}

impl Merger {
    fn load(
        w: &mut Cursor,
        c: &Config,
        norm: NormArch,
        [normed, first, second]: [&str; 3],
        over_cells: bool,
    ) -> Loaded<Merger> {
        let cell = c.hidden_size * c.spatial_merge_size * c.spatial_merge_size;
        Ok(Merger {
            norm: norm.load(w, normed, if over_cells { cell } else { c.hidden_size })?,
            over_cells,
            first: Linear::load(w, first, cell, cell)?,
            second: Linear::load(w, second, c.out_hidden_size, cell)?,
            cell: cell as i32,
            ops: w.ops(),
        })
    }

    /// Merges [1, patches, hidden] to [cells, hidden size of the language model].
    fn forward(&self, x: &Array) -> Result<Array> {
        let x = match self.over_cells {
            true => self.norm.forward(&x.reshape(&[-1, self.cell])?)?,
            false => self.norm.forward(x)?.reshape(&[-1, self.cell])?,
        };
        self.second.forward(&self.ops.activate(&self.first.forward(&x)?, Activation::Gelu)?)
    }
}

/// Order of the cells of an image in the tower, and their patches in that order.
struct Layout {
    /// Index of each cell in row-major order, window after window.
    order: Vec<i32>,
    patches: Patches,
}

impl Layout {
    /// Layout of an image with the frames, rows and columns of patches in `grid`, in cells of `merge`
    /// patches and windows of `window` cells a side.
    fn of([frames, height, width]: [i32; 3], merge: i32, window: Option<i32>) -> Result<Layout> {
        if frames < 1 || height < 1 || width < 1 || height % merge != 0 || width % merge != 0 {
            let message = format!("{height} x {width} patches are not whole cells");
            return Err(message.as_str().into());
        }
        let (mut order, mut positions) = (Vec::new(), Vec::new());
        let [mut pictures, mut windows] = [Vec::new(), Vec::new()];
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
