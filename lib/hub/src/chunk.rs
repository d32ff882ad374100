//! Chunks of Xet storage: an 8-byte header, then a slice of a file that may be LZ4-compressed.
//!
//! Format: <https://huggingface.co/docs/xet/xorb>.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

/// Largest uncompressed chunk that is accepted, in bytes; today's clients cut chunks of at most 128
/// KiB.
const MAX_LEN: usize = 1 << 20;

/// Header of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHeader {
    compression: u8,
    /// Bytes of compressed data that follow the header.
    pub compressed_len: usize,
    /// Bytes after decompression.
    pub uncompressed_len: usize,
}

impl ChunkHeader {
    /// Length of a header in bytes.
    pub const SIZE: usize = 8;

    /// Parses a header: a version byte (0), the compressed length (u24, little-endian), the
    /// compression scheme, the uncompressed length (u24). Returns `None` for anything else.
    pub fn read(
        [version, a, b, c, compression, d, e, f]: [u8; ChunkHeader::SIZE],
    ) -> Option<ChunkHeader> {
        let length =
            |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        let (compressed_len, uncompressed_len) = (length([a, b, c]), length([d, e, f]));
        let plausible =
            version == 0 && compressed_len <= 2 * MAX_LEN && uncompressed_len <= MAX_LEN;
        plausible.then_some(ChunkHeader { compression, compressed_len, uncompressed_len })
    }

    /// Decompresses the data of a chunk: scheme 0 is none, 1 is an LZ4 frame, 2 an LZ4 frame of
    /// bytes grouped by their position modulo 4. Returns `None` for invalid data or a wrong length.
    pub fn decompress(self, data: Vec<u8>) -> Option<Vec<u8>> {
        let bytes = match self.compression {
            0 => data,
            1 => lz4_decompress(&data, self.uncompressed_len)?,
            2 => ungroup(&lz4_decompress(&data, self.uncompressed_len)?),
            _ => return None,
        };
        (bytes.len() == self.uncompressed_len).then_some(bytes)
    }
}

fn lz4_decompress(data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    FrameDecoder::new(data).take(length as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Interleaves four groups of bytes: group `i` holds the bytes at positions `i`, `i + 4`, ...
fn ungroup(grouped: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; grouped.len()];
    let mut rest = grouped;
    for position in 0..4 {
        let (group, others) = rest.split_at((grouped.len() + 3 - position) / 4);
        for (to, from) in bytes.iter_mut().skip(position).step_by(4).zip(group) {
            *to = *from;
        }
        rest = others;
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlxk_core::digest::Hasher;

    use super::*;

    /// Consecutive chunks with all compression schemes, as hf-xet 1.8.0 uploads them.
    const CHUNKS: &[u8] = include_bytes!("../tests/data/xorb.bin");

    /// Content and compression schemes of `chunks`, up to the first invalid chunk.
    fn decompress_all(mut chunks: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut content, mut compressions) = (Vec::new(), Vec::new());
        while let Some((header, rest)) = chunks.split_first_chunk()
            && let Some(header) = ChunkHeader::read(*header)
            && let Some(data) = rest.get(..header.compressed_len)
            && let Some(bytes) = header.decompress(data.to_vec())
        {
            assert_eq!(bytes.len(), header.uncompressed_len);
            content.extend(bytes);
            compressions.push(header.compression);
            chunks = &rest[header.compressed_len..];
        }
        (content, compressions)
    }

    #[test]
    fn chunks_of_hf_xet_are_decompressed() {
        let (content, compressions) = decompress_all(CHUNKS);
        let mut hasher = Hasher::sha256();
        hasher.update(&content);
        assert_eq!(
            hasher.finish().to_string(),
            "c33c353637eedadc1eb504e5e3b7a19debd605710f1ea5f632640698a7e0c89e"
        );
        assert!((0..3).all(|compression| compressions.contains(&compression)), "{compressions:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        arbtest::arbtest(|random| {
            let mut chunks = CHUNKS.to_vec();
            for _ in 0..random.int_in_range(1..=8)? {
                let at = random.choose_index(chunks.len())?;
                chunks[at] = random.arbitrary()?;
            }
            chunks.drain(..random.choose_index(64)?);
            decompress_all(&chunks);
            decompress_all(&random.arbitrary::<Vec<u8>>()?);
            Ok(())
        });
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut encoder, &vec![0; 64 << 20]).unwrap();
        let data = encoder.finish().unwrap();
        let header =
            ChunkHeader { compression: 1, compressed_len: data.len(), uncompressed_len: MAX_LEN };
        assert!(header.decompress(data).is_none());
    }
}
