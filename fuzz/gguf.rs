//! GGUF files, and what is made of them.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_gguf::{Quantized, Source};
use tempfile::TempDir;

/// More than this is not written: that what is written is large finds nothing.
const LARGE: u64 = 1 << 18;

static PLACE: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let path = PLACE.path().join("file.gguf");
    let made = PLACE.path().join("made");
    fs::write(&path, bytes).unwrap();
    let source = Source::open(&path).unwrap();
    for quantized in [Quantized::Keep, Quantized::Dequantize] {
        let Ok(import) = source.plan(None, quantized) else { return };
        if import.bytes() < LARGE {
            fs::create_dir_all(&made).unwrap();
            let _ = import.write(&made, |_| Ok(()));
        }
    }
});
