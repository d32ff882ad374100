//! Rotary position embeddings, of the types that config.json can name.

use std::f64::consts::PI;
use std::rc::Rc;

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, split_at_indices, split_equal};
use mlx_rs::{Array, Dtype, fast};
use mlxk_core::{Error, Kind};
use serde::Deserialize;

use crate::positions::Positions;

/// `rope_scaling` or `rope_parameters` of config.json: the type and its parameters.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Scaling {
    /// Type under its older name.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_type: Option<String>,
    /// Rotary base, where config.json states it here.
    pub rope_theta: Option<f64>,
    /// Fraction of a head that rotates, where config.json states it here.
    pub partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    /// Context length of pretraining, in tokens, before the context was extended.
    pub original_max_position_embeddings: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    /// Magnitude of the rotated elements, in place of the one that YaRN computes.
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    long_factor: Option<Vec<f64>>,
    long_mscale: Option<f64>,
    /// Growth of the query scale beyond the trained length.
    pub llama_4_scaling_beta: Option<f64>,
    /// Numbers of pairs of a head that rotate by time, height and width (M-RoPE).
    mrope_section: Option<[usize; 3]>,
    /// True if the axes of M-RoPE alternate from pair to pair; false if the pairs of an axis are
    /// adjacent.
    mrope_interleaved: Option<bool>,
}

/// Rotary position embedding of the queries and keys of a layer.
#[derive(Clone)]
pub struct Rope {
    /// Leading elements of a head that rotate.
    dims: i32,
    /// True if adjacent elements are pairs (interleaved), false if element i pairs with i + `dims`
    /// / 2.
    traditional: bool,
    /// Equal parts of the rotating elements, each with pairs of its own.
    parts: i32,
    angles: Angles,
    /// Scale of the rotated elements.
    magnitude: f32,
    /// Axis of the position (0 time, 1 height, 2 width) that rotates each pair; `None` if it is 0
    /// for all.
    axes: Option<Rc<[u8]>>,
}

#[derive(Clone)]
enum Angles {
    /// Powers of `base`; positions are multiplied by `scale`.
    Powers { base: f64, scale: f64 },
    /// Powers of a base that grows with the sequence length beyond `trained` positions (dynamic
    /// NTK).
    Growing { base: f64, factor: f64, trained: f64 },
    /// Wavelengths over 2π, one for each pair, for the host and for MLX.
    Table(Rc<[f64]>, Array),
}

impl Rope {
    /// Rotary embedding of the first `dims` elements of a head, in a model trained on `trained`
    /// positions. Errors if the type is unknown or lacks a parameter.
    pub fn new(
        dims: usize,
        traditional: bool,
        base: f64,
        trained: Option<u64>,
        scaling: Option<&Scaling>,
    ) -> mlxk_core::Result<Rope> {
        if base.is_nan() || base <= 0.0 {
            return Err(lacking("rope_theta"));
        }
        let none = Scaling::default();
        let scaling = scaling.unwrap_or(&none);
        let mut magnitude = 1.0;
        let angles = match scaling.kind() {
            "default" | "mrope" => Angles::Powers { base, scale: 1.0 },
            "linear" => Angles::Powers { base, scale: 1.0 / scaling.factor()? },
            "dynamic" => Angles::Growing {
                base,
                factor: scaling.factor()?,
                trained: trained.ok_or_else(|| lacking("max_position_embeddings"))? as f64,
            },
            "llama3" => table(llama3(dims, base, scaling)?),
            "longrope" | "su" => {
                magnitude = scaling.longrope_magnitude(trained)?;
                table(longrope(dims, base, scaling)?)
            }
            "proportional" => table(proportional(dims, base, scaling)),
            "yarn" | "deepseek_yarn" | "telechat3-yarn" => {
                magnitude = scaling.yarn_magnitude()?;
                table(yarn(dims, base, scaling)?)
            }
            kind => {
                let message = format!("position embeddings of type `{kind}` cannot run yet");
                return Err(Error::new(Kind::RuntimeIncompatible, "config.json", message));
            }
        };
        let axes = scaling.axes(dims / 2)?;
        let magnitude = magnitude as f32;
        Ok(Rope { dims: dims as i32, traditional, parts: 1, angles, magnitude, axes })
    }

