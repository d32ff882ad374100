//! A loaded speech model with the requests that it answers.
//!
//! It works on a thread of its own, which holds the network: a window of audio takes much longer than
//! a step of the models that write text, whose tokens would wait for it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_processor::transcript::{TranscribeOptions, TranscriptEvent};
use tokio::sync::mpsc::UnboundedSender;

use super::guard::guarded;
use super::resident::Resident;
use super::shared::stopped;
use crate::prefill::Prefill;
use crate::thread::WorkerThread;
use crate::transcribe::Transcriber;

/// Blocks of mono samples.
pub type Audio = dyn Iterator<Item = Result<Vec<f32>>> + Send;

/// Network that writes down speech.
pub trait SpeechNetwork {
    /// Passes the events of the speech in `audio` to `each`, until that breaks.
    ///
    /// # Errors
    /// If the audio or the network fails, or the network cannot do what `options` ask.
    fn transcribe(
        &self,
        audio: &mut Audio,
        options: &TranscribeOptions,
        each: &mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>,
    ) -> Result<()>;
}

impl SpeechNetwork for Transcriber {
    fn transcribe(
        &self,
        audio: &mut Audio,
        options: &TranscribeOptions,
        each: &mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>,
    ) -> Result<()> {
        Transcriber::transcribe(self, audio, options, each)
    }
}

/// Request whose audio is open.
pub struct SpeechJob {
    audio: Box<Audio>,
    options: TranscribeOptions,
    send: UnboundedSender<Result<TranscriptEvent>>,
}

impl SpeechJob {
    /// A request, whose events `send` receives.
    pub fn new(
        audio: Box<Audio>,
        options: TranscribeOptions,
        send: UnboundedSender<Result<TranscriptEvent>>,
    ) -> SpeechJob {
        SpeechJob { audio, options, send }
    }

    /// True if the client has disconnected.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// Ends the request with an error.
    pub fn fail(self, error: Error) {
        // A client that has disconnected needs no error.
        let _ = self.send.send(Err(error));
    }
}

/// A loaded speech model with the request that it answers.
pub struct LoadedSpeech {
    found: Found,
    used: Instant,
    weights: u64,
    state: Arc<State>,
    jobs: Sender<SpeechJob>,
    /// Thread of the network, which ends when `jobs` is dropped: the field order matters.
    _thread: WorkerThread,
}

/// State that the thread of the network shares.
#[derive(Default)]
struct State {
    running: AtomicUsize,
    /// True after a panic of the network.
    failed: AtomicBool,
    /// True if the request that runs has to end.
    stopping: AtomicBool,
}

impl LoadedSpeech {
    /// The model whose network `load` loads, with weights of `weights` bytes.
    ///
    /// # Errors
    /// If the network cannot be loaded, or there is no thread for it.
    pub fn open<N: SpeechNetwork>(
        load: impl FnOnce() -> Result<N> + Send + 'static,
        found: Found,
        weights: u64,
    ) -> Result<LoadedSpeech> {
        let state = Arc::<State>::default();
        let ((jobs, queue), (loaded, outcome)) = (channel(), channel());
        let shared = Arc::clone(&state);
        let work = move || match guarded(load) {
            Ok(network) => {
                // The scheduler waits for it, unless it has ended.
                let _ = loaded.send(Ok(()));
                work(&network, &queue, &shared);
            }
            Err(e) => drop(loaded.send(Err(e))),
        };
        let thread = thread::Builder::new().name("speech".to_owned()).spawn(work);
        let thread = thread
            .map_err(|e| Error::new(Kind::Execution, &found.name, format!("no thread: {e}")))?;
        let thread = WorkerThread::new(thread);
        outcome.recv().map_err(|_| stopped())??;
        Ok(LoadedSpeech { found, used: Instant::now(), weights, state, jobs, _thread: thread })
    }

    /// Gives the model a request.
    pub fn join(&mut self, job: SpeechJob) {
        self.used = Instant::now();
        self.state.running.fetch_add(1, Ordering::AcqRel);
        if let Err(unsent) = self.jobs.send(job) {
            self.state.running.fetch_sub(1, Ordering::AcqRel);
            unsent.0.fail(stopped());
        }
    }
}

