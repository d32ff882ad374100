//! Requests for embeddings and scores as a server receives them, prepared for the scheduler.

use mlxk_core::{Error, Found, Result};
use mlxk_processor::Pair;
use mlxk_processor::engine::{EmbedInput, EmbedRequest, Embeddings, ScoreRequest, Scores};
use tokio::sync::oneshot;

use super::costed;
use super::encoder::{Job, ScoreOptions};
use super::guard::{Ticket, guarded};
use super::shared::Shared;
use super::work::Work;
use super::worker::QueuedRequest;
use crate::embed_processor::{EmbedOptions, EmbedProcessor, Input};

/// Maximum number of tokens of all inputs of a request for embeddings, as in OpenAI's API.
const MAX_TOKENS: usize = 300_000;

/// Prepares a request for embeddings; `None` if the client has disconnected, or the request has
/// failed, which `send` receives.
pub fn embed(
    shared: &Shared,
    (found, ticket): (Found, Ticket),
    request: EmbedRequest,
    send: oneshot::Sender<Result<Embeddings>>,
) -> Option<QueuedRequest> {
    let prepare = || {
        let processor = shared.embedders.find(&found, costed::embed_processor)?;
        let adapter = processor.task(&request.prompt).map(str::to_owned);
        let options = options(&processor, &request, &found)?;
        let inputs = inputs(&processor, &request.inputs, &options, &|| send.is_closed())?;
        Ok((inputs, options, adapter))
    };
    match guarded(prepare) {
        Ok((Some(inputs), options, adapter)) => {
            let work = Work::Embed(Job::new(inputs, options, send));
            Some(QueuedRequest { found, adapter, work, ticket })
        }
        Ok((None, ..)) => None,
        Err(e) => {
            drop(ticket);
            // A client that has disconnected needs no error.
            let _ = send.send(Err(e));
            None
        }
    }
}

/// Prepares a request for scores; `None` as in [`embed`].
pub fn score(
    shared: &Shared,
    (found, ticket): (Found, Ticket),
    request: &ScoreRequest,
    send: oneshot::Sender<Result<Scores>>,
) -> Option<QueuedRequest> {
    let ScoreRequest { queries, documents, raw, truncate, .. } = request;
    let prepare = || {
        let processor = shared.rerankers.find(&found, costed::pair_processor)?;
        let query = |place: usize| match &queries[..] {
            [query] => Ok(query),
            all if all.len() == documents.len() => Ok(&all[place]),
            all => {
                let (queries, documents) = (all.len(), documents.len());
                Err(Error::validation(format!("{queries} queries for {documents} documents")))
            }
        };
        let pair = |(place, document): (usize, &String)| -> Option<Result<Pair>> {
            let pair = || processor.pair(query(place)?, document, *truncate);
            (!send.is_closed()).then(|| pair().map_err(|e| at("document", place, documents, e)))
        };
        documents.iter().enumerate().map(pair).collect::<Option<Result<Vec<Pair>>>>().transpose()
    };
    match guarded(prepare) {
        Ok(pairs) => {
            let work = Work::Score(Job::new(pairs?, ScoreOptions { raw: *raw }, send));
            Some(QueuedRequest { found, adapter: None, work, ticket })
        }
        Err(e) => {
            drop(ticket);
            // A client that has disconnected needs no error.
            let _ = send.send(Err(e));
            None
        }
    }
}

/// Options of a request, checked against its model.
fn options(
    processor: &EmbedProcessor,
    request: &EmbedRequest,
    found: &Found,
) -> Result<EmbedOptions> {
    let defaults = processor.options(&request.prompt, &found.name)?;
    let options = EmbedOptions {
        truncate: request.truncate,
        dimensions: request.dimensions.or(defaults.dimensions),
        normalize: request.normalize,
        ..defaults
    };
    processor.check(&options)?;
    Ok(options)
}

/// Tokens of the inputs; `None` if the client has disconnected.
fn inputs(
    processor: &EmbedProcessor,
    texts: &[EmbedInput],
    options: &EmbedOptions,
    is_closed: &dyn Fn() -> bool,
) -> Result<Option<Vec<Input>>> {
    let (mut inputs, mut tokens) = (Vec::with_capacity(texts.len()), 0);
    for (place, text) in texts.iter().enumerate() {
        if is_closed() {
            return Ok(None);
        }
        let input = match text {
            EmbedInput::Text(text) => processor.input(text, options),
            EmbedInput::Tokens(ids) => processor.given(ids.clone(), options),
        };
        let input = input.map_err(|e| at("input", place, texts, e))?;
        tokens += input.ids.len();
        if tokens > MAX_TOKENS {
            let message = format!("the inputs of a request have more than {MAX_TOKENS} tokens");
            return Err(Error::validation(message).hint("send them in several requests"));
        }
        inputs.push(input);
    }
    Ok(Some(inputs))
}

/// The error of one of several texts, which says which one.
fn at<T>(what: &str, place: usize, all: &[T], mut error: Error) -> Error {
    if all.len() > 1 {
        error.message = format!("{what} {place}: {}", error.message);
    }
    error
}
