//! Pictures: their bytes, and what a family makes of the small ones.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_processor::image::{ImageProcessor, decode};
use serde_json::{Value, json};

/// Larger pictures, in pixels, are only decoded: a picture that takes long finds nothing.
const LARGE: usize = 1 << 16;

static PROCESSOR: LazyLock<ImageProcessor> = LazyLock::new(|| {
    let settings = json!({"max_pixels": 1 << 14});
    ImageProcessor::new("qwen2_vl", &settings, &Value::Null).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = decode(bytes) else { return };
    let pixels = picture.size.pixels().unwrap();
    assert_eq!(picture.pixels.len(), 3 * pixels);
    if pixels < LARGE
        && let Ok(pixels) = PROCESSOR.process(bytes)
    {
        assert_eq!(pixels.values.len(), pixels.rows * pixels.columns);
        assert!(pixels.tokens > 0);
    }
});