    /// 2D rotary position embedding of image patches, for heads of `dims` elements, a multiple of
    /// four: the first half of the pairs rotates by height, the other half by width, each with the
    /// wavelengths of a head of `dims / 2` elements. Source: Qwen2-VL (arXiv 2409.12191).
    pub fn planar(dims: usize, base: f64) -> Rope {
        let half = || powers(dims / 2, base);
        let pairs = half().map(|w| (1, w)).chain(half().map(|w| (2, w)));
        Rope::by_axes(dims, pairs.collect())
    }

    /// 2D rotary position embedding like [`planar`](Self::planar), in which the wavelengths of a head
    /// of `dims` elements are dealt out in turn to height and width. Source: Pixtral (arXiv
    /// 2410.07073).
    pub fn dealt(dims: usize, base: f64) -> Rope {
        let every = |first: usize| powers(dims, base).skip(first).step_by(2);
        let pairs = every(0).map(|w| (1, w)).chain(every(1).map(|w| (2, w)));
        Rope::by_axes(dims, pairs.collect())
    }

    /// 2D rotary position embedding of heads of two halves, a multiple of four elements: the first
    /// half rotates by width, the other by height, each as a head of its own. Source: Gemma 4's
    /// vision tower.
    pub fn halves(dims: usize, base: f64) -> Rope {
        let half = || powers(dims / 2, base);
        let pairs = half().map(|w| (2, w)).chain(half().map(|w| (1, w)));
        Rope { parts: 2, ..Rope::by_axes(dims, pairs.collect()) }
    }

    /// Rotary embedding of heads of `dims` elements, with the axis of the position and the wavelength
    /// over 2π of each pair.
    fn by_axes(dims: usize, pairs: Vec<(u8, f64)>) -> Rope {
        let (axes, wavelengths): (Vec<u8>, Vec<f64>) = pairs.into_iter().unzip();
        Rope {
            dims: dims as i32,
            traditional: false,
            parts: 1,
            angles: table(wavelengths),
            magnitude: 1.0,
            axes: Some(axes.into()),
        }
    }

    /// Rotary embedding of whole heads of `dims` elements, with negated angles.
    pub fn backwards(dims: usize, base: f64) -> Rope {
        let angles = table(powers(dims, base).map(|wavelength| -wavelength).collect());
        Rope { dims: dims as i32, traditional: false, parts: 1, angles, magnitude: 1.0, axes: None }
    }

    /// Rotary embedding with all wavelengths multiplied by `factor`: -1 negates the angles, 1/n
    /// makes them n times as large. Errors if wavelengths depend on the sequence length.
    pub fn stretched(&self, factor: f64) -> mlxk_core::Result<Rope> {
        if let Angles::Growing { .. } = self.angles {
            return Err(lacking("rope_scaling.factor"));
        }
        let wavelengths = self.wavelengths(0);
        let angles = table(wavelengths.iter().map(|wavelength| wavelength * factor).collect());
        Ok(Rope { angles, ..self.clone() })
    }

