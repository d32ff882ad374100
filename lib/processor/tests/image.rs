//! Pictures: decoded and resized as by Pillow 12.3, cut up as by mlx-vlm 0.7.10, refused if bad.
//! `tests/make-pictures` made the data.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::Kind;
use mlxk_processor::image::{Filter, ImageProcessor, Rgb, Size, decode, resize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(data(name)).unwrap()
}

fn expected() -> Value {
    serde_json::from_slice(&bytes("expected.json")).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn size(value: &Value) -> Size {
    Size { width: number(&value["width"]), height: number(&value["height"]) }
}

fn refusal(bytes: &[u8]) -> String {
    let error = decode(bytes).unwrap_err();
    assert_eq!(error.kind, Kind::Validation);
    error.message
}

#[test]
fn pictures_are_decoded_as_pillow_does() {
    for entry in expected()["decoded"].as_array().unwrap() {
        let name = entry["file"].as_str().unwrap();
        let picture = decode(&bytes(name)).unwrap();
        assert_eq!(picture.size, size(entry), "{name}");
        if let Some(hash) = entry["sha256"].as_str() {
            assert_eq!(sha256(&picture.pixels), hash, "{name}");
        } else {
            near(name, &picture, &decode(&bytes(&format!("{name}.png"))).unwrap());
        }
    }
}

/// JPEG decoders differ by a few levels, most where colour was stored at half the resolution.
fn near(name: &str, picture: &Rgb, reference: &Rgb) {
    let pairs = picture.pixels.iter().zip(&reference.pixels);
    let mut apart: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
    apart.sort_unstable();
    let (most, last) = (apart[apart.len() * 95 / 100], apart[apart.len() - 1]);
    let subsampled = name == "subsampled.jpg";
    assert!(most <= if subsampled { 4 } else { 1 }, "{name}: {most}");
    assert!(last <= if subsampled { 10 } else { 4 }, "{name}: {last}");
}

#[test]
fn pictures_are_resized_as_pillow_does() {
    for entry in expected()["resized"].as_array().unwrap() {
        let filter = match entry["filter"].as_str().unwrap() {
            "nearest" => Filter::Nearest,
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Lanczos,
        };
        let picture = decode(&bytes(entry["file"].as_str().unwrap())).unwrap();
        let resized = resize(&picture, size(entry), filter).unwrap();
        assert_eq!(resized.size, size(entry));
        assert_eq!(sha256(&resized.pixels), entry["sha256"].as_str().unwrap(), "{entry}");
    }
}

#[test]
fn nothing_is_resized_to_nothing_or_beyond_the_limit() {
    let picture = Rgb { size: Size { width: 2, height: 100 }, pixels: vec![0; 600] };
    for (width, height) in [(0, 5), (5, 0), (20_000, 20_000), (usize::MAX, 2), (20_000_000, 1)] {
        let error = resize(&picture, Size { width, height }, Filter::Bicubic).unwrap_err();
        assert_eq!(error.kind, Kind::Validation);
    }
}

#[test]
fn a_picture_that_is_cut_short_is_refused_and_never_half_decoded() {
    for name in ["rgba.png", "rgb.jpg", "progressive.jpg", "animated.gif", "rgb.bmp", "lossy.webp"]
    {
        let whole = bytes(name);
        let picture = decode(&whole).unwrap();
        for part in 0..whole.len() {
            if let Ok(part) = decode(&whole[..part]) {
                assert_eq!(part, picture, "{name}");
            }
        }
        let message = refusal(&whole[..whole.len() / 3]);
        assert!(message.contains("data is"), "{name}: {message}");
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    assert_eq!(refusal(b""), "file is empty");
    assert!(refusal(b"What is in this picture?").starts_with("not a picture; PNG, JPEG"));
    assert!(refusal(b"\0\0\0\x18ftypheic\0\0\0\0").starts_with("HEIC is not supported"));
    assert!(refusal(b"II*\0\x08\0\0\0").starts_with("TIFF is not supported"));
}

#[test]
fn what_would_be_too_large_is_refused_before_it_is_decoded() {
    let mut bomb = bytes("rgb.bmp");
    bomb[18..22].copy_from_slice(&40_000u32.to_le_bytes());
    bomb[22..26].copy_from_slice(&40_000u32.to_le_bytes());
    let message = refusal(&bomb);
    assert!(message.starts_with("picture of 40000 x 40000 pixels is too large"), "{message}");
}

fn processor(preprocessor: &Value) -> mlxk_core::Result<ImageProcessor> {
    ImageProcessor::new("qwen2_5_vl", preprocessor, &Value::Null)
}

#[test]
fn qwen_pixels_equal_those_of_mlx_vlm() {
    let case = &expected()["qwen2_5_vl"];
    let file = bytes(case["file"].as_str().unwrap());
    let pixels = processor(&case["preprocessor"]).unwrap().process(&file).unwrap();
    assert_eq!(json!(pixels.grid), case["grid"]);
    assert_eq!(json!([pixels.rows, pixels.columns]), case["shape"]);
    assert_eq!(json!(pixels.tokens), case["tokens"]);
    assert_eq!(pixels.values.len(), pixels.rows * pixels.columns);
    let head: Vec<f64> = serde_json::from_value(case["head"].clone()).unwrap();
    for (value, expected) in pixels.values.iter().zip(head) {
        assert!((f64::from(*value) - expected).abs() < 1e-6, "{value} {expected}");
    }
    for (key, sum) in [
        ("sum", pixels.values.iter().map(|&value| f64::from(value)).sum::<f64>()),
        ("abs_sum", pixels.values.iter().map(|&value| f64::from(value.abs())).sum()),
    ] {
        let expected = case[key].as_f64().unwrap();
        assert!((sum - expected).abs() < 1e-5 * expected.abs(), "{key}: {sum} {expected}");
    }
}

#[test]
fn a_picture_has_one_hash_in_every_file_and_another_at_another_size() {
    let hash = |min_pixels: usize, name: &str| {
        let processor = processor(&json!({"min_pixels": min_pixels})).unwrap();
        processor.process(&bytes(name)).unwrap().hash
    };
    let one = hash(10_000, "rgb.bmp");
    assert_eq!(one, hash(10_000, "lossless.webp"));
    assert_ne!(one, hash(10_000, "turned-2.png"));
    assert_ne!(one, hash(20_000, "rgb.bmp"));
}

#[test]
fn later_files_win_and_null_is_the_default() {
    let first = json!({"patch_size": 16, "merge_size": null, "size": {"longest_edge": 4096}});
    let over = json!({"image_processor": {"patch_size": 8, "min_pixels": null}});
    let processor = ImageProcessor::new("qwen2_vl", &first, &over).unwrap();
    let pixels = processor.process(&bytes("rings-131x97.png")).unwrap();
    assert_eq!((pixels.grid, pixels.columns), ([1, 6, 8], 3 * 2 * 8 * 8));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for (settings, key) in [
        (json!({"patch_size": 0}), "patch_size"),
        (json!({"patch_size": "14"}), "patch_size"),
        (json!({"merge_size": 2.5}), "merge_size"),
        (json!({"size": {"longest_edge": -1}}), "size.longest_edge"),
        (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
        (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
        (json!({"resample": 7}), "resample"),
        (json!({"do_rescale": 1}), "do_rescale"),
        (json!([]), "preprocessor_config.json"),
    ] {
        let error = processor(&settings).err().unwrap();
        assert_eq!(error.kind, Kind::InvalidModel);
        assert!(error.message.starts_with(&format!("{key} ")), "{}", error.message);
    }
    let unknown = ImageProcessor::new("llama", &Value::Null, &Value::Null).err().unwrap();
    assert_eq!(unknown.kind, Kind::CapabilityNotSupported);
}

#[test]
fn a_picture_too_narrow_for_the_model_is_refused() {
    let mut narrow = bytes("rgb.bmp");
    narrow.truncate(54 + 4);
    narrow[18..22].copy_from_slice(&1u32.to_le_bytes());
    narrow[22..26].copy_from_slice(&201u32.to_le_bytes());
    narrow.resize(54 + 4 * 201, 0);
    let error = processor(&Value::Null).unwrap().process(&narrow).unwrap_err();
    assert_eq!(error.kind, Kind::Validation);
    assert!(error.message.contains("too narrow"), "{}", error.message);
}
