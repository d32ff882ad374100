//! Parsing of damaged and hostile files: an error that says what and where, never a panic.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod gguf;

use arbtest::arbtest;
use gguf::{Builder, f32s, float, integer, list, string, text};
use mlxk_gguf::{Gguf, Value};

fn refused(bytes: &[u8]) -> String {
    Gguf::parse(bytes).unwrap_err()
}

#[test]
fn a_valid_file_is_parsed() {
    let bytes = Builder::llama().set("x.float", float(1e-5)).bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.metadata["general.architecture"], Value::Str("llama"));
    assert_eq!(gguf.metadata["x.float"], Value::Float(1e-5), "the shortest decimal is meant");
    assert_eq!(gguf.metadata["llama.block_count"], Value::Integer(1));
    let tensor = &gguf.tensors[3];
    assert_eq!((tensor.name, &tensor.shape[..]), ("blk.0.attn_k.weight", &[16, 32][..]));
    assert_eq!(tensor.data[4..8], 1f32.to_le_bytes());
}

#[test]
fn other_formats_and_versions_are_refused() {
    assert!(refused(b"").starts_with("not a GGUF file"));
    assert!(refused(b"\x80\x02}q\x00").starts_with("not a GGUF file"));
    let version = |version| refused(&Builder::llama().version(version).bytes());
    assert!(version(1).contains("version 1"));
    assert!(version(4).contains("version 4"));
    assert!(version(3u32.swap_bytes()).contains("big-endian"));
}

#[test]
fn every_truncation_is_detected() {
    let bytes = Builder::llama().bytes();
    for cut in 0..bytes.len() - 32 {
        let reason = refused(&bytes[..cut]);
        assert!(!reason.contains('\n'), "{reason}");
    }
}

#[test]
fn false_counts_do_not_allocate() {
    let with = |at: usize, n: u64| {
        let mut bytes = Builder::llama().bytes();
        bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
        refused(&bytes)
    };
    for n in [u64::MAX, 1 << 40, 1 << 20] {
        assert!(with(8, n).contains(&format!("{n} tensors")));
        assert!(with(16, n).contains(&format!("{n} metadata keys")));
        assert!(with(24, n).contains("metadata key 0"), "a name of {n} bytes");
    }
    let list = |kind: u32, count: u64| {
        let value = [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes()].concat();
        refused(&Builder::llama().set("x.list", value).bytes())
    };
    for kind in [0, 4, 6, 7, 8, 12] {
        let reason = list(kind, u64::MAX / 8 + 2);
        assert!(reason.contains("`x.list`") && reason.contains("cannot be in"), "{reason}");
    }
    assert!(list(9, 1).contains("list of lists"));
    assert!(list(13, 1).contains("unknown type 13"));
}

#[test]
fn invalid_metadata_is_named() {
    let twice = Builder::llama().again("general.architecture", string("qwen2"));
    assert!(refused(&twice.bytes()).contains("`general.architecture` is there twice"));
    let kind = Builder::llama().set("x", 77u32.to_le_bytes().to_vec());
    assert!(refused(&kind.bytes()).contains("`x` has the unknown type 77"));
    let encoding = [&8u32.to_le_bytes()[..], &text("é")[..9]].concat();
    let encoding = Builder::empty().set("x", [encoding, vec![b'z']].concat());
    assert!(refused(&encoding.bytes()).contains("`x`: not UTF-8"));
    for alignment in [0, 7, 48, 1 << 30] {
        let file = Builder::llama().set("general.alignment", integer(alignment));
        assert!(refused(&file.bytes()).contains("impossible `general.alignment`"));
    }
}

#[test]
fn tensors_outside_the_file_or_overlapping_are_refused() {
    let name = "blk.0.attn_q.weight";
    let at = |offset| refused(&Builder::llama().offset(name, offset).bytes());
    for offset in [1 << 20, 1 << 40, u64::MAX - 31] {
        let reason = at(offset);
        assert!(reason.contains(name) && reason.contains(&format!("4096 bytes at {offset}")));
    }
    assert!(at(33).contains("no multiple of 32"));
    assert!(at(0).contains("share bytes"));
    let shaped = |shape: &[u64], dtype| {
        refused(&Builder::llama().tensor(name, shape, dtype, f32s(&[0.0; 1024])).bytes())
    };
    assert!(shaped(&[u64::MAX, 2], 0).contains("impossible size"));
    assert!(shaped(&[1 << 33, 1 << 33], 0).contains("impossible size"));
    assert!(shaped(&[0, 32], 0).contains("impossible size"));
    assert!(shaped(&[32, 31], 2).contains("impossible size: Q4_0 [32, 31]"));
    assert!(shaped(&[1, 1, 1, 1, 1], 0).contains("5 dimensions"));
    assert!(shaped(&[32, 32], 16).contains("IQ2_XXS"));
    assert!(shaped(&[32, 32], 999).contains("unknown type 999"));
}

#[test]
fn duplicate_tensor_names_are_refused() {
    let mut bytes = Builder::llama().bytes();
    let from = text("blk.0.ffn_up.weight");
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + from.len()].copy_from_slice(&text("blk.0.attn_v.weight"));
    assert!(refused(&bytes).contains("\"blk.0.attn_v.weight\" is there twice"));
}

#[test]
fn mutated_files_never_panic() {
    let nested = list(8, [text("a"), text("b")]);
    let valid = Builder::llama().set("x.list", nested).bytes();
    // Mutations hit the tables and the start of the data; the rest is not parsed.
    let head = 2048;
    arbtest(|random| {
        let mut bytes = valid.clone();
        for _ in 0..random.int_in_range(1..=8)? {
            let at = random.int_in_range(0..=head - 9)?;
            match random.int_in_range(0..=3)? {
                0 => bytes[at] = random.arbitrary()?,
                1 => bytes[at] ^= 1 << random.int_in_range(0..=7)?,
                2 => bytes[at..at + 8].copy_from_slice(&random.arbitrary::<u64>()?.to_le_bytes()),
                _ => bytes.truncate(random.int_in_range(head..=valid.len())?.min(bytes.len())),
            }
        }
        if let Err(reason) = Gguf::parse(&bytes) {
            assert!(reason.len() < 1000 && !reason.contains('\n'), "{reason}");
        }
        Ok(())
    });
}
