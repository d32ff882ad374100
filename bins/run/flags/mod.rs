//! Flags of mlxk-run.

mod given;
mod load;
mod speech;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use given::Given;
use load::LoadFlags;
use mlxk_cli::{Form, output};
use mlxk_core::{Error, Result};
use mlxk_processor::request::Preset;
use speech::SpeechFlags;

use super::files;
use super::options::{Reasoning, RunOptions};
use super::transcribe::{AudioInput, Ui};
use crate::sampling::SamplingFlags;

pub use speech::SpeechOptions;

/// Flags of mlxk-run.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    #[command(flatten)]
    pub given: Given,
    /// The prompt, instead of arguments
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Put the picture in this file before the text of the prompt; may be repeated
    #[arg(long, value_name = "FILE", action = ArgAction::Append, conflicts_with_all = ["no_chat_template", "prompt_cache"])]
    image: Vec<PathBuf>,
    /// Constrain the answer to the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Constrain the answer to the grammar in this file
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
    /// Whether to show the reasoning of the model before its answer
    #[arg(long, value_name = "WHAT")]
    reasoning: Option<Reasoning>,
    /// The same as --reasoning hide
    #[arg(long, conflicts_with = "reasoning")]
    no_reasoning: bool,
    /// Set a variable of the chat template; may be repeated
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    template_var: Vec<String>,
    /// Pass the prompt to the model without the chat template
    #[arg(long, conflicts_with_all = ["system", "template_var"])]
    no_chat_template: bool,
    /// Measure the speed of the model on this machine; takes no prompt
    #[arg(long, conflicts_with_all = ["words", "prompt"])]
    pub bench: bool,
    /// Write the answer when it is complete, not token by token
    #[arg(long)]
    no_stream: bool,
    /// Report times, token counts and the seed on standard error
    #[arg(long)]
    verbose: bool,
    /// Write a record; with -, read a request from each line and write a record for each
    #[arg(long)]
    ndjson: bool,
    /// Write one JSON object: {status, command, data, error}
    #[arg(long, conflicts_with = "ndjson")]
    json: bool,
    #[command(flatten)]
    sampling: SamplingFlags<true>,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    speech: SpeechFlags,
}

impl Flags {
    /// Form of the output.
    pub fn form(&self) -> Form {
        match self {
            Flags { json: true, .. } => Form::Json,
            Flags { ndjson: true, .. } => Form::Ndjson,
            _ => Form::Human,
        }
    }

    /// Options that the flags state.
    ///
    /// # Errors
    /// If a value is invalid, or a named file cannot be read.
    pub fn options(&self) -> Result<RunOptions> {
        let preset = Preset {
            options: self.sampling.options()?,
            system: self.system.clone(),
            raw: self.no_chat_template,
            variables: files::variables(&self.template_var)?,
            rules: files::rules(self.json_schema.as_deref(), self.grammar.as_deref())?,
        };
        Ok(RunOptions {
            preset,
            images: files::images(&self.image)?,
            reasoning: self.reasoning(),
            terminal: output::to_terminal(),
            colours: output::colours(),
            model: self.load.options()?,
            stream: !self.no_stream,
            verbose: self.verbose,
        })
    }

    /// What a speech model is asked: the audio, and how it is transcribed and told. `words` are those of
    /// the prompt, which precedes the speech.
    ///
    /// # Errors
    /// If a value is invalid, a flag is not for speech models, or there is no audio.
    pub fn speech(&self, words: &[String]) -> Result<(AudioInput, SpeechOptions, Ui)> {
        self.given.suit_speech()?;
        let (dashes, words): (Vec<&String>, Vec<&String>) = words.iter().partition(|w| *w == "-");
        let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
        let prompt = match (&self.prompt, words.is_empty()) {
            (Some(_), false) => return Err(Error::command("both --prompt and other words")),
            (Some(prompt), true) => Some(prompt.clone()),
            (None, true) => None,
            (None, false) => Some(words.join(" ")),
        };
        let speech = &self.speech;
        let input = AudioInput::choose(&speech.audio, speech.listed, !dashes.is_empty())?;
        let options = speech.options(&self.sampling.options()?, self.load.windows()?, prompt)?;
        let ui = Ui::new(self.form(), !self.no_stream, self.verbose, speech.listed);
        Ok((input, options, ui))
    }

    fn reasoning(&self) -> Reasoning {
        match (self.no_reasoning, self.reasoning) {
            (true, _) => Reasoning::Hide,
            (false, Some(reasoning)) => reasoning,
            (false, None) if output::to_terminal() => Reasoning::Show,
            (false, None) => Reasoning::Hide,
        }
    }
}
