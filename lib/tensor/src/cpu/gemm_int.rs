//! Linear layer of several rows of activations by integer codes: weights are unpacked once for all
//! rows, [`LANES`] rows of weights at a time, a lane each.
//!
//! Activations are written as fixed-point numbers (see `digits`), so results are as exact as those
//! of `gemv_int`.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::codec::Codec;
use super::int_panel::{Block, Digits, Panel, Rows};
use super::simd::{BYTES, Kernel, LANES, Simd};
use super::weight_rows::{Scratch, WeightRows};
use super::{SharedPtr, threads};

/// Most weights of a row that are unpacked at a time: a tile of them stays in the cache of a core.
const SLAB: usize = 1024;
/// Most weights that share the value of their digits: sums of more of them would not fit.
const BLOCK: usize = 64;
/// Bytes of digits that stay in the cache of a core while all tiles are multiplied with them.
const CACHED: usize = 1 << 20;
/// Rows of activations from which unpacking a tile takes little of the time.
const MANY: usize = 64;

/// Whether the kernel takes these weights: those with `H` codes in a byte, in groups whose codes
/// fill 16 bytes.
pub fn takes<C: Codec, const H: usize>(w: &WeightRows<C>) -> bool {
    C::PER_BYTE == H && w.group_size().is_multiple_of(16 * H)
}

/// Linear layer `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs], for a codec with `H`
/// codes in a byte that [`takes`] accepts.
pub fn linear<C: Codec, S: Simd, const H: usize>(
    simd: S,
    x: &[f32],
    w: &WeightRows<C>,
    out: &mut [f32],
) where
    Codes<H>: Width,
{
    let (ins, outs) = (w.len(), w.count());
    let block = w.group_size().min(BLOCK);
    let many = (CACHED / (3 * ins)).max(MANY).next_multiple_of(S::INT_ROWS);
    for (x, out) in x.chunks(many * ins).zip(out.chunks_mut(many * outs)) {
        let panels = panels(simd, x, ins, block, H);
        let (rows, out) = (x.len() / ins, SharedPtr(out.as_mut_ptr()));
        in_tiles(outs, rows * ins, &|first, last| {
            let own = [first, last];
            simd.run(Chunk::<C, H> { w, own, block, panels: &panels, rows, out: &out });
        });
    }
}

/// Panels of the rows of `x` [rows, ins].
fn panels<S: Simd>(simd: S, x: &[f32], ins: usize, block: usize, per_byte: usize) -> Vec<Panel> {
    /// Activations below which another core costs more than it saves.
    const LEAST: usize = 1 << 14;
    let size = S::INT_ROWS * ins;
    let panel = |x: &[f32]| Panel::new(simd, x, ins, block, per_byte);
    if x.len() < LEAST {
        return x.chunks(size).map(panel).collect();
    }
    let parts: Vec<(&[f32], OnceLock<Panel>)> =
        x.chunks(size).map(|x| (x, OnceLock::new())).collect();
    in_parts(parts.len(), x.len() >= MANY * size, &|n| {
        let (x, made) = &parts[n];
        made.get_or_init(|| panel(x));
    });
    parts.into_iter().filter_map(|(_, made)| made.into_inner()).collect()
}

/// Calls `chunk` with the first tile of each chunk and the one after its last, of the tiles
/// of `outs` rows of weights, on all cores; a row takes `inner` multiplications.
fn in_tiles(outs: usize, inner: usize, chunk: &(dyn Fn(usize, usize) + Sync)) {
    /// Multiplications of a chunk below which another core costs more than it saves.
    const LEAST: usize = 1 << 16;
    /// Multiplications of a prompt's rows, about a millisecond.
    const LONG: usize = 1 << 26;
    let tiles = outs.div_ceil(LANES);
    // More chunks than cores balance the load where other programs use some cores.
    let count = (outs * inner / LEAST).clamp(1, tiles.min(8 * threads::count()));
    in_parts(count, outs * inner >= LONG, &|n| {
        chunk(n * tiles / count, (n + 1) * tiles / count);
    });
}

