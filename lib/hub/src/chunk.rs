//! A chunk of Xet storage: some bytes of a file, packed, behind a head that says how.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

/// Chunks have 128 KiB at most as they are cut today; more than this is no chunk.
const LONGEST: usize = 1 << 20;

/// What comes before a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    packing: u8,
    /// The bytes that follow.
    pub packed: usize,
    /// The bytes that they stand for.
    pub unpacked: usize,
}

impl Head {
    /// Its bytes.
    pub const SIZE: usize = 8;

    /// A version, then three bytes for the length of what follows, the packing, and three for the
    /// length of what that stands for. None if it is no chunk.
    pub fn read([version, a, b, c, packing, d, e, f]: [u8; Head::SIZE]) -> Option<Head> {
        let length =
            |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        let (packed, unpacked) = (length([a, b, c]), length([d, e, f]));
        let plausible = version == 0 && packed <= 2 * LONGEST && unpacked <= LONGEST;
        plausible.then_some(Head { packing, packed, unpacked })
    }

    /// What `packed` stands for: its own bytes, or those that it is the LZ4 frame of, or these with
    /// the first bytes of all groups of four before all second ones, and so on. None if it is
    /// nothing of that, or of another length.
    pub fn unpack(self, packed: Vec<u8>) -> Option<Vec<u8>> {
        let bytes = match self.packing {
            0 => packed,
            1 => inflate(&packed, self.unpacked)?,
            2 => regroup(&inflate(&packed, self.unpacked)?),
            _ => return None,
        };
        (bytes.len() == self.unpacked).then_some(bytes)
    }
}

fn inflate(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    FrameDecoder::new(packed).take(length as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn regroup(bytes: &[u8]) -> Vec<u8> {
    let mut whole = vec![0; bytes.len()];
    let mut rest = bytes;
    for place in 0..4 {
        let (group, others) = rest.split_at((bytes.len() + 3 - place) / 4);
        for (to, from) in whole.iter_mut().skip(place).step_by(4).zip(group) {
            *to = *from;
        }
        rest = others;
    }
    whole
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlxk_core::digest::Hasher;

    use super::*;

    /// Chunks of all packings, one behind the other, as hf-xet 1.8.0 uploads them.
    const CHUNKS: &[u8] = include_bytes!("../tests/data/xorb.bin");

    /// The content of chunks up to the first that is none.
    fn read(mut chunks: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut content, mut packings) = (Vec::new(), Vec::new());
        while let Some((head, rest)) = chunks.split_first_chunk()
            && let Some(head) = Head::read(*head)
            && let Some(packed) = rest.get(..head.packed)
            && let Some(unpacked) = head.unpack(packed.to_vec())
        {
            assert_eq!(unpacked.len(), head.unpacked);
            content.extend(unpacked);
            packings.push(head.packing);
            chunks = &rest[head.packed..];
        }
        (content, packings)
    }

    #[test]
    fn chunks_of_the_official_client_are_read() {
        let (content, packings) = read(CHUNKS);
        let mut hasher = Hasher::sha256();
        hasher.update(&content);
        assert_eq!(
            hasher.finish().to_string(),
            "c33c353637eedadc1eb504e5e3b7a19debd605710f1ea5f632640698a7e0c89e"
        );
        assert!((0..3).all(|packing| packings.contains(&packing)), "{packings:?}");
    }

    #[test]
    fn whatever_comes_is_read_or_refused() {
        arbtest::arbtest(|chance| {
            let mut chunks = CHUNKS.to_vec();
            for _ in 0..chance.int_in_range(1..=8)? {
                let at = chance.choose_index(chunks.len())?;
                chunks[at] = chance.arbitrary()?;
            }
            chunks.drain(..chance.choose_index(64)?);
            read(&chunks);
            read(&chance.arbitrary::<Vec<u8>>()?);
            Ok(())
        });
    }

    #[test]
    fn a_small_chunk_that_would_become_a_huge_one_is_refused() {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut encoder, &vec![0; 64 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        let head = Head { packing: 1, packed: packed.len(), unpacked: LONGEST };
        assert!(head.unpack(packed).is_none());
    }
}
