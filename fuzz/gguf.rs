//! GGUF files, and what is made of them.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_gguf::{Packed, Source};
use tempfile::TempDir;

/// More than this is not written: that what is written is large finds nothing.
const LARGE: u64 = 1 << 18;

static PLACE: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let path = PLACE.path().join("file.gguf");
    let made = PLACE.path().join("made");
    fs::write(&path, bytes).unwrap();
    let source = Source::open(&path).unwrap();
    for packed in [Packed::Kept, Packed::Opened] {
        let Ok(import) = source.plan(None, packed) else { return };
        if import.bytes() < LARGE {
            fs::create_dir_all(&made).unwrap();
            let _ = import.write(&made, |_| Ok(()));
        }
    }
});
