//! Operations of the CPU backend, held against the MLX backend.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_core::quantization::Mode;
use serde_json::json;

use super::*;
use crate::ops::params::DistanceBias;
use crate::ops::rope::Rope;
use crate::ops::{CPU, MLX, Ops};
use crate::positions::Positions;

/// Both backends.
const BOTH: [&dyn Ops; 2] = [&CPU, &MLX];

/// Pseudo-random numbers around zero.
fn some(shape: &[i32]) -> Array {
    crate::mlx::noise(shape, 7)
}

#[track_caller]
fn alike(a: Array, b: Array) {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
    let apart = a.subtract(&b).unwrap().abs().unwrap().max(None).unwrap();
    let largest = b.abs().unwrap().max(None).unwrap();
    assert!(apart.item_exact::<f32>() <= 1e-5 * largest.item_exact::<f32>(), "{a} {b}");
}

/// Rows: one, a few, and more than one core computes alone.
const LENGTHS: [i32; 3] = [1, 7, 300];

/// Quantised weights with random codes, NaN excepted, and scales around one.
fn any(mode: Mode, bits: i32, group_size: i32) -> Weight {
    let random = |shape: &[i32]| -> Vec<u32> {
        let word = |n: i32| (n as u32 + 1).wrapping_mul(2_654_435_761).rotate_left(13);
        (0..shape.iter().product()).map(word).collect()
    };
    let mask = if mode == Mode::Mxfp8 { 0xbfbf_bfbf } else { u32::MAX };
    let shape = [96, 256 * bits / 32];
    let weight: Vec<u32> = random(&shape).iter().map(|word| word & mask).collect();
    let weight = Array::from_slice(&weight, &shape);
    let groups = [96, 256 / group_size];
    let few: Vec<u8> = random(&groups).iter().map(|word| (word % 16) as u8).collect();
    let powers: Vec<u8> = few.iter().map(|scale| scale + 120).collect();
    let scales = match mode {
        Mode::Affine => some(&groups),
        Mode::Nvfp4 => Array::from_slice(&few, &groups),
        _ => Array::from_slice(&powers, &groups),
    };
    let biases = (mode == Mode::Affine).then(|| some(&groups));
    Weight::Quantized(Quantized { weight, scales, biases, group_size, bits, mode })
}

#[test]
fn products_and_rows_are_those_of_mlx() {
    for mode in Mode::ALL {
        for (bits, group_size) in mode.supported() {
            let w = any(mode, bits as i32, group_size as i32);
            for length in LENGTHS {
                let x = some(&[1, length, 256]);
                alike(CPU.linear(&w, &x).unwrap(), MLX.linear(&w, &x).unwrap());
            }
            let ids = Array::from_slice(&[95u32, 0, 17], &[1, 3]);
            let theirs = MLX.embedding(&w, &ids).unwrap().as_dtype(Dtype::Float32).unwrap();
            alike(CPU.embedding(&w, &ids).unwrap(), theirs);
        }
    }
}

#[test]
fn floats_of_16_bits_are_those_that_they_widen_to() {
    for dtype in [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32] {
        let weight = some(&[96, 200]).as_dtype(dtype).unwrap();
        let wide = Weight::Dense(weight.as_dtype(Dtype::Float32).unwrap());
        let weights = Weight::Dense(weight);
        for length in LENGTHS {
            let x = some(&[1, length, 200]);
            alike(CPU.linear(&weights, &x).unwrap(), MLX.linear(&wide, &x).unwrap());
        }
        let ids = Array::from_slice(&[95u32, 0, 17], &[1, 3]);
        alike(CPU.embedding(&weights, &ids).unwrap(), MLX.embedding(&wide, &ids).unwrap());
    }
}

#[test]
fn a_row_that_is_not_there_is_an_error() {
    let w = any(Mode::Mxfp4, 4, 32);
    assert!(CPU.embedding(&w, &Array::from_slice(&[96u32], &[1, 1])).is_err());
}

