//! Headers of safetensors files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlxk_core::tensors::Header;

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    if let Ok(header) = Header::read(&mut &*bytes, size) {
        for tensor in header.tensors {
            assert!(tensor.range.start <= tensor.range.end && tensor.range.end <= size);
        }
    }
});
