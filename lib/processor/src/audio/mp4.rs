//! What symphonia does not read of MP4: the edit lists, which say how much of the start and the end
//! of a track only primes its decoder, and files from pipes whose index is at their end.
//!
//! Format: ISO/IEC 14496-12 (boxes, `elst`), and iTunes' `iTunSMPB`, which says the same in text.

use std::io::{self, Read, Seek, SeekFrom};

use mlxk_core::Result;

use super::error::failed;
use super::input::Input;

/// The largest index, in bytes, that is searched for edits.
const MAX_INDEX: u64 = 64 << 20;

/// The part of a track that is heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Edit {
    /// Seconds at the start that are not heard.
    pub start: f64,
    /// Seconds after these that are heard; all if unknown.
    pub length: Option<f64>,
    /// Whether the end holds even if much more follows it, more than pads the last packet.
    pub firm: bool,
}

/// Whether the bytes are of an MP4 file.
pub(super) fn is_mp4(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}

/// The edits in an MP4 file, by the number of their track. A pipe is read up to the index.
///
/// Fails if the source cannot be read, or if a pipe with its index at the end is too long to keep.
pub(super) fn edits(input: &mut Input) -> Result<Vec<(u32, Edit)>> {
    let index = match input.length() {
        Some(_) => sought(input).map_err(failed)?,
        None => piped(input)?,
    };
    Ok(index.map(|index| read(&index)).unwrap_or_default())
}

/// The index of a file, which is read in sequence if the index comes before the samples.
fn sought(input: &mut Input) -> io::Result<Option<Vec<u8>>> {
    let mut at = 0;
    let mut first = true;
    let index = loop {
        let mut head = Vec::new();
        input.seek(SeekFrom::Start(at))?;
        input.take(16).read_to_end(&mut head)?;
        let Some(found) = Box::at(&head) else { break None };
        if &found.name == b"moov" {
            let mut index = Vec::new();
            input.seek(SeekFrom::Start(at + found.header))?;
            let size = found.size.unwrap_or(MAX_INDEX).min(MAX_INDEX);
            input.take(size.saturating_sub(found.header)).read_to_end(&mut index)?;
            break Some(index);
        }
        first &= &found.name != b"mdat";
        let Some(next) = found.size.and_then(|size| at.checked_add(size)) else { break None };
        at = next;
    };
    input.seek(SeekFrom::Start(0))?;
    input.sequential = first && index.is_some();
    Ok(index)
}

/// The index of a pipe; all of the pipe is read if the index is behind the samples.
fn piped(input: &mut Input) -> Result<Option<Vec<u8>>> {
    let mut at = 0usize;
    loop {
        input.fill(at + 16).map_err(failed)?;
        let Some(found) = input.head.get(at..).and_then(Box::at) else { return Ok(None) };
        let end = found.size.and_then(|size| usize::try_from(size).ok()?.checked_add(at));
        match (&found.name, end) {
            (b"mdat" | b"moof", _) | (_, None) => break,
            (_, Some(end)) if end > MAX_INDEX as usize => break,
            (b"moov", Some(end)) => {
                input.fill(end).map_err(failed)?;
                return Ok(input.head.get(at + found.header as usize..).map(<[u8]>::to_vec));
            }
            (_, Some(end)) => at = end,
        }
    }
    input.keep()?;
    sought(input).map_err(failed)
}

/// Header of a box.
struct Box {
    name: [u8; 4],
    /// Size of the header, in bytes.
    header: u64,
    /// Size with the header; none if the box goes on to the end of the file.
    size: Option<u64>,
}

impl Box {
    /// The header at the start of `bytes`.
    fn at(bytes: &[u8]) -> Option<Box> {
        let name = *bytes.get(4..)?.first_chunk()?;
        let (header, size) = match u32_at(bytes, 0)? {
            0 => (8, None),
            1 => (16, Some(u64::from_be_bytes(*bytes.get(8..)?.first_chunk()?))),
            size => (8, Some(u64::from(size))),
        };
        size.is_none_or(|size| size >= header).then_some(Box { name, header, size })
    }
}

/// The boxes in `bytes`, each with its content.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let found = Box::at(bytes)?;
        let size = found.size.and_then(|size| usize::try_from(size).ok()).unwrap_or(bytes.len());
        let (this, rest) = bytes.split_at_checked(size)?;
        bytes = rest;
        Some((found.name, this.get(found.header as usize..)?))
    })
}

/// The content of the box that `path` leads to.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let mut content = bytes;
    for name in path {
        content = boxes(content).find(|(found, _)| found == *name)?.1;
    }
    Some(content)
}

/// The edits of the tracks of an index.
fn read(index: &[u8]) -> Vec<(u32, Edit)> {
    let scale = find(index, &[b"mvhd"]).and_then(|header| u32_at(header, wide(header, 12, 20)));
    let tracks = boxes(index).filter(|(name, _)| name == b"trak").filter_map(|(_, track)| {
        let header = find(track, &[b"tkhd"])?;
        let number = u32_at(header, wide(header, 12, 20))?;
        let edit = edit(track, scale?).or_else(|| itunes(index, track))?;
        Some((number, edit))
    });
    tracks.collect()
}

/// The first edit of a track that is not a pause; `scale` is the movie's, in units per second.
fn edit(track: &[u8], scale: u32) -> Option<Edit> {
    let list = find(track, &[b"edts", b"elst"])?;
    let long = *list.first()? == 1;
    let entries = list.get(8..)?.chunks_exact(if long { 20 } else { 12 });
    let (length, start) = entries.take(64).find_map(|entry| {
        let (length, start) = match long {
            true => (u64_at(entry, 0)?, u64_at(entry, 8)? as i64),
            false => (u32_at(entry, 0)?.into(), i64::from(u32_at(entry, 4)? as i32)),
        };
        (start >= 0).then_some((length, start))
    })?;
    let length = (length > 0 && scale > 0).then(|| length as f64 / f64::from(scale));
    Some(Edit { start: start as f64 / f64::from(media_scale(track)?), length, firm: true })
}

/// The edit that iTunes' text gives: samples before and after what is heard, and heard ones.
fn itunes(index: &[u8], track: &[u8]) -> Option<Edit> {
    const NAME: &[u8] = b"iTunSMPB";
    let at = index.windows(NAME.len()).position(|window| window == NAME)?;
    let text = index.get(at + NAME.len() + 16..)?;
    let text = std::str::from_utf8(text.get(..48)?).ok()?;
    let mut numbers = text.split_whitespace().map(|number| u64::from_str_radix(number, 16));
    let (_, before, _, heard) = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    let scale = f64::from(media_scale(track)?);
    Some(Edit { start: before as f64 / scale, length: Some(heard as f64 / scale), firm: true })
}

/// Units per second of a track's own times.
fn media_scale(track: &[u8]) -> Option<u32> {
    let header = find(track, &[b"mdia", b"mdhd"])?;
    u32_at(header, wide(header, 12, 20)).filter(|scale| *scale > 0)
}

/// The place of a field in a box whose fields of time may be long.
fn wide(header: &[u8], short: usize, long: usize) -> usize {
    if header.first() == Some(&1) { long } else { short }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