/// Answers requests, one after another, until the sender of `jobs` is dropped.
fn work(network: &impl SpeechNetwork, jobs: &Receiver<SpeechJob>, state: &State) {
    for job in jobs {
        answer(network, job, state);
        state.running.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(network: &impl SpeechNetwork, job: SpeechJob, state: &State) {
    let SpeechJob { mut audio, options, send } = job;
    let stopping = || state.stopping.load(Ordering::Acquire);
    let mut each = |event| match stopping() || send.send(Ok(event)).is_err() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    if send.is_closed() || stopping() {
        let _ = send.send(Err(stopped()));
        return;
    }
    let heard = guarded(|| Ok(network.transcribe(&mut *audio, &options, &mut each)));
    let error = match heard {
        Ok(Ok(())) if stopping() => stopped(),
        Ok(Ok(())) => return,
        Ok(Err(e)) => e,
        Err(e) => {
            state.failed.store(true, Ordering::Release);
            e
        }
    };
    // A client that has disconnected needs no error.
    let _ = send.send(Err(error));
}

impl Resident for LoadedSpeech {
    fn found(&self) -> &Found {
        &self.found
    }

    fn used(&self) -> Instant {
        self.used
    }

    fn weights(&self) -> u64 {
        self.weights
    }

    fn running(&self) -> usize {
        self.state.running.load(Ordering::Acquire)
    }

    fn failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    fn steps(&self) -> bool {
        false
    }

    fn prefills(&self) -> bool {
        false
    }

    /// Notes that the model is in use.
    fn step(&mut self, _prefill: Prefill) {
        if self.running() > 0 {
            self.used = Instant::now();
        }
    }
}

impl Drop for LoadedSpeech {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use mlxk_core::Origin;
    use mlxk_processor::transcript::TranscriptEnd;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A network that tells its progress with each block, and ends with the audio.
    struct Blocks;

    impl SpeechNetwork for Blocks {
        fn transcribe(
            &self,
            audio: &mut Audio,
            _: &TranscribeOptions,
            each: &mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>,
        ) -> Result<()> {
            for (place, block) in audio.enumerate() {
                assert!(block?.len() < 13, "boo");
                if each(TranscriptEvent::Progress(place as f64)).is_break() {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
            }
            let _ = each(TranscriptEvent::End(TranscriptEnd::default()));
            Ok(())
        }
    }

    type Events = UnboundedReceiver<Result<TranscriptEvent>>;

    fn loaded() -> LoadedSpeech {
        let path = PathBuf::from("m");
        let found = Found { name: "m".into(), path, revision: None, origin: Origin::Workspace };
        LoadedSpeech::open(|| Ok(Blocks), found, 1).unwrap()
    }

    fn join(model: &mut LoadedSpeech, blocks: Vec<Result<usize>>) -> Events {
        let (send, events) = unbounded_channel();
        let blocks = blocks.into_iter().map(|size| size.map(|size| vec![0.0; size]));
        model.join(SpeechJob::new(Box::new(blocks), TranscribeOptions::default(), send));
        events
    }

    fn last(mut events: Events) -> Result<TranscriptEvent> {
        let mut last = None;
        while let Some(event) = events.blocking_recv() {
            last = Some(event);
        }
        last.unwrap()
    }

    /// Waits until no request runs.
    fn rest(model: &LoadedSpeech) {
        let late = Instant::now() + Duration::from_secs(5);
        while model.running() > 0 {
            assert!(Instant::now() < late, "it runs on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn an_error_ends_its_request_alone_and_a_panic_marks_the_model() {
        let mut model = loaded();
        let damaged = || Err(Error::validation("damaged"));
        assert_eq!(last(join(&mut model, vec![Ok(1), damaged()])).unwrap_err().message, "damaged");
        let end = last(join(&mut model, vec![Ok(1), Ok(1)])).unwrap();
        assert_eq!(end, TranscriptEvent::End(TranscriptEnd::default()));
        assert!(!model.failed());
        assert_eq!(last(join(&mut model, vec![Ok(13)])).unwrap_err().kind, Kind::Internal);
        rest(&model);
        assert!(model.failed());
    }

    #[test]
    fn who_goes_away_and_who_is_unloaded_ends_within_a_step() {
        let mut model = loaded();
        let mut events = join(&mut model, (0..100_000).map(|_| Ok(1)).collect());
        events.blocking_recv().unwrap().unwrap();
        assert_eq!(model.running(), 1);
        drop(events);
        rest(&model);
        let events = join(&mut model, (0..100_000).map(|_| Ok(1)).collect());
        drop(model);
        assert_eq!(last(events).unwrap_err().kind, Kind::ServerShutdown);
    }

    #[test]
    fn a_network_that_cannot_be_loaded_says_why() {
        let path = PathBuf::from("m");
        let found = Found { name: "m".into(), path, revision: None, origin: Origin::Workspace };
        let load = || Err::<Blocks, _>(Error::validation("no tensors"));
        assert_eq!(LoadedSpeech::open(load, found, 1).err().unwrap().message, "no tensors");
    }
}