/// Calls `part` with each index below `count`, on all cores. What takes `long` runs in rayon, whose
/// threads do not spin while another program keeps a core from them.
fn in_parts(count: usize, long: bool, part: &(dyn Fn(usize) + Sync)) {
    match long {
        true => (0..count).into_par_iter().for_each(part),
        false => threads::parallel_for(count, part),
    }
}

/// Kernel that multiplies the tiles `own[0]..own[1]` of the weights.
struct Chunk<'a, C, const H: usize> {
    w: &'a WeightRows<'a, C>,
    own: [usize; 2],
    block: usize,
    panels: &'a [Panel],
    /// Rows of activations.
    rows: usize,
    out: &'a SharedPtr,
}

impl<C: Codec, const H: usize> Kernel for Chunk<'_, C, H>
where
    Codes<H>: Width,
{
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (mut tile, mut scratch) = (Tile::new(), Scratch::default());
        for n in self.own[0]..self.own[1] {
            for first in (0..self.w.len()).step_by(SLAB) {
                let slab = [first, (first + SLAB).min(self.w.len())];
                tile.unpack::<C, S, H>(simd, self.w, n * LANES, slab);
                tile.scale(simd, self.w, n * LANES, slab, &mut scratch);
                let mut row = 0;
                for panel in self.panels {
                    let part = Part { n, row, first };
                    row += match panel {
                        Panel::One(x) => self.add(simd, &tile, x, part),
                        Panel::Two(x) => self.add(simd, &tile, x, part),
                        Panel::Four(x) => self.add(simd, &tile, x, part),
                    };
                }
            }
        }
    }
}

/// Place of a product: the tile, the first row of activations, and the first weight of its rows.
struct Part {
    n: usize,
    row: usize,
    first: usize,
}

impl<C: Codec, const H: usize> Chunk<'_, C, H>
where
    Codes<H>: Width,
{
    /// Adds the products of a slab with a panel to the outputs, and returns the panel's rows.
    #[inline(always)]
    fn add<S: Simd, const R: usize>(
        &self,
        simd: S,
        tile: &Tile,
        x: &Rows<R>,
        Part { n, row, first }: Part,
    ) -> usize {
        let outs = self.w.count();
        let (count, rows) = (LANES.min(outs - n * LANES), R.min(self.rows - row));
        let group = self.w.group_size();
        let sums = tile.multiply::<S, R, H>(simd, x, [first, self.block, group]);
        for (r, sum) in sums.into_iter().enumerate().take(rows) {
            let to = self.out.at((row + r) * outs + n * LANES);
            // SAFETY: `out` is [rows, outs], and these `count` elements of a row are no other chunk's.
            let to = unsafe { std::slice::from_raw_parts_mut(to, count) };
            let mut own = [0.0; LANES];
            if first > 0 {
                own[..count].copy_from_slice(to);
            }
            simd.store(simd.add(simd.load(&own), sum), &mut own);
            to.copy_from_slice(&own[..count]);
        }
        R
    }
}

/// Unpacked slab of [`LANES`] rows of weights.
struct Tile {
    /// Codes of each [`LANES`] weights, in the order of [`Digits`].
    codes: [Unpacked; SLAB / LANES],
    /// Number of weights of a row.
    len: usize,
    /// Scales of each group, of at least 16 weights.
    scales: [Lanes; SLAB / 16],
    /// Biases of each group.
    biases: [Lanes; SLAB / 16],
}

/// Codes of [`LANES`] weights of each of [`LANES`] rows, four at a time.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Unpacked([[u8; BYTES]; 4]);

/// A number for each row.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lanes([u8; BYTES]);

