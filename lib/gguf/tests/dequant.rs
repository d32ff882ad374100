//! Blocks of random bytes, dequantized to the same bits as by the Python package `gguf` 0.19.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use mlxk_gguf::{Type, dequantize};

#[test]
fn every_type_is_dequantized_as_by_the_reference() {
    let types = [
        Type::F32,
        Type::F16,
        Type::BF16,
        Type::Q4_0,
        Type::Q4_1,
        Type::Q5_0,
        Type::Q5_1,
        Type::Q8_0,
        Type::Q2_K,
        Type::Q3_K,
        Type::Q4_K,
        Type::Q5_K,
        Type::Q6_K,
        Type::IQ4_NL,
        Type::IQ4_XS,
        Type::MXFP4,
        Type::IQ2_XXS,
        Type::IQ2_XS,
        Type::IQ2_S,
        Type::IQ3_XXS,
        Type::IQ3_S,
        Type::IQ1_S,
        Type::IQ1_M,
        Type::TQ1_0,
        Type::TQ2_0,
    ];
    for dtype in types {
        // The file has blocks, then their weights in f32.
        let name = format!("tests/data/{}.bin", dtype.name());
        let data = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let count = data.len() / (dtype.bytes() + 4 * dtype.block());
        let (blocks, weights) = data.split_at(count * dtype.bytes());
        let expected: Vec<_> =
            weights.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        let mut got = vec![0.0; expected.len()];
        dequantize(dtype, blocks, &mut got);
        assert!(!got.is_empty());
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got.to_bits(), expected.to_bits(), "{} {i}: {got} {expected}", dtype.name());
        }
    }
}