#[test]
fn norms_sums_and_gates_are_those_of_mlx() {
    for length in LENGTHS {
        let (x, y) = (some(&[1, length, 256]), some(&[1, length, 256]).square().unwrap());
        for (centred, bias) in [(false, None), (true, None), (true, Some(some(&[256])))] {
            let scale = NormParams { weight: Some(some(&[256])), bias, eps: 1e-3, centred };
            alike(CPU.norm(&x, &scale).unwrap(), MLX.norm(&x, &scale).unwrap());
        }
        alike(CPU.add(&x, &y).unwrap(), MLX.add(&x, &y).unwrap());
        for activation in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Relu,
            Activation::ReluSquared,
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::ClippedSwish { alpha: 1.702, limit: 1.0 },
            Activation::Xielu { positive: 0.7, negative: 1.3, beta: 0.5, eps: -1e-6 },
        ] {
            let [ours, theirs] = BOTH.map(|ops| ops.glu(&x, &y, activation).unwrap());
            alike(ours, theirs);
            let [ours, theirs] = BOTH.map(|ops| ops.activate(&x, activation).unwrap());
            alike(ours, theirs);
        }
        alike(CPU.multiply(&x, &y).unwrap(), MLX.multiply(&x, &y).unwrap());
        let [ours, theirs] = BOTH.map(|ops| ops.split(&x, &[1, 250, 5]).unwrap());
        ours.into_iter().zip(theirs).for_each(|(a, b)| alike(a, b));
    }
}

#[test]
fn heads_are_those_of_mlx_in_every_kind_of_rotation() {
    let scale = |shape: &[i32], centred| NormParams {
        weight: Some(some(shape)),
        bias: None,
        eps: 1e-5,
        centred,
    };
    let norms = [scale(&[64], false), scale(&[64], true), scale(&[3, 64], true)];
    for (dims, traditional, scaling) in [
        (64, false, json!({})),
        (64, true, json!({})),
        (32, false, json!({"type": "linear", "factor": 3.0})),
        (64, false, json!({"type": "dynamic", "factor": 3.0})),
        (
            64,
            false,
            json!({"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}),
        ),
        (48, false, json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64})),
        (
            64,
            false,
            json!({"type": "longrope", "original_max_position_embeddings": 64,
                "long_factor": (0..32).map(|i| 1.0 + f64::from(i) / 8.0).collect::<Vec<_>>()}),
        ),
        (64, false, json!({"type": "proportional", "partial_rotary_factor": 0.25})),
    ] {
        let scaling_given = serde_json::from_value(scaling.clone()).unwrap();
        let rope = Rope::new(dims, traditional, 1e4, Some(100), Some(&scaling_given)).unwrap();
        for (length, offset) in [(1, 0), (1, 250), (7, 90), (300, 5)] {
            let x = some(&[1, length, 3 * 64]);
            let norms = [None].into_iter().chain(norms.iter().map(Some));
            for (norm, rotated_first) in norms.flat_map(|n| [(n, false), (n, true)]) {
                let rope = Some((&rope, offset.into()));
                let heads = HeadsParams { size: 64, norm, rotated_first, rope };
                let [ours, theirs] = BOTH.map(|ops| ops.split_heads(&x, &heads).unwrap());
                assert_eq!(ours.shape(), theirs.shape());
                let apart = ours.subtract(&theirs).unwrap().abs().unwrap().max(None).unwrap();
                let apart = apart.item_exact::<f32>();
                assert!(apart < 1e-3, "{scaling}, {length} from {offset}: {apart} apart");
            }
        }
    }
}