impl Lanes {
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S) -> S::Floats {
        let (floats, _) = self.0.as_chunks::<4>();
        simd.load(&std::array::from_fn(|lane| f32::from_ne_bytes(floats[lane])))
    }
}

impl Tile {
    fn new() -> Tile {
        let lanes = [Lanes([0; BYTES]); SLAB / 16];
        let codes = [Unpacked([[0; BYTES]; 4]); SLAB / LANES];
        Tile { codes, len: 0, scales: lanes, biases: lanes }
    }

    /// Reads the scales of the weights from `slab[0]` to `slab[1]` of the rows from `first` on.
    #[inline(always)]
    fn scale<C: Codec, S: Simd>(
        &mut self,
        simd: S,
        w: &WeightRows<C>,
        first: usize,
        slab: [usize; 2],
        scratch: &mut Scratch,
    ) {
        let last = w.count().min(first + LANES);
        let all = w.scales(simd, first..last, scratch);
        let size = 4 * w.len() / w.group_size();
        let [from, to] = slab.map(|weight| weight / w.group_size());
        for (all, own) in all.into_iter().zip([&mut self.scales, &mut self.biases]) {
            for (n, own) in
                own.as_chunks_mut::<4>().0[..(to - from).div_ceil(4)].iter_mut().enumerate()
            {
                let row = |row: usize| {
                    let place = row.min(last - first - 1) * size + 4 * (from + 4 * n);
                    all[place..].first_chunk().unwrap_or(&[0; 16])
                };
                let columns = simd.columns(std::array::from_fn(row));
                for (column, to) in columns.into_iter().zip(own) {
                    simd.store_bytes(column, &mut to.0);
                }
            }
        }
    }

    /// Unpacks the weights from `slab[0]` to `slab[1]` of the rows from `first` on.
    #[inline(always)]
    fn unpack<C: Codec, S: Simd, const H: usize>(
        &mut self,
        simd: S,
        w: &WeightRows<C>,
        first: usize,
        slab: [usize; 2],
    ) {
        let row = |n: usize| w.codes((first + n).min(w.count() - 1));
        let rows: [&[u8]; LANES] = std::array::from_fn(row);
        let rows = rows.map(|row| row[slab[0] / H..slab[1] / H].as_chunks::<16>().0);
        self.len = slab[1] - slab[0];
        // The next slab, or the first one of the next rows.
        let next = if slab[1] < w.len() { self.len } else { LANES * w.len() - slab[0] } / H;
        let own = &mut self.codes[..self.len / LANES];
        for (n, to) in own.as_chunks_mut::<H>().0.iter_mut().enumerate() {
            for row in &rows[n % 4 * 4..][..4] {
                simd.prefetch(row[n].as_ptr().wrapping_add(next));
            }
            let columns = simd.columns(std::array::from_fn(|row| &rows[row][n]));
            for (column, bytes) in columns.into_iter().enumerate() {
                if H == 1 {
                    simd.store_bytes(bytes, &mut to[0].0[column]);
                } else {
                    let [lower, upper] = simd.nibbles(bytes);
                    let to = &mut to[column / 2].0;
                    simd.store_bytes(lower, &mut to[column % 2 * 2]);
                    simd.store_bytes(upper, &mut to[column % 2 * 2 + 1]);
                }
            }
        }
    }

    /// Products of the slab that begins at weight `first` with the rows of `x`.
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const H: usize>(
        &self,
        simd: S,
        x: &Rows<R>,
        [first, block, group]: [usize; 3],
    ) -> [S::Floats; R]
    where
        Codes<H>: Width,
    {
        let per_block = block / LANES;
        let zero = simd.splat(0.0);
        let mut all = [zero; R];
        let digits = x.digits[first / LANES..].chunks_exact(per_block);
        let codes = self.codes[..self.len / LANES].chunks_exact(per_block);
        let blocks = &x.blocks[first / block..];
        for (n, ((codes, digits), blocks)) in codes.zip(digits).zip(blocks).enumerate() {
            let sums = products::<S, R, H>(simd, codes, digits);
            let group = n * block / group;
            let (scales, biases) = (self.scales[group].load(simd), self.biases[group].load(simd));
            for r in 0..R {
                let Block { step, sum } = blocks[r];
                let factors = simd.mul_add(scales, simd.splat(step), zero);
                all[r] = simd.mul_add(Codes::<H>::value(simd, sums[r]), factors, all[r]);
                all[r] = simd.mul_add(biases, simd.splat(sum), all[r]);
            }
        }
        all
    }
}

