//! Towers compute what the Python reference computes from the same pixels, on a tiny model of each
//! family.
//!
//! A case is a folder of `tests/data/vision`; mlx-vlm 0.7.10 gave its features and positions.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlx_rs::{Array, Dtype};
use mlxk_core::tensors::Header;
use mlxk_core::{Architecture, Float, Found, Kind, Origin, probe};
use mlxk_models::checkpoint::file::{map, place};
use mlxk_models::checkpoint::formats::{Checkpoint, sanitize};
use mlxk_models::checkpoint::tensor::{Bytes, Tensor};
use mlxk_models::checkpoint::weights::{Inventory, LoadOptions};
use mlxk_models::vision::{self, Load, Picture, Tower, mrope, qwen_vl};
use mlxk_models::{registry, sketch};
use mlxk_tensor::ops::{CPU, MLX};
use mlxk_tensor::{affine, floats};
use serde_json::{Value, json};

/// Every case with the constructor of its tower.
const CASES: [(&str, Load); 2] = [("qwen2_5_vl", qwen_vl::load), ("qwen2_vl", qwen_vl::load)];

/// Patches of the longer case, from top to bottom and from left to right.
const GRID: [i32; 3] = [1, 6, 10];

fn path(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision").join(case)
}

fn expected(case: &str) -> Value {
    serde_json::from_slice(&fs::read(path(case).join("expected.json")).unwrap()).unwrap()
}

/// The tiny model `case`, in MLX's form.
fn checkpoint(case: &str) -> Checkpoint {
    let found =
        Found { name: case.into(), path: path(case), revision: None, origin: Origin::Workspace };
    sketch::read(&probe::read(&found).unwrap(), Architecture::find(case).unwrap()).unwrap()
}

/// `pixel_values` and `features` of the reference.
fn reference(case: &str) -> [Array; 2] {
    let path = path(case).join("reference/tensors.safetensors");
    let size = fs::metadata(&path).unwrap().len();
    let header = Header::read(&mut File::open(&path).unwrap(), size).unwrap();
    let file = Arc::new(map(&path).unwrap());
    ["pixel_values", "features"].map(|name| {
        let tensor = header.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        place(tensor, &file, &path).unwrap().array().unwrap()
    })
}

/// Grids of the pictures of a case.
fn grids(expected: &Value) -> Vec<[i32; 3]> {
    serde_json::from_value(expected["processor_outputs"]["image_grid_thw"].clone()).unwrap()
}

/// A picture of one piece.
fn picture(pixels: &Array, grid: [i32; 3]) -> Picture<'_> {
    Picture { pixels, grid, tiles: [0, 0], kept: [grid[1], grid[2]] }
}

/// Loads the tower in the form for a CPU or in that for a GPU.
fn loaded(
    of: Load,
    checkpoint: &Checkpoint,
    on_cpu: bool,
) -> mlxk_core::Result<Option<(Box<dyn Tower>, Inventory)>> {
    let form = LoadOptions {
        ops: if on_cpu { &CPU } else { &MLX },
        widen: on_cpu,
        sketch: false,
        part: None,
    };
    vision::load(of, &checkpoint.config, &checkpoint.tensors, form)
}

fn tower(of: Load, checkpoint: &Checkpoint, on_cpu: bool) -> Box<dyn Tower> {
    loaded(of, checkpoint, on_cpu).unwrap().unwrap().0
}

/// Why the tower of a qwen2_5_vl cannot be loaded.
fn refused(checkpoint: &Checkpoint) -> String {
    match loaded(qwen_vl::load, checkpoint, true) {
        Ok(_) => panic!("the tower was loaded"),
        Err(e) => e.to_string(),
    }
}

/// Largest difference of two arrays, relative to the largest element.
fn apart(a: &Array, b: &Array) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let largest = |x: &Array| x.abs().unwrap().max(None).unwrap().item_exact::<f32>();
    let a = a.as_dtype(Dtype::Float32).unwrap();
    largest(&a.subtract(b).unwrap()) / largest(b)
}

/// The rows `order` of an array.
fn picked(x: &Array, order: impl Iterator<Item = i32>) -> Array {
    let order: Vec<i32> = order.collect();
    x.take_axis(Array::from_slice(&order, &[order.len() as i32]), 0).unwrap()
}

#[test]
fn features_are_those_of_the_reference() {
    for (case, of) in CASES {
        let [pixels, features] = reference(case);
        let grids = grids(&expected(case));
        for on_cpu in [true, false] {
            let encoded =
                tower(of, &checkpoint(case), on_cpu).encode(&picture(&pixels, grids[0])).unwrap();
            let apart = apart(&encoded.rows, &features);
            assert!(apart <= 2e-4, "{case}, on a CPU {on_cpu}: {apart}");
            assert!(encoded.deep.is_empty());
        }
    }
}

