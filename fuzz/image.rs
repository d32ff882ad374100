//! Pictures: their bytes, and what each way of cutting them up makes of small ones.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_processor::image::{ImageProcessor, decode};
use serde_json::{Value, json};

/// Larger pictures, in pixels, are only decoded: a picture that takes long finds nothing.
const LARGE: usize = 1 << 14;

static PROCESSORS: LazyLock<Vec<ImageProcessor>> = LazyLock::new(|| {
    let processor = |(model_type, settings): (&str, Value)| {
        ImageProcessor::new(&json!({"model_type": model_type}), &settings, &Value::Null).unwrap()
    };
    [
        ("gemma3", json!({"size": {"height": 28, "width": 28}})),
        ("gemma4", json!({"max_soft_tokens": 4})),
        ("llava", json!({"size": {"shortest_edge": 28}, "crop_size": 28})),
        ("llava_next", json!({"crop_size": 28, "image_grid_pinpoints": [[28, 56], [56, 28]]})),
        ("pixtral", json!({"size": {"longest_edge": 64}})),
        ("qwen2_vl", json!({"max_pixels": 4096})),
        ("smolvlm", json!({"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}})),
    ]
    .map(processor)
    .into()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = decode(bytes) else { return };
    let pixels = picture.size.pixels().unwrap();
    assert_eq!(picture.pixels.len(), 3 * pixels);
    if pixels < LARGE {
        for processor in &*PROCESSORS {
            if let Ok(pixels) = processor.process(bytes) {
                assert_eq!(pixels.values.len(), pixels.rows * pixels.columns);
                assert_eq!(pixels.rows, pixels.grid.iter().product::<usize>());
            }
        }
    }
});