    /// Rotates `x` [1, heads, length, head size], whose rows are at `positions`.
    pub fn apply<'a>(&self, x: &Array, positions: impl Into<Positions<'a>>) -> Result<Array> {
        let scaled = self.magnify(x)?;
        let x = scaled.as_ref().unwrap_or(x);
        match positions.into() {
            Positions::Offset(offset) => self.apply_from(x, offset),
            Positions::Rows(rows) => self.apply_to_rows(x, rows),
        }
    }

    /// Rotates rows at consecutive positions.
    fn apply_from(&self, x: &Array, offset: i32) -> Result<Array> {
        let (base, scale, freqs) = match &self.angles {
            Angles::Powers { base, scale } => (Some(*base as f32), *scale as f32, None),
            Angles::Growing { .. } => (Some(self.grown(offset + x.dim(-2)) as f32), 1.0, None),
            Angles::Table(_, freqs) => (None, 1.0, Some(freqs)),
        };
        fast::rope(x, self.dims, self.traditional, base, scale, offset, freqs)
    }

    /// Rotates rows at the positions `rows`.
    fn apply_to_rows(&self, x: &Array, rows: &[[i32; 3]]) -> Result<Array> {
        let (length, pairs) = (rows.len() as i32, self.dims / 2);
        let axes: Vec<i32> = (0..pairs as usize).map(|pair| self.axis(pair) as i32).collect();
        let wavelengths = self.wavelengths(Positions::Rows(rows).end(length));
        let wavelengths: Vec<f32> = wavelengths.iter().map(|&w| w as f32).collect();
        let [axes, wavelengths] =
            [Array::from_slice(&axes, &[pairs]), Array::from_slice(&wavelengths, &[pairs])];
        let positions = Array::from_slice(rows.as_flattened(), &[length, 3]).take_axis(axes, 1)?;
        let angles = positions.as_dtype(Dtype::Float32)?.divide(wavelengths)?;

        // Partners of a pair lie along an axis of their own: the last, or the one before.
        let (parts, each) = (self.parts, pairs / self.parts);
        let (axis, partners, each) = match self.traditional {
            true => (-1, [parts, each, 2], [length, parts, each, 1]),
            false => (-2, [parts, 2, each], [length, parts, 1, each]),
        };
        let [cos, sin] = [angles.cos()?.reshape(&each)?, angles.sin()?.reshape(&each)?];
        let mut halves = split_at_indices(x, &[self.dims], -1)?;
        let shape = halves[0].shape().to_vec();
        let split = [&shape[..3], &partners].concat();
        let pairs = split_equal(halves[0].as_dtype(Dtype::Float32)?.reshape(&split)?, 2, axis)?;
        let [a, b] = [&pairs[0], &pairs[1]];
        let turned = [
            a.multiply(&cos)?.subtract(b.multiply(&sin)?)?,
            a.multiply(&sin)?.add(b.multiply(&cos)?)?,
        ];
        halves[0] = concatenate(&turned, axis)?.reshape(&shape)?.as_dtype(x.dtype())?;
        concatenate(&halves, -1)
    }

    /// Rotations of `length` rows at `positions`, computed on the host.
    pub fn turns(&self, positions: Positions, length: usize) -> Turns {
        let wavelengths = self.wavelengths(positions.end(length as i32));
        let magnitude = f64::from(self.magnitude);
        let position = |row: usize, pair: usize| match positions {
            Positions::Offset(offset) => f64::from(offset) + row as f64,
            Positions::Rows(rows) => f64::from(rows[row][self.axis(pair)]),
        };
        let mut all = Vec::with_capacity(length * wavelengths.len());
        for row in 0..length {
            all.extend(wavelengths.iter().enumerate().map(|(pair, wavelength)| {
                let (sin, cos) = (position(row, pair) / wavelength).sin_cos();
                [(cos * magnitude) as f32, (sin * magnitude) as f32]
            }));
        }
        let (dims, parts) = (self.dims as usize, self.parts as usize);
        Turns { all, dims, parts, traditional: self.traditional }
    }

    /// Axis of the position that rotates a pair.
    fn axis(&self, pair: usize) -> usize {
        self.axes.as_ref().map_or(0, |axes| usize::from(axes[pair]))
    }

    /// Wavelengths over 2π, one for each pair, for positions below `end`.
    fn wavelengths(&self, end: i32) -> Vec<f64> {
        let dims = self.dims as usize;
        match &self.angles {
            Angles::Powers { base, scale } => powers(dims, *base).map(|w| w / scale).collect(),
            Angles::Growing { .. } => powers(dims, self.grown(end)).collect(),
            Angles::Table(wavelengths, _) => wavelengths.to_vec(),
        }
    }

    /// Base of a growing type for a sequence of `length` tokens.
    fn grown(&self, length: i32) -> f64 {
        let Angles::Growing { base, factor, trained } = self.angles else {
            return 1.0;
        };
        let (length, dims) = (f64::from(length).max(trained), f64::from(self.dims));
        base * (factor * length / trained - (factor - 1.0)).powf(dims / (dims - 2.0))
    }

    /// Array `x` with the rotated elements scaled by the magnitude; `None` if the magnitude is 1.
    fn magnify(&self, x: &Array) -> Result<Option<Array>> {
        if self.magnitude == 1.0 {
            return Ok(None);
        }
        let factors: Vec<f32> =
            (0..x.dim(-1)).map(|i| if i < self.dims { self.magnitude } else { 1.0 }).collect();
        let factors = Array::from_slice(&factors, &[x.dim(-1)]).as_dtype(x.dtype())?;
        x.multiply(factors).map(Some)
    }
}