/// Sums of the products of a block of codes with the digits of `R` rows, for each place of a digit.
#[inline(always)]
fn products<S: Simd, const R: usize, const H: usize>(
    simd: S,
    codes: &[Unpacked],
    digits: &[[Digits; R]],
) -> [[<Codes<H> as Width>::Sums<S>; 3]; R]
where
    Codes<H>: Width,
{
    let mut sums = [[Codes::<H>::none(simd); 3]; R];
    for (codes, digits) in codes.iter().zip(digits) {
        for column in 0..4 {
            let codes = simd.load_bytes(&codes.0[column]);
            for r in 0..R {
                for place in 0..3 {
                    let digits = simd.repeat(&digits[r][place][column]);
                    sums[r][place] = Codes::<H>::dot4(simd, codes, digits, sums[r][place]);
                }
            }
        }
    }
    sums
}

/// Codes of which a byte holds `H`.
pub struct Codes<const H: usize>;

/// Arithmetic of codes of one width.
pub trait Width {
    /// Sums of products with digits.
    type Sums<S: Simd>: Copy;

    /// Sums of no products.
    fn none<S: Simd>(simd: S) -> Self::Sums<S>;
    /// Adds products of four codes with four digits.
    fn dot4<S: Simd>(simd: S, a: S::Bytes, b: S::Bytes, sums: Self::Sums<S>) -> Self::Sums<S>;
    /// Value of the sums by place of the digits, the lowest first.
    fn value<S: Simd>(simd: S, sums: [Self::Sums<S>; 3]) -> S::Floats;
}

impl Width for Codes<2> {
    type Sums<S: Simd> = S::Sums;

    #[inline(always)]
    fn none<S: Simd>(simd: S) -> S::Sums {
        simd.no_sums()
    }

    #[inline(always)]
    fn dot4<S: Simd>(simd: S, a: S::Bytes, b: S::Bytes, sums: S::Sums) -> S::Sums {
        simd.dot4_narrow(a, b, sums)
    }

    // At most 64 * 15 * 64 * 2^14, which fits 31 bits.
    #[inline(always)]
    fn value<S: Simd>(simd: S, sums: [S::Sums; 3]) -> S::Floats {
        let [lowest, middle, highest] = sums;
        let (lowest, middle) = (simd.widen_sums(lowest), simd.widen_sums(middle));
        let highest = simd.widen_sums(highest);
        simd.to_floats(simd.shl7_add(simd.shl7_add(highest, middle), lowest))
    }
}

impl Width for Codes<1> {
    type Sums<S: Simd> = S::Codes;

    #[inline(always)]
    fn none<S: Simd>(simd: S) -> S::Codes {
        simd.widen_u16(&[0; 2 * LANES])
    }

    #[inline(always)]
    fn dot4<S: Simd>(simd: S, a: S::Bytes, b: S::Bytes, sums: S::Codes) -> S::Codes {
        simd.dot4(a, b, sums)
    }

    // All three places would not fit 32 bits.
    #[inline(always)]
    fn value<S: Simd>(simd: S, [lowest, middle, highest]: [S::Codes; 3]) -> S::Floats {
        let upper = simd.to_floats(simd.shl7_add(highest, middle));
        simd.mul_add(upper, simd.splat(128.0), simd.to_floats(lowest))
    }
}
