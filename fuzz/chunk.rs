//! Chunks of Xet storage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlxk_hub::chunk::Head;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    while let Some((head, rest)) = bytes.split_first_chunk()
        && let Some(head) = Head::read(*head)
        && let Some((packed, rest)) = rest.split_at_checked(head.packed)
    {
        if let Some(unpacked) = head.unpack(packed.to_vec()) {
            assert_eq!(unpacked.len(), head.unpacked);
        }
        bytes = rest;
    }
});
