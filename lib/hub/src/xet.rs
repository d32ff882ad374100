//! Files from Xet storage, which keeps content in chunks: a file is a list of chunks of other objects.
//!
//! The protocol is the public one, https://huggingface.co/docs/xet. It is spoken here and not by the
//! crate hf-xet, since that brings an async runtime and a hundred crates, and holds whole ranges of
//! objects in memory, which no journal can go on with. So chunks go into the same part as the bytes
//! of plain ranges, which take over whenever the storage fails.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use mlxk_core::{Error, Kind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, StatusCode};

use crate::chunk::Head;
use crate::client::{Call, Hub};
use crate::flow::Flow;
use crate::part::Part;
use crate::refusal::{Attempt, Failure};

/// The list of the chunks of one piece is not longer than this.
const LONGEST_LIST: u64 = 16 << 20;

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
        let mut head = [0; Head::SIZE];
        self.flow.fill(&mut head)?;
        let head = Head::read(head).ok_or_else(|| odd("sends what is no chunk"))?;
        let mut packed = vec![0; head.packed];
        self.flow.fill(&mut packed)?;
        self.next += 1;
        head.unpack(packed).ok_or_else(|| odd("sends a chunk that cannot be unpacked"))
    }
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
