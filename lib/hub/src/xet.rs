//! Files from Xet storage, which keeps content in chunks: a file is a list of chunks of other objects.
//!
//! The protocol is the public one, https://huggingface.co/docs/xet. It is spoken here and not by the
//! crate hf-xet, since that brings an async runtime and a hundred crates, and holds whole ranges of
//! objects in memory, which no journal can go on with. So chunks go into the same part as the bytes
//! of plain ranges, which take over whenever the storage fails.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::{Mutex, MutexGuard};

use lz4_flex::frame::FrameDecoder;
use mlxk_core::{Error, Kind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, StatusCode};

use crate::client::{Call, Hub};
use crate::flow::Flow;
use crate::part::Part;
use crate::refusal::{Attempt, Failure};

/// The list of the chunks of one piece is not longer than this.
const LONGEST_LIST: u64 = 16 << 20;

/// Chunks have 128 KiB at most as they are cut today; more than this is no chunk.
const LONGEST_CHUNK: usize = 1 << 20;

/// The storage of a model's files.
pub struct Storage {
    /// Where the Hub gives out tickets to it.
    route: String,
    ticket: Mutex<Option<Ticket>>,
}

/// Where the storage is, and the token that it is shown.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    access_token: String,
    cas_url: String,
}

/// Of what a range of a file is made.
#[derive(Deserialize)]
struct Recipe {
    /// Bytes of the first chunk that come before the range.
    offset_into_first_range: u64,
    terms: Vec<Term>,
    /// Where the objects are, by their hash.
    fetch_info: HashMap<String, Vec<Stretch>>,
}

/// Some chunks of an object.
#[derive(Deserialize)]
struct Term {
    hash: String,
    range: Span,
}

/// Where some chunks of an object are to be had.
#[derive(Deserialize)]
struct Stretch {
    range: Span,
    url: String,
    /// Its bytes in the object; the last one included.
    url_range: Span,
}

#[derive(Clone, Copy, Deserialize)]
struct Span {
    start: u64,
    end: u64,
}

impl Storage {
    /// The storage of the files at `commit` of the model `id`; none if the user wants none.
    pub fn of(hub: &Hub, id: &str, commit: &str) -> Option<Storage> {
        let route = hub.api(&format!("models/{id}/xet-read-token/{commit}"));
        hub.remote().xet.then(|| Storage { route, ticket: Mutex::new(None) })
    }

    /// Fetches what is missing of piece `i` of the file `hash`; `moved` hears how many bytes came,
    /// and can end it.
    pub fn fetch(
        &self,
        hub: &Hub,
        hash: &str,
        part: &Part,
        i: usize,
        moved: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let (start, length) = part.span(i);
        let recipe = self.recipe(hub, hash, start + part.done(i), start + length)?;
        let mut skip = recipe.offset_into_first_range;
        let mut chunks: Option<Chunks> = None;
        for term in &recipe.terms {
            let stretch = recipe.stretch(term)?;
            let mut source = match chunks.take().filter(|chunks| chunks.lead_to(stretch, term)) {
                Some(chunks) => chunks,
                None => Chunks::open(hub, stretch)?,
            };
            while source.next < term.range.end && part.done(i) < length {
                let wanted = source.next >= term.range.start;
                let chunk = source.chunk()?;
                let Some(bytes) = chunk.get(skip as usize..).filter(|_| wanted) else {
                    skip -= if wanted { chunk.len() as u64 } else { 0 };
                    continue;
                };
                skip = 0;
                let bytes = &bytes[..bytes.len().min((length - part.done(i)) as usize)];
                part.append(i, bytes)?;
                moved(bytes.len() as u64)?;
            }
            chunks = Some(source);
        }
        if part.done(i) < length { Err(odd("lists too few chunks")) } else { Ok(()) }
    }

    /// Asks what the bytes from `from` to before `end` of the file `hash` are made of.
    fn recipe(&self, hub: &Hub, hash: &str, from: u64, end: u64) -> Attempt<Recipe> {
        let Ticket { access_token, cas_url } = self.ticket(hub)?;
        let url = format!("{}/v1/reconstructions/{hash}", cas_url.trim_end_matches('/'));
        let (token, range) =
            (format!("Bearer {access_token}"), format!("bytes={from}-{}", end - 1));
        let headers = &[("authorization", &*token), ("range", &*range)];
        let recipe = answer(hub, Call { method: &Method::GET, url: &url, headers, body: &[] });
        if recipe.is_err() {
            *self.held() = None; // it may be too old
        }
        recipe
    }

