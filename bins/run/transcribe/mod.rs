//! Transcripts of audio files, of standard input, or of the files that it lists.

mod input;
mod output;

use std::ops::ControlFlow;
use std::time::Instant;

use mlxk_cli::interrupt::{self, Watch};
use mlxk_cli::{Form, Output, Playback};
use mlxk_core::{Error, Inspected, Result, printable};
use mlxk_engine::Transcriber;
use mlxk_processor::audio::AudioStream;
use mlxk_processor::transcript::{TranscriptEvent, TranscriptFormat};

use input::AudioFile;
pub use input::AudioInput;
use output::Page;

use crate::run::flags::SpeechOptions;

/// Sample rate of speech models, in Hz.
const RATE: u32 = 16_000;

/// How transcripts are told.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// True if text is written as it comes.
    pub stream: bool,
    /// True if speed is reported on standard error.
    pub verbose: bool,
    /// True if a detected language is told on standard error.
    pub tells_language: bool,
    /// True if segments have records of their own.
    pub events: bool,
}

/// Writes the transcripts of `input` to `out`. A file that fails is reported there, and the next one
/// is transcribed.
///
/// # Errors
/// If the model cannot be loaded, or the format is for one file only.
pub fn transcribe(
    model: &Inspected,
    input: AudioInput,
    options: &SpeechOptions,
    ui: Ui,
    out: &mut Output,
) -> Result<()> {
    let numbered = !matches!(options.format, TranscriptFormat::Text | TranscriptFormat::Json);
    if numbered && !input.is_single() {
        return Err(Error::command("--format srt, vtt and tsv are for one file")
            .hint("--ndjson has the segments of several files with their names"));
    }
    let Inspected { facts, health, plan } = model;
    let started = Instant::now();
    mlxk_engine::admit_speech(facts, health, plan)?;
    let transcriber = Transcriber::load(facts, plan)?;
    let name = &facts.found.name;
    if ui.verbose {
        eprintln!("loaded {} in {:.2} s", printable(name), started.elapsed().as_secs_f64());
    }
    let watch = interrupt::watch();
    let run = Run { transcriber, name, options, ui, watch: &watch };
    for file in input.files() {
        let done = file.and_then(|file| run.file(&file, out));
        if watch.caught() {
            break;
        }
        if let Err(e) = done {
            out.error(&e)?;
        }
    }
    Ok(()) // and dies of the signal, if there was one
}

/// A loaded model, and how it is used.
struct Run<'a> {
    transcriber: Transcriber,
    name: &'a str,
    options: &'a SpeechOptions,
    ui: Ui,
    watch: &'a Watch,
}

impl Run<'_> {
    /// Writes the transcript of a file.
    fn file(&self, file: &AudioFile, out: &mut Output) -> Result<()> {
        let about = |e: Error| e.about(file.name());
        let started = Instant::now();
        let options = file.options(&self.options.decode).map_err(about)?;
        let mut audio = AudioStream::open(file.open()?, self.options.raw.unwrap_or_default(), RATE)
            .map_err(about)?;
        let bar = Playback::new(&file.name(), audio.duration());
        let mut page = Page::new(file.record.clone(), self.name, self.options, self.ui);
        let (mut wrote, mut length) = (Ok(()), None);
        let mut each = |event: TranscriptEvent| {
            match &event {
                TranscriptEvent::Progress(seconds) => bar.set(*seconds),
                TranscriptEvent::Segment(segment) => bar.set(segment.time.end),
                TranscriptEvent::End(end) => length = Some(end.duration),
                TranscriptEvent::Language { .. } => {}
            }
            wrote = bar.aside(|| page.write(&event, out));
            match wrote.is_err() || self.watch.caught() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let heard = self.transcriber.transcribe(&mut audio, &options, &mut each);
        drop(bar);
        wrote?;
        heard.map_err(about)?;
        if let Some(damage) = audio.damage() {
            out.remark(&format!("{}: {damage}", file.name()), "the rest is written down");
        }
        if let (true, Some(length)) = (self.ui.verbose, length) {
            let seconds = started.elapsed().as_secs_f64();
            let speed = length / seconds.max(1e-9);
            eprintln!("{length:.1} s of audio in {seconds:.1} s: {speed:.1}x");
        }
        Ok(())
    }
}

impl Ui {
    /// How transcripts are told in the form `form`; `listed` is true for files of a list.
    pub fn new(form: Form, stream: bool, verbose: bool, listed: bool) -> Ui {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let tells_language = form == Form::Human && (terminal || verbose);
        Ui { stream, verbose, tells_language, events: !listed }
    }
}
