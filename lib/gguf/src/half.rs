//! Conversion of f16 values in blocks to f32.

use half::f16;

/// Value of the little-endian f16 at the start of `bytes`.
pub fn read_f16(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}