/// Rotary embeddings of every type, with positions of each row.
fn turned_by_rows(length: i32) -> (Vec<[i32; 3]>, Vec<(Rope, bool)>) {
    let rows = (0..length).map(|i| [i / 9, i % 9 + 40, 7 * i % 31]).collect();
    let mrope = |traditional, scaling| {
        let scaling = serde_json::from_value(scaling).unwrap();
        (Rope::new(48, traditional, 1e4, Some(100), Some(&scaling)).unwrap(), traditional)
    };
    let blocks = || json!({"type": "mrope", "mrope_section": [8, 10, 6]});
    let ropes = vec![
        (Rope::planar(64, 1e4), false),
        mrope(false, blocks()),
        mrope(true, blocks()),
        mrope(false, json!({"mrope_interleaved": true, "mrope_section": [12, 6, 6]})),
        mrope(false, json!({"type": "dynamic", "factor": 3.0})),
        mrope(false, json!({"type": "yarn", "factor": 4.0, "mrope_section": [8, 10, 6]})),
    ];
    (rows, ropes)
}

#[test]
fn heads_at_positions_of_their_own_are_those_of_mlx() {
    for length in LENGTHS {
        let (rows, ropes) = turned_by_rows(length);
        let x = some(&[1, length, 3 * 64]);
        for (rope, _) in &ropes {
            let rope = Some((rope, Positions::Rows(&rows)));
            let heads = HeadsParams { size: 64, norm: None, rotated_first: false, rope };
            let [ours, theirs] = BOTH.map(|ops| ops.split_heads(&x, &heads).unwrap());
            alike(ours, theirs);
        }
    }
}

#[test]
fn rows_in_order_turn_as_from_an_offset() {
    let rows: Vec<[i32; 3]> = (5..12).map(|i| [i; 3]).collect();
    let x = some(&[1, 7, 3 * 64]);
    for (rope, traditional) in turned_by_rows(7).1.iter().skip(1) {
        let turned = |ops: &dyn Ops, positions| {
            let rope = Some((rope, positions));
            let heads = HeadsParams { size: 64, norm: None, rotated_first: false, rope };
            ops.split_heads(&x, &heads).unwrap()
        };
        for ops in BOTH {
            let by_rows = turned(ops, Positions::Rows(&rows));
            let offset = turned(ops, 5.into());
            let apart = by_rows.subtract(&offset).unwrap().abs().unwrap().max(None).unwrap();
            assert!(apart.item_exact::<f32>() < 1e-4, "{traditional}");
        }
    }
}

/// Angles of M-RoPE with adjacent pairs per axis (Qwen2-VL) and alternating axes (Qwen3-VL).
#[test]
fn pairs_turn_by_the_axis_of_their_section() {
    let rows = [[3, 50, 700]];
    for (scaling, axes) in [
        (json!({"mrope_section": [1, 2, 3]}), [0, 1, 1, 2, 2, 2]),
        (json!({"mrope_section": [4, 1, 1], "mrope_interleaved": true}), [0, 1, 2, 0, 0, 0]),
        (json!({"mrope_section": [2, 2, 2], "mrope_interleaved": true}), [0, 1, 2, 0, 1, 2]),
    ] {
        let scaling = serde_json::from_value(scaling).unwrap();
        let rope = Rope::new(12, false, 100.0, None, Some(&scaling)).unwrap();
        let heads = HeadsParams {
            size: 12,
            norm: None,
            rotated_first: false,
            rope: Some((&rope, Positions::Rows(&rows))),
        };
        let ones: Vec<f32> = (0..12).map(|i| if i < 6 { 1.0 } else { 0.0 }).collect();
        let turned = CPU.split_heads(&Array::from_slice(&ones, &[1, 1, 12]), &heads).unwrap();
        for (pair, axis) in axes.into_iter().enumerate() {
            let angle = rows[0][axis] as f32 / 100f32.powf(pair as f32 / 6.0);
            assert!((elements(&turned).unwrap()[pair] - angle.cos()).abs() < 1e-4);
        }
    }
    let scaling = serde_json::from_value(json!({"mrope_section": [1, 2, 2]})).unwrap();
    assert!(Rope::new(12, false, 100.0, None, Some(&scaling)).is_err());
}

