//! The small files of a model, one behind another with a byte between them that no text has: its
//! configuration, its index, its tokenizer's configuration, its card.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_core::{Found, Origin, describe, inspect};
use tempfile::TempDir;

const FILES: [&str; 4] =
    ["config.json", "model.safetensors.index.json", "tokenizer_config.json", "README.md"];

static PLACE: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let path: PathBuf = PLACE.path().join("model");
    fs::create_dir_all(&path).unwrap();
    let mut parts = bytes.splitn(FILES.len(), |byte| *byte == 0xff);
    for name in FILES {
        fs::write(path.join(name), parts.next().unwrap_or_default()).unwrap();
    }
    let name = path.display().to_string();
    let found = Found { name, path, revision: None, origin: Origin::Workspace };
    let model = inspect(&found).unwrap();
    assert!(model.health.healthy || model.plan.runnable.is_err());
    let record = describe::model(&model, None).to_string();
    assert!(!record.contains('\n'));
});
