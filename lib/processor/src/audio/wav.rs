//! The sizes in a WAV header, made true: programs that write to a pipe leave 0, or the largest
//! number, where they cannot know the size, and files that were cut short have one too large.
//!
//! Format: Multimedia Programming Interface and Data Specifications 1.0 (RIFF, WAVE), and EBU Tech
//! 3306 (RF64, whose 64-bit sizes are in a chunk `ds64`).

use std::io;

use super::input::Input;

/// The chunks before the samples are looked for in as many bytes.
const MAX_HEADER: usize = 1 << 20;

/// Sizes from here on are of writers that did not know them.
const UNKNOWN: u32 = 0x7fff_0000;

/// Whether the bytes are of a WAV file, in any of its forms.
pub(super) fn is_wav(head: &[u8]) -> bool {
    matches!(head.get(..4), Some(b"RIFF" | b"RF64" | b"BW64")) && head.get(8..12) == Some(b"WAVE")
}

/// How audio ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    /// Whether the file is shorter than its header says.
    pub cut: bool,
    /// Whether the audio ends wherever the file ends.
    pub open: bool,
}

/// Replaces sizes that cannot be true by those of the data that is there.
///
/// Fails if the source cannot be read.
pub(super) fn mend(input: &mut Input) -> io::Result<End> {
    let mut at = 12;
    let mut wide = None;
    loop {
        if at > MAX_HEADER || !input.fill(at + 36)? && input.head.len() < at + 8 {
            return Ok(End::default());
        }
        let size = u32_at(&input.head, at + 4);
        match &input.head[at..at + 4] {
            b"data" => break,
            b"ds64" => wide = u64_at(&input.head, at + 16),
            _ => {}
        }
        // Chunks begin at even places.
        at = at.saturating_add(8 + size as usize).next_multiple_of(2);
    }
    let start = at as u64 + 8;
    let there = input.length().map(|length| length.saturating_sub(start));
    let promised = match (u32_at(&input.head, at + 4), wide) {
        (u32::MAX, Some(size)) => Some(size).filter(|size| *size > 0),
        (0, _) | (UNKNOWN.., _) => None,
        (size, _) => Some(u64::from(size)),
    };
    let cut = promised.zip(there).is_some_and(|(promised, there)| promised > there);
    let size = promised.into_iter().chain(there).min();
    let small = size.and_then(|size| u32::try_from(size).ok()).unwrap_or(u32::MAX);
    if let (Some(size), u32::MAX) = (size, small) {
        input.limit(start.saturating_add(size));
    }
    input.head[..4].copy_from_slice(b"RIFF");
    input.head[4..8].fill(0xff);
    input.head[at + 4..at + 8].copy_from_slice(&small.to_le_bytes());
    Ok(End { cut, open: small == u32::MAX })
}

/// The number at `at`, which is in `bytes`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