#[test]
fn floats_of_16_bits_are_computed_with_as_such_on_a_gpu() {
    for (case, of) in CASES {
        let [pixels, features] = reference(case);
        let grids = grids(&expected(case));
        let mut checkpoint = checkpoint(case);
        for tensor in checkpoint.tensors.values_mut() {
            let wide = tensor.clone();
            *tensor = Tensor::made(Dtype::Bfloat16, wide.shape.clone(), move || {
                wide.read(|bytes| {
                    Bytes::of(&floats::narrow(&floats::widen(bytes, Float::F32), Float::BF16))
                })?
            });
        }
        for (on_cpu, dtype) in [(true, Dtype::Float32), (false, Dtype::Bfloat16)] {
            let rows =
                tower(of, &checkpoint, on_cpu).encode(&picture(&pixels, grids[0])).unwrap().rows;
            assert_eq!(rows.dtype(), dtype);
            let apart = apart(&rows, &features);
            assert!(apart <= 2e-2, "{case}, on a CPU {on_cpu}: {apart}");
        }
    }
}

#[test]
fn frames_of_a_video_see_their_own_frame() {
    let (case, of) = CASES[0];
    let [pixels, features] = reference(case);
    let twice = picked(&pixels, (0..60).chain(0..60));
    let rows =
        tower(of, &checkpoint(case), true).encode(&picture(&twice, [2, 6, 10])).unwrap().rows;
    assert!(apart(&rows, &picked(&features, (0..15).chain(0..15))) < 2e-4);
}

/// PyTorch has the channels of a convolution before its kernel, and transformers other names.
#[test]
fn checkpoints_of_transformers_have_the_same_towers() {
    for (case, of) in CASES {
        let [pixels, features] = reference(case);
        let grids = grids(&expected(case));
        for prefix in ["visual.", "model.visual."] {
            let Checkpoint { config, tensors } = checkpoint(case);
            let theirs = |(name, tensor): (String, Tensor)| {
                let tensor = if name.ends_with("patch_embed.proj.weight") {
                    channels_first(&tensor)
                } else {
                    tensor
                };
                (name.replace("vision_tower.", prefix), tensor)
            };
            let tensors = tensors.into_iter().map(theirs).collect();
            let architecture = Architecture::find(case).unwrap();
            let mut adapted = Checkpoint { config, tensors };
            let spec = registry::spec(architecture);
            sanitize(&mut adapted, spec.sanitize, &spec.experts).unwrap();
            let rows = tower(of, &adapted, true).encode(&picture(&pixels, grids[0])).unwrap().rows;
            assert!(apart(&rows, &features) <= 2e-4, "{case} at {prefix}");
        }
    }
}

/// [out, frames, height, width, channels] to [out, channels, frames, height, width].
fn channels_first(weight: &Tensor) -> Tensor {
    let turned = weight.array().unwrap().transpose_axes(&[0, 4, 1, 2, 3]).unwrap();
    let shape = turned.shape().iter().map(|&n| n as usize).collect();
    let elements = turned.contiguous().unwrap().to_vec_exact::<f32>().unwrap();
    stored(Dtype::Float32, shape, floats::narrow(&elements, Float::F32))
}