/// Rotations of the heads of some rows.
pub struct Turns {
    /// Cosine and sine for each pair of each row.
    all: Vec<[f32; 2]>,
    dims: usize,
    /// Equal parts of the rotating elements, each with pairs of its own.
    parts: usize,
    traditional: bool,
}

impl Turns {
    /// Rotates a head of row `row` in place.
    pub fn turn(&self, head: &mut [f32], row: usize) {
        let half = self.dims / 2 / self.parts;
        for part in 0..self.parts {
            let turns = &self.all[(row * self.parts + part) * half..][..half];
            let head = &mut head[2 * part * half..];
            for (i, [cos, sin]) in turns.iter().enumerate() {
                let (a, b) = if self.traditional { (2 * i, 2 * i + 1) } else { (i, i + half) };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }
}

impl Scaling {
    /// Type; `default` if none is stated.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().or(self.rope_type.as_deref()).unwrap_or("default")
    }

    /// Axis of the position that rotates each of `pairs` pairs; `None` without M-RoPE. Sources:
    /// Qwen2-VL (arXiv 2409.12191) for adjacent pairs of an axis, Qwen3-VL (arXiv 2511.21631) for
    /// alternating axes.
    ///
    /// # Errors
    /// If the sections of adjacent pairs do not sum up to `pairs`.
    fn axes(&self, pairs: usize) -> mlxk_core::Result<Option<Rc<[u8]>>> {
        let Some([time, height, width]) = self.mrope_section else { return Ok(None) };
        if self.mrope_interleaved == Some(true) {
            let axis = |pair| match pair % 3 {
                1 if pair < 3 * height => 1,
                2 if pair < 3 * width => 2,
                _ => 0,
            };
            return Ok(Some((0..pairs).map(axis).collect()));
        }
        if [height, width].iter().try_fold(time, |sum, n| sum.checked_add(*n)) != Some(pairs) {
            let message = format!("`mrope_section` is not {pairs} pairs of a head");
            return Err(Error::new(Kind::InvalidModel, "config.json", message));
        }
        let section = |axis, count| std::iter::repeat_n(axis, count);
        Ok(Some(section(0, time).chain(section(1, height)).chain(section(2, width)).collect()))
    }

    fn factor(&self) -> mlxk_core::Result<f64> {
        self.factor.filter(|&factor| factor > 0.0).ok_or_else(|| lacking("rope_scaling.factor"))
    }

    /// Magnitude of LongRoPE that offsets the flatter attention over an extended context of
    /// `trained` tokens.
    fn longrope_magnitude(&self, trained: Option<u64>) -> mlxk_core::Result<f64> {
        if let Some(stated) = self.long_mscale {
            return Ok(stated);
        }
        let trained = trained.ok_or_else(|| lacking("max_position_embeddings"))? as f64;
        let original = self
            .original_max_position_embeddings
            .filter(|&original| original > 1.0)
            .ok_or_else(|| lacking("original_max_position_embeddings"))?;
        let factor = trained / original;
        Ok(if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() })
    }

    /// Factor of DeepSeek's attention scores under YaRN.
    pub fn sharpness(&self) -> f32 {
        let all = self.mscale_all_dim.unwrap_or(0.0);
        match self.factor {
            Some(factor) if factor > 1.0 => (0.1 * all * factor.ln() + 1.0).powi(2) as f32,
            _ => 1.0,
        }
    }

