//! Resizing as Pillow 12 does it, to the byte.
//!
//! Models were trained on what Pillow makes of a picture, and the references run on it. Its pass
//! over the columns comes first and is rounded to bytes before the pass over the rows; weights have
//! 22 bits after the point. fast_image_resize makes the passes in the other order: a fifth of its
//! values differ, by up to seven levels with Lanczos.

use std::f64::consts::PI;

use mlxk_core::{Error, Kind, Result};
use rayon::prelude::*;

use super::decode::MAX_PIXELS;
use super::rgb::{Rgb, Size};

/// Fractional bits of a fixed-point weight: 32, less 8 for the value and 2 for filter overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// Resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Nearest neighbour: the source pixel that contains the centre of the new one.
    Nearest,
    /// Bilinear: a triangle filter with a support of one pixel.
    Bilinear,
    /// Keys' cubic convolution with a = -0.5 and a support of two pixels.
    Bicubic,
    /// Lanczos: a windowed sinc with a support of three pixels.
    Lanczos,
}

impl Filter {
    /// The filter of a number in a `resample` key, as Pillow numbers them.
    pub fn numbered(number: u64) -> Option<Filter> {
        Some(match number {
            0 => Filter::Nearest,
            1 => Filter::Lanczos,
            2 => Filter::Bilinear,
            3 => Filter::Bicubic,
            _ => return None,
        })
    }

    /// The distance from its centre at which the filter becomes 0, in pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.0,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre, not yet normalised.
    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let near = x.abs();
        match self {
            Filter::Bilinear if near < 1.0 => 1.0 - near,
            Filter::Bicubic if near < 1.0 => ((A + 2.0) * near - (A + 3.0)) * near * near + 1.0,
            Filter::Bicubic if near < 2.0 => (((near - 5.0) * near + 8.0) * near - 4.0) * A,
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// The picture at another size; the picture itself if it has that size.
///
/// Fails with [`Kind::Validation`] if a side is 0, or if the result or what lies between the two
/// passes is larger than [`MAX_PIXELS`].
pub fn resize(picture: &Rgb, size: Size, filter: Filter) -> Result<Rgb> {
    let from = picture.size;
    // Pillow's exception: very tall pictures shrink in height first.
    let tall = from.height > 100 * from.width && size.height < from.height;
    let between = match tall {
        true => Size { width: from.width, height: size.height },
        false => Size { width: size.width, height: from.height },
    };
    if !fits(size) || !fits(between) {
        let Size { width, height } = size;
        let message = format!(
            "picture of {} x {} pixels cannot be resized to {width} x {height}",
            from.width, from.height
        );
        return Err(Error::new(Kind::Validation, "image", message));
    }
    if size == from {
        return Ok(picture.clone());
    }
    Ok(match (filter, tall) {
        (Filter::Nearest, _) => nearest(picture, size),
        (_, true) => columns(&rows(picture, size.height, filter), size.width, filter),
        (_, false) => rows(&columns(picture, size.width, filter), size.height, filter),
    })
}

fn fits(size: Size) -> bool {
    size.pixels().is_some_and(|pixels| (1..=MAX_PIXELS).contains(&pixels))
}

/// The source pixels that contribute to one new pixel, and their fixed-point weights.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// The taps of every pixel of a line that goes from `from` to `to` pixels.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        // A cast cuts off the fraction, and makes what is below 0 a 0.
        let start = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let inverse = 1.0 / stretch;
        let weight = |x: usize| filter.weight((x as f64 - centre + 0.5) * inverse);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        let fixed = |weight: &f64| {
            let weight = weight / sum * f64::from(1 << PRECISION);
            (if weight < 0.0 { weight - 0.5 } else { weight + 0.5 }) as i32
        };
        Taps { start, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(one).collect()
}

/// A fixed-point sum of weighted bytes as a byte; the sum starts at 0.5, so that the shift rounds.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// The picture resized to another number of columns, row by row.
fn columns(picture: &Rgb, width: usize, filter: Filter) -> Rgb {
    let Size { width: from, height } = picture.size;
    if from == width {
        return picture.clone();
    }
    let taps = taps(from, width, filter);
    let mut pixels = vec![0; 3 * width * height];
    pixels.par_chunks_exact_mut(3 * width).zip(picture.pixels.par_chunks_exact(3 * from)).for_each(
        |(new, old)| {
            for (new, taps) in new.chunks_exact_mut(3).zip(&taps) {
                let mut sums = [HALF; 3];
                let old = old[3 * taps.start..].chunks_exact(3);
                for (old, weight) in old.zip(&taps.weights) {
                    sums[0] += i32::from(old[0]) * weight;
                    sums[1] += i32::from(old[1]) * weight;
                    sums[2] += i32::from(old[2]) * weight;
                }
                new.copy_from_slice(&sums.map(byte));
            }
        },
    );
    Rgb { size: Size { width, height }, pixels }
}

/// The picture resized to another number of rows, as weighted sums of whole rows.
fn rows(picture: &Rgb, height: usize, filter: Filter) -> Rgb {
    let Size { width, height: from } = picture.size;
    if from == height {
        return picture.clone();
    }
    let taps = taps(from, height, filter);
    let mut pixels = vec![0; 3 * width * height];
    pixels.par_chunks_exact_mut(3 * width).zip(&taps).for_each_init(
        || vec![0; 3 * width],
        |sums, (new, taps)| {
            sums.fill(HALF);
            let old = picture.pixels[3 * width * taps.start..].chunks_exact(3 * width);
            for (old, weight) in old.zip(&taps.weights) {
                for (sum, old) in sums.iter_mut().zip(old) {
                    *sum += i32::from(*old) * weight;
                }
            }
            for (new, sum) in new.iter_mut().zip(&*sums) {
                *new = byte(*sum);
            }
        },
    );
    Rgb { size: Size { width, height }, pixels }
}

/// The nearest-neighbour resize. The centres of the new pixels are computed by repeated addition,
/// as in Pillow: its rounding decides for a centre on an edge.
fn nearest(picture: &Rgb, size: Size) -> Rgb {
    let centres = |from: usize, to: usize| {
        let step = from as f64 / to as f64;
        let mut centre = step * 0.5;
        let mut next = move || {
            let at = (centre as usize).min(from - 1);
            centre += step;
            at
        };
        (0..to).map(|_| next()).collect::<Vec<_>>()
    };
    let across = centres(picture.size.width, size.width);
    let mut pixels = Vec::with_capacity(3 * size.width * size.height);
    for y in centres(picture.size.height, size.height) {
        let row = &picture.pixels[3 * picture.size.width * y..];
        for x in &across {
            pixels.extend_from_slice(&row[3 * x..3 * x + 3]);
        }
    }
    Rgb { size, pixels }
}