    /// The ticket; of those who find none, one asks the Hub and the others wait for that.
    fn ticket(&self, hub: &Hub) -> Attempt<Ticket> {
        let mut held = self.held();
        if let Some(ticket) = &*held {
            return Ok(ticket.clone());
        }
        let url = &*self.route;
        let call = Call { method: &Method::GET, url, headers: &[], body: &[] };
        let ticket: Ticket = answer(hub, call)?;
        if !hub.is_as_safe(&ticket.cas_url) {
            return Err(odd("would be shown its token in the clear"));
        }
        Ok(held.insert(ticket).clone())
    }

    fn held(&self) -> MutexGuard<'_, Option<Ticket>> {
        self.ticket.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Recipe {
    /// Where the chunks of `term` are.
    fn stretch(&self, term: &Term) -> Attempt<&Stretch> {
        let holds = |stretch: &&Stretch| {
            stretch.range.start <= term.range.start && term.range.end <= stretch.range.end
        };
        let stretches = self.fetch_info.get(&term.hash).into_iter().flatten();
        stretches.into_iter().find(holds).ok_or_else(|| odd("does not say where chunks are"))
    }
}

/// The chunks of a stretch as they come.
struct Chunks<'a> {
    flow: Flow<'a>,
    url: String,
    start: u64,
    /// The number of the next one in its object.
    next: u64,
}

impl<'a> Chunks<'a> {
    fn open(hub: &'a Hub, stretch: &Stretch) -> Attempt<Chunks<'a>> {
        let Stretch { range, url, url_range: bytes } = stretch;
        let asked = format!("bytes={}-{}", bytes.start, bytes.end);
        let headers = &[("range", &*asked), ("accept-encoding", "identity")];
        let response = hub.send(Call { method: &Method::GET, url, headers, body: &[] })?;
        let part = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut flow = Flow::new(hub, response);
        if !part {
            flow.skip(bytes.start)?; // a server that knows no ranges sends everything
        }
        Ok(Chunks { flow, url: url.clone(), start: range.start, next: range.start })
    }

    /// True if going on brings the chunks of `term`, which are in `stretch`.
    fn lead_to(&self, stretch: &Stretch, term: &Term) -> bool {
        self.url == stretch.url
            && self.start == stretch.range.start
            && self.next <= term.range.start
    }

    /// The content of the next chunk.
    fn chunk(&mut self) -> Attempt<Vec<u8>> {
        let mut head = [0; HEAD];
        self.flow.fill(&mut head)?;
        let head = Head::read(head).ok_or_else(|| odd("sends what is no chunk"))?;
        let mut packed = vec![0; head.packed];
        self.flow.fill(&mut packed)?;
        self.next += 1;
        head.unpack(packed).ok_or_else(|| odd("sends a chunk that cannot be unpacked"))
    }
}

/// The bytes before a chunk that say how long it is, and how it was packed.
const HEAD: usize = 8;

struct Head {
    packing: u8,
    packed: usize,
    unpacked: usize,
}

impl Head {
    /// A version, then three bytes for the length of what follows, the packing, and three for the
    /// length of what that stands for.
    fn read([version, a, b, c, packing, d, e, f]: [u8; HEAD]) -> Option<Head> {
        let length =
            |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]) as usize;
        let (packed, unpacked) = (length([a, b, c]), length([d, e, f]));
        let plausible = version == 0 && packed <= 2 * LONGEST_CHUNK && unpacked <= LONGEST_CHUNK;
        plausible.then_some(Head { packing, packed, unpacked })
    }

    /// What `packed` stands for: its own bytes, or those that it is the LZ4 frame of, or these with
    /// the first bytes of all groups of four before all second ones, and so on.
    fn unpack(&self, packed: Vec<u8>) -> Option<Vec<u8>> {
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

/// Makes the call once, and reads the JSON of its answer.
fn answer<T: DeserializeOwned>(hub: &Hub, call: Call) -> Attempt<T> {
    let mut response = hub.send(call)?;
    let body = response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
    let body = body.map_err(|e| hub.lost(e, call.url))?;
    serde_json::from_slice(&body).map_err(|_| odd("answers with something else"))
}

/// A failure that would come again.
fn odd(what: &str) -> Failure {
    Failure::from(Error::new(Kind::DownloadFailed, "", format!("the Xet storage {what}")))
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
        let head = Head { packing: 1, packed: packed.len(), unpacked: LONGEST_CHUNK };
        assert!(head.unpack(packed).is_none());
    }
}