fn stored(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Tensor {
    Tensor::made(dtype, shape, move || Bytes::of(&bytes))
}

/// mlx-vlm quantises every matrix of a tower whose rows are whole groups, convolutions not.
#[test]
fn quantised_towers_come_close() {
    for (case, of) in CASES {
        let [pixels, features] = reference(case);
        let grids = grids(&expected(case));
        let mut checkpoint = checkpoint(case);
        let count = quantise(&mut checkpoint.tensors);
        checkpoint.config["quantization"] = json!({"group_size": 32, "bits": 8});
        let [cpu, gpu] = [true, false].map(|on_cpu| {
            let (tower, taken) = loaded(of, &checkpoint, on_cpu).unwrap().unwrap();
            let packed = taken.matrices.values().flatten().count();
            assert_eq!(packed, count, "{case}: {:?}", taken.matrices.keys());
            tower.encode(&picture(&pixels, grids[0])).unwrap().rows
        });
        for rows in [&cpu, &gpu] {
            let apart = apart(rows, &features);
            assert!((1e-4..=5e-2).contains(&apart), "{case}: {apart}");
        }
        assert!(apart(&cpu, &gpu) <= 2e-4, "{case}");
    }
}

/// Quantises the matrices of a tower that can be, and says how many they are.
fn quantise(tensors: &mut BTreeMap<String, Tensor>) -> usize {
    let wanted = |(name, tensor): (&String, &Tensor)| {
        let stem = name.strip_prefix("vision_tower.")?.strip_suffix(".weight")?;
        let whole = matches!(tensor.shape[..], [_, ins] if ins.is_multiple_of(32));
        whole.then(|| format!("vision_tower.{stem}"))
    };
    let stems: Vec<String> = tensors.iter().filter_map(wanted).collect();
    for stem in &stems {
        let weight = tensors.remove(&format!("{stem}.weight")).unwrap();
        let [outs, ins] = weight.shape[..] else { unreachable!() };
        let packed = weight
            .read(|bytes| affine::quantize(&floats::widen(bytes, Float::F32), 32, 8))
            .unwrap();
        let groups = |scales: Vec<f32>| {
            stored(Dtype::Float32, vec![outs, ins / 32], floats::narrow(&scales, Float::F32))
        };
        for (part, tensor) in [
            ("weight", stored(Dtype::Uint32, vec![outs, ins / 4], packed.codes)),
            ("scales", groups(packed.scales)),
            ("biases", groups(packed.biases)),
        ] {
            tensors.insert(format!("{stem}.{part}"), tensor);
        }
    }
    stems.len()
}

#[test]
fn models_without_a_tower_are_language_models() {
    let mut bare = checkpoint("qwen2_5_vl");
    bare.config["vision_config"] = Value::Null;
    assert!(loaded(qwen_vl::load, &bare, true).unwrap().is_none());
    let mut bare = checkpoint("qwen2_5_vl");
    bare.tensors.retain(|name, _| name.starts_with("language_model."));
    assert!(loaded(qwen_vl::load, &bare, true).unwrap().is_none());
}

#[test]
fn towers_of_another_form_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = checkpoint("qwen2_5_vl");
        change(&mut checkpoint);
        refused(&checkpoint)
    };
    let more = with(&|all| {
        let tensor = all.tensors["vision_tower.merger.ln_q.weight"].clone();
        all.tensors.insert("vision_tower.merger.ln_k.weight".into(), tensor);
    });
    assert!(more.contains("vision_tower.merger.ln_k.weight"), "{more}");
    let less = with(&|all| drop(all.tensors.remove("vision_tower.blocks.1.attn.proj.weight")));
    assert!(less.contains("vision_tower.blocks.1.attn.proj.weight"), "{less}");
    for (field, value) in [
        ("num_heads", 5),
        ("num_heads", 0),
        ("spatial_merge_size", 0),
        ("window_size", 20),
        ("patch_size", 7),
        ("patch_size", 1_000_000_000),
        ("in_chans", 1_000_000_000),
        ("depth", 1_000_000_000),
    ] {
        let why = with(&|all| all.config["vision_config"][field] = value.into());
        assert!(!why.is_empty(), "{field}");
    }
    with(&|all| all.config["vision_config"] = "tiny".into());
    with(&|all| all.config["vision_config"] = json!({"depth": "three"}));
}

#[test]
fn pixels_that_do_not_fit_are_an_error() {
    let [pixels, _] = reference("qwen2_5_vl");
    let tower = tower(qwen_vl::load, &checkpoint("qwen2_5_vl"), true);
    for grid in [[1, 6, 8], [1, 5, 12], [0, 6, 10], [1, -6, -10], [2, 6, 10]] {
        assert!(tower.encode(&picture(&pixels, grid)).is_err(), "{grid:?}");
    }
    let narrow = pixels.reshape(&[120, -1]).unwrap();
    assert!(tower.encode(&picture(&narrow, [1, 12, 10])).is_err());
    assert!(tower.encode(&picture(&pixels.reshape(&[-1]).unwrap(), GRID)).is_err());
}

#[test]
fn positions_are_those_of_the_reference() {
    for (case, _) in CASES {
        let expected = expected(case);
        let ids: Vec<u32> = serde_json::from_value(expected["prompt_ids"].clone()).unwrap();
        let image = expected["image_token_id"].as_u64().unwrap() as u32;
        let positions = mrope::positions(&ids, image, &grids(&expected), 2).unwrap();
        let axes = [0, 1, 2].map(|axis| positions.rows.iter().map(|row| row[axis]).collect());
        let axes: [Vec<i32>; 3] = axes;
        assert_eq!(json!(axes), expected["position_ids"], "{case}");
        assert_eq!(json!(positions.delta), expected["rope_delta"], "{case}");
    }
}

#[test]
fn positions_go_on_after_every_picture() {
    const IMAGE: u32 = 9;
    let positions = |ids: &[u32], grids: &[[i32; 3]]| mrope::positions(ids, IMAGE, grids, 2);
    let text = positions(&[1, 2, 3], &[]).unwrap();
    assert_eq!((text.rows, text.delta), (vec![[0; 3], [1; 3], [2; 3]], 0));
    // A picture of one row and two columns, one of two frames right behind it, and text.
    let two = positions(&[1, 9, 9, 9, 9, 5], &[[1, 2, 4], [2, 2, 2]]).unwrap();
    let rows = vec![[0; 3], [1, 1, 1], [1, 1, 2], [3, 3, 3], [4, 3, 3], [5; 3]];
    assert_eq!((two.rows, two.delta), (rows, 0));
    for (ids, grids) in [
        (&[1, 9, 9][..], &[][..]),
        (&[1, 9, 9], &[[1, 2, 6]]),
        (&[9, 9, 1], &[[1, 2, 6]]),
        (&[9, 9, 9], &[[1, 2, 4]]),
        (&[9, 9], &[[1, 2, 4], [1, 2, 4]]),
        (&[9, 9], &[[1, 0, 4]]),
    ] {
        assert_eq!(positions(ids, grids).unwrap_err().kind, Kind::Validation, "{ids:?}");
    }
}
