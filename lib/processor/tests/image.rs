//! Pictures: decoded and resized as by Pillow 12.3, cut up as by mlx-vlm 0.7.10 and transformers
//! 5.24, refused if bad.
//! `tests/make-pictures` made the data.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::Kind;
use mlxk_processor::image::{Filter, ImageProcessor, Pixels, Rgb, Size, decode, resize};
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
    let mut bomb = black(1, 1);
    bomb[18..22].copy_from_slice(&40_000u32.to_le_bytes());
    bomb[22..26].copy_from_slice(&40_000u32.to_le_bytes());
    let message = refusal(&bomb);
    assert!(message.starts_with("picture of 40000 x 40000 pixels is too large"), "{message}");
}

fn processor(preprocessor: &Value) -> mlxk_core::Result<ImageProcessor> {
    ImageProcessor::new(&json!({"model_type": "qwen2_5_vl"}), preprocessor, &Value::Null)
}

#[test]
fn pixels_of_every_family_equal_those_of_the_reference() {
    for model in expected()["models"].as_array().unwrap() {
        let name = model["config"]["model_type"].as_str().unwrap();
        let file = model["file"].as_str().unwrap();
        let [config, preprocessor, processor] =
            ["config", "preprocessor", "processor"].map(|key| &model[key]);
        let processor = ImageProcessor::new(config, preprocessor, processor).unwrap();
        let pixels = processor.process(&bytes(file)).unwrap();
        assert_eq!(json!(pixels.tokens), model["tokens"], "{name}");
        assert_eq!(pixels.values.len(), pixels.rows * pixels.columns);
        assert_eq!(pixels.rows, pixels.grid.iter().product::<usize>());
        // A JPEG decoder is a few levels off in places.
        let close = if file.ends_with(".jpg") { 4.0 / 255.0 / 0.5 } else { 1e-5 };
        let shape: Vec<usize> = serde_json::from_value(model["shape"].clone()).unwrap();
        let head: Vec<f32> = serde_json::from_value(model["head"].clone()).unwrap();
        for (i, expected) in head.into_iter().enumerate() {
            let value = pixels.values[at(&pixels, &shape, i)];
            assert!((value - expected).abs() <= close, "{name} {i}: {value} {expected}");
        }
        for (key, sum) in [
            ("sum", pixels.values.iter().map(|&value| f64::from(value)).sum::<f64>()),
            ("abs_sum", pixels.values.iter().map(|&value| f64::from(value.abs())).sum()),
        ] {
            let expected = model[key].as_f64().unwrap();
            let close = f64::from(close) * pixels.values.len() as f64 / 100.0;
            assert!((sum - expected).abs() < close, "{name} {key}: {sum} {expected}");
        }
    }
}

/// Where value `i` of the reference is, whose `shape` is `[.., channels, height, width]`, or that of
/// the matrix itself.
fn at(pixels: &Pixels, shape: &[usize], i: usize) -> usize {
    let [.., 3, height, width] = *shape else {
        assert_eq!(shape, [pixels.rows, pixels.columns]);
        return i;
    };
    let [_, down, across] = pixels.grid;
    let side = height / down;
    let (tile, channel) = (i / (3 * height * width), i / (height * width) % 3);
    let (y, x) = (i / width % height, i % width);
    let row = (tile * down + y / side) * across + x / side;
    row * pixels.columns + (y % side * side + x % side) * 3 + channel
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
    let config = json!({"model_type": "qwen2_vl"});
    let processor = ImageProcessor::new(&config, &first, &over).unwrap();
    let pixels = processor.process(&bytes("rings-131x97.png")).unwrap();
    assert_eq!((pixels.grid, pixels.columns), ([1, 6, 8], 3 * 2 * 8 * 8));
}

/// A picture's width and height, and what is made of it: width and height, tiles, tokens.
type Shape = ((u32, u32), (usize, usize), [usize; 2], usize);

/// What transformers 5.24 and mlx-vlm 0.7.10 make of awkward shapes: `model_type`,
/// `preprocessor_config.json`, shapes.
const SHAPES: &[(&str, &str, &[Shape])] = &[
    (
        "gemma4",
        r#"{}"#,
        &[
            ((150, 100), (960, 624), [0, 0], 260),
            ((1000, 3), (13440, 48), [0, 0], 280),
            ((2, 500), (48, 12672), [0, 0], 264),
            ((97, 97), (768, 768), [0, 0], 256),
        ],
    ),
    (
        "mistral3",
        r#"{"size": {"longest_edge": 1540}}"#,
        &[
            ((97, 300), (112, 308), [0, 0], 44),
            ((1500, 1100), (1512, 1120), [0, 0], 2160),
            ((2100, 700), (1540, 532), [0, 0], 1045),
        ],
    ),
    (
        "smolvlm",
        r#"{"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}"#,
        &[
            ((97, 300), (128, 256), [4, 2], 1521),
            ((640, 480), (256, 192), [3, 4], 2197),
            ((300, 7), (256, 64), [1, 4], 845),
        ],
    ),
    (
        "llava_next",
        r#"{"crop_size": {"height": 336, "width": 336}}"#,
        &[
            ((97, 300), (672, 336), [1, 2], 792),
            ((640, 480), (672, 672), [2, 2], 2340),
            ((500, 499), (672, 672), [2, 2], 2928),
        ],
    ),
    (
        "llava",
        r#"{"size": {"shortest_edge": 336}}"#,
        &[((97, 300), (336, 1039), [0, 0], 576), ((641, 480), (448, 336), [0, 0], 576)],
    ),
];

/// A black picture, as a BMP file.
fn black(width: u32, height: u32) -> Vec<u8> {
    let mut file = bytes("rgb.bmp");
    file.truncate(54);
    file[18..22].copy_from_slice(&width.to_le_bytes());
    file[22..26].copy_from_slice(&height.to_le_bytes());
    file.resize(54 + (3 * width as usize).next_multiple_of(4) * height as usize, 0);
    file
}

#[test]
fn awkward_shapes_have_the_sizes_of_the_reference() {
    for (model_type, preprocessor, shapes) in SHAPES {
        let preprocessor: Value = serde_json::from_str(preprocessor).unwrap();
        let config = json!({"model_type": model_type});
        let processor = ImageProcessor::new(&config, &preprocessor, &Value::Null).unwrap();
        for ((width, height), to, tiles, tokens) in *shapes {
            let pixels = processor.process(&black(*width, *height)).unwrap();
            let got = ((pixels.size.width, pixels.size.height), pixels.tiles, pixels.tokens);
            assert_eq!(got, (*to, *tiles, *tokens), "{model_type} {width} x {height}");
        }
    }
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
    let config = json!({"model_type": "llama"});
    let unknown = ImageProcessor::new(&config, &Value::Null, &Value::Null).err().unwrap();
    assert_eq!(unknown.kind, Kind::CapabilityNotSupported);
}

#[test]
fn a_picture_too_narrow_for_the_model_is_refused() {
    let error = processor(&Value::Null).unwrap().process(&black(1, 201)).unwrap_err();
    assert_eq!(error.kind, Kind::Validation);
    assert!(error.message.contains("too narrow"), "{}", error.message);
}
