//! Requests to write down speech as a server receives them, prepared for the scheduler.

use mlxk_core::{Error, Found, Result};
use mlxk_processor::audio::{AudioFormat, AudioStream, Source};
use mlxk_processor::transcript::{TranscribeRequest, TranscriptEvent};
use tokio::sync::mpsc::UnboundedSender;

use super::costed;
use super::guard::{Ticket, guarded};
use super::speech::SpeechJob;
use super::work::Work;
use super::worker::QueuedRequest;

/// Sample rate of speech models, in Hz.
const RATE: u32 = 16_000;

/// Opens the audio of a request; `None` if the client has disconnected, or the request has failed,
/// which `send` receives.
pub fn prepare(
    (found, ticket): (Found, Ticket),
    request: TranscribeRequest,
    send: UnboundedSender<Result<TranscriptEvent>>,
) -> Option<QueuedRequest> {
    if send.is_closed() {
        return None;
    }
    let TranscribeRequest { audio, options, .. } = request;
    let opened = guarded(|| {
        costed::speech(&found)?;
        AudioStream::open(Source::Bytes(audio), AudioFormat::Sniffed, RATE).map_err(of_file)
    });
    match opened {
        Ok(audio) => {
            let audio = Box::new(audio.map(|block| block.map_err(of_file)));
            let work = Work::Speech(Box::new(SpeechJob::new(audio, options, send)));
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

/// The error of audio as one of the field that has it.
fn of_file(mut error: Error) -> Error {
    error.message = format!("`file`: {}", error.message);
    error.about("")
}