#[test]
fn attention_without_a_cache_is_that_of_mlx() {
    let masks = |queries: usize, keys: usize| {
        let near = |i: usize| i.saturating_sub(3)..(i + 4).min(keys);
        let mut masks =
            vec![Mask::All, Mask::Causal, Mask::Ranges((0..queries).map(near).collect())];
        if queries == keys {
            masks.extend([Mask::Blocks(vec![1; queries]), Mask::Blocks(vec![queries])]);
        }
        if queries == 130 {
            let lengths = vec![16, 16, 40, 16, 16, 16, 10];
            masks.push(Mask::Windows { lengths: lengths.clone(), near: 6 });
            masks.push(Mask::Windows { lengths: vec![130], near: 17 });
            masks.push(Mask::Blocks(lengths));
        }
        masks
    };
    for (queries, keys) in [(1, 1), (7, 7), (130, 130), (5, 9)] {
        let [k, v] = [3, 4].map(|seed| crate::mlx::noise(&[1, 2, keys as i32, 32], seed));
        let q = crate::mlx::noise(&[1, 6, queries as i32, 32], 5);
        for mask in masks(queries, keys) {
            for softcap in [None, Some(0.7)] {
                let scores = AttentionParams { scale: 0.3, softcap, sinks: None, bias: None };
                let [a, b] = BOTH.map(|ops| ops.attend(&q, [&k, &v], &mask, &scores).unwrap());
                assert_eq!(a.shape(), [1, queries as i32, 6 * 32]);
                let apart = a.subtract(&b).unwrap().abs().unwrap().max(None).unwrap();
                let apart = apart.item_exact::<f32>();
                assert!(apart < 1e-4, "{mask:?}: {apart} apart");
            }
        }
    }
}

#[test]
fn packed_sequences_attend_each_to_itself() {
    let scores = AttentionParams { scale: 0.3, softcap: None, sinks: None, bias: None };
    for lengths in [&[5][..], &[1, 2, 3, 2], &[40, 1, 90]] {
        let rows = lengths.iter().sum::<usize>() as i32;
        let [q, k, v] = [1, 2, 3].map(|seed| crate::mlx::noise(&[1, 2, rows, 32], seed));
        let [a, b] =
            BOTH.map(|ops| ops.attend(&q, [&k, &v], &Mask::packed(lengths), &scores).unwrap());
        let mut first = 0;
        let alone = lengths.iter().map(|&length| {
            let own = first..first + length as i32;
            first = own.end;
            let [q, k, v] = [&q, &k, &v].map(|x| crate::mlx::rows(x, own.clone()).unwrap());
            MLX.attend(&q, [&k, &v], &Mask::All, &scores).unwrap()
        });
        let alone = mlx_rs::ops::concatenate(&alone.collect::<Vec<_>>(), 1).unwrap();
        alike(a, alone.clone());
        alike(b, alone);
    }
}

#[test]
fn a_bias_by_distance_is_added_to_the_scores() {
    // Biases that leave each query one key: that one place after it, or else itself.
    let table: Vec<f32> = (0..2 * 5).map(|i| if i % 5 == 3 { 1e4 } else { i as f32 }).collect();
    let bias = DistanceBias { by_distance: Array::from_slice(&table, &[2, 5]), farthest: 2 };
    let scores = AttentionParams { scale: 0.3, softcap: None, sinks: None, bias: Some(bias) };
    for lengths in [&[4][..], &[3, 40, 1, 1, 85]] {
        let rows = lengths.iter().sum::<usize>() as i32;
        let [q, k, v] = [1, 2, 3].map(|seed| crate::mlx::noise(&[1, 2, rows, 32], seed));
        let mask = Mask::packed(lengths);
        let [a, b] = BOTH.map(|ops| ops.attend(&q, [&k, &v], &mask, &scores).unwrap());
        alike(a.clone(), b);
        let first = &elements(&a).unwrap()[..32];
        let next = &elements(&v).unwrap()[32..64];
        assert!(first.iter().zip(next).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
