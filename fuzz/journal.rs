//! The journal of a file on its way: a true one with bytes put over it from a place on.
#![no_main]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_core::digest::Hasher;
use mlxk_hub::partial::{self, PIECE, Partial};
use tempfile::TempDir;

const SIZE: u64 = 3 * PIECE + 5;

static PLACE: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let Some((at, bytes)) = bytes.split_first() else { return };
    let path = PLACE.path().join("part");
    let digest = Hasher::sha256().finish();
    partial::clear(&path).unwrap();
    drop(Partial::open(&path, SIZE, digest).unwrap());
    for entry in fs::read_dir(PLACE.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.path() != path {
            let file = File::options().write(true).open(entry.path()).unwrap();
            file.write_all_at(bytes, u64::from(*at)).unwrap();
        }
    }
    let partial = Partial::open(&path, SIZE, digest).unwrap();
    assert!((0..partial.pieces()).all(|piece| partial.done(piece) <= partial.span(piece).1));
    assert!(partial::present(&path, SIZE, digest) <= SIZE);
});
