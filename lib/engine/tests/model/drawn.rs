//! Weights that are drawn by a rule instead of being stored, as `tests/make-parity` draws them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlxk_core::tensors::Dtype;
use serde::Deserialize;

use super::Tensor;

/// The tensors that the file `expected` of a case lists.
pub fn all(expected: &Path) -> BTreeMap<String, Tensor> {
    let expected: Expected = serde_json::from_slice(&fs::read(expected).unwrap()).unwrap();
    let tensor = |drawn: Drawn| (drawn.0.clone(), drawn.tensor(expected.seed));
    expected.tensors.into_iter().map(tensor).collect()
}

#[derive(Deserialize)]
struct Expected {
    /// Which variant of the tensors.
    seed: u64,
    tensors: Vec<Drawn>,
}

/// A tensor of a case: its name, type and shape, and what its elements are drawn from. Those of
/// floats are `centre + spread * u` with `u` from -1 to 1, integers `centre + (bits & spread)`.
#[derive(Deserialize)]
struct Drawn(String, Dtype, Vec<usize>, f64, f64);

impl Drawn {
    fn tensor(&self, seed: u64) -> Tensor {
        let Drawn(name, dtype, shape, centre, spread) = self;
        let start = fnv(format!("{seed}:{name}").as_bytes());
        let bits = (1..=shape.iter().product::<usize>() as u64).map(|i| split_mix(start, i));
        let float = |bits: u64| {
            let u = (bits >> 40) as f64 / f64::from(1 << 23) - 1.0;
            (centre + spread * u) as f32
        };
        let integer = |bits: u64| *centre as u32 + ((bits >> 32) as u32 & *spread as u32);
        let bytes = match dtype {
            Dtype::F32 => bits.flat_map(|b| float(b).to_le_bytes()).collect(),
            Dtype::BF16 => bits.flat_map(|b| bfloat(float(b)).to_le_bytes()).collect(),
            Dtype::F16 => bits.flat_map(|b| half::f16::from_f32(float(b)).to_le_bytes()).collect(),
            Dtype::U32 | Dtype::I32 => bits.flat_map(|b| integer(b).to_le_bytes()).collect(),
            Dtype::U8 | Dtype::I8 | Dtype::F8_E4M3 | Dtype::F8_E8M0 => {
                bits.map(|b| integer(b) as u8).collect()
            }
            other => panic!("no rule draws elements of type {other}"),
        };
        Tensor { dtype: *dtype, shape: shape.clone(), bytes }
    }
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Number `i` of SplitMix64 from `start`.
fn split_mix(start: u64, i: u64) -> u64 {
    let z = start.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rounded to the nearest, ties to even.
fn bfloat(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
