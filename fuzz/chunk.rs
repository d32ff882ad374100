//! Chunks of Xet storage.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlxk_hub::chunk::ChunkHeader;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    while let Some((header, rest)) = bytes.split_first_chunk()
        && let Some(header) = ChunkHeader::read(*header)
        && let Some((data, rest)) = rest.split_at_checked(header.compressed_len)
    {
        if let Some(bytes) = header.decompress(data.to_vec()) {
            assert_eq!(bytes.len(), header.uncompressed_len);
        }
        bytes = rest;
    }
});