    /// Magnitude of YaRN that offsets the flatter attention over a longer context.
    fn yarn_magnitude(&self) -> mlxk_core::Result<f64> {
        let factor = self.factor()?;
        if let Some(stated) = self.attention_factor {
            return Ok(stated);
        }
        let of = |m: f64| {
            if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
        };
        Ok(of(self.mscale.unwrap_or(1.0)) / of(self.mscale_all_dim.unwrap_or(0.0)))
    }
}

/// LongRoPE (arXiv 2402.13753): each wavelength has its own factor.
fn longrope(dims: usize, base: f64, scaling: &Scaling) -> mlxk_core::Result<Vec<f64>> {
    let factors = scaling.long_factor.as_deref().unwrap_or_default();
    if factors.len() != dims / 2 || factors.iter().any(|&factor| factor.is_nan() || factor <= 0.0) {
        let message = format!("`rope_scaling.long_factor` is not {} positive numbers", dims / 2);
        return Err(Error::new(Kind::InvalidModel, "config.json", message));
    }
    Ok(powers(dims, base).zip(factors).map(|(freq, factor)| freq * factor).collect())
}

/// Wavelengths over 2π if only a fraction of the pairs rotates; infinite for the others.
fn proportional(dims: usize, base: f64, scaling: &Scaling) -> Vec<f64> {
    let turning = (dims as f64 * scaling.partial_rotary_factor.unwrap_or(1.0)) as usize;
    let factor = scaling.factor.unwrap_or(1.0);
    let wavelength = |(i, freq)| if 2 * i < turning { factor * freq } else { f64::INFINITY };
    powers(dims, base).enumerate().map(wavelength).collect()
}

/// Wavelengths over 2π of unscaled position embeddings.
fn powers(dims: usize, base: f64) -> impl Iterator<Item = f64> {
    (0..dims).step_by(2).map(move |i| base.powf(i as f64 / dims as f64))
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, a ramp between.
fn llama3(dims: usize, base: f64, scaling: &Scaling) -> mlxk_core::Result<Vec<f64>> {
    let factor = scaling.factor()?;
    let low = scaling.low_freq_factor.unwrap_or(1.0);
    let high = scaling.high_freq_factor.unwrap_or(4.0);
    let trained = scaling.original_max_position_embeddings.unwrap_or(8192.0);
    let stretch = |freq: f64| {
        let wavelength = 2.0 * PI * freq;
        if wavelength > trained / low {
            freq * factor
        } else if wavelength > trained / high {
            let smooth = (trained / wavelength - low) / (high - low);
            freq / ((1.0 - smooth) / factor + smooth)
        } else {
            freq
        }
    };
    Ok(powers(dims, base).map(stretch).collect())
}

/// YaRN (arXiv 2309.00071): short wavelengths are kept, long ones stretched by `factor`.
fn yarn(dims: usize, base: f64, scaling: &Scaling) -> mlxk_core::Result<Vec<f64>> {
    let factor = scaling.factor()?;
    let trained = scaling.original_max_position_embeddings.unwrap_or(4096.0);
    let last = (dims - 1) as f64;
    let turning =
        |turns: f64| dims as f64 * (trained / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
    let from = turning(scaling.beta_fast.unwrap_or(32.0)).floor().max(0.0);
    let to = turning(scaling.beta_slow.unwrap_or(1.0)).ceil().min(last);
    let width = if from == to { 0.001 } else { to - from };
    let blend = |(i, freq): (usize, f64)| {
        let stretched = ((i as f64 - from) / width).clamp(0.0, 1.0);
        let kept = 1.0 - stretched;
        let long = factor * freq;
        long * freq / (long * kept + freq * stretched)
    };
    Ok(powers(dims, base).enumerate().map(blend).collect())
}

fn table(wavelengths: Vec<f64>) -> Angles {
    let narrow: Vec<f32> = wavelengths.iter().map(|&w| w as f32).collect();
    Angles::Table(wavelengths.into(), Array::from_slice(&narrow, &[narrow.len() as i32]))
}

fn lacking(field: &str) -> Error {
    let message = format!("position embeddings need a positive `{field}`");
    Error::new(Kind::InvalidModel, "config.json", message)
}
