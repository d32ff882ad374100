//! The flags of a program that asks a model, and what they mean.

mod choice;
mod work;

use std::path::PathBuf;

use choice::ChoiceFlags;
use clap::{ArgAction, Args, ValueEnum};
use mlxk_cli::{Form, output};
use mlxk_core::{Error, Kind, Result};
use mlxk_processor::request::{Options, Preset};

use crate::{Manner, Reasoning, given};
pub use work::Work;
use work::WorkFlags;

/// How to ask, and how to write the answer.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// What to ask, instead of words
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// What the model is told before
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// End the answer after this many tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// 0: always the likeliest token; the higher the more varied
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Choose from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose from this many of the likeliest tokens; 0 for all
    #[arg(long, value_name = "N")]
    top_k: Option<u32>,
    /// Choose from tokens at least this likely beside the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Above 1, what was said lately becomes less likely
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// The same seed and request give the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", action = ArgAction::Append)]
    stop: Vec<String>,
    /// Let the answer be JSON that the schema in this file allows
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Let the answer follow the grammar in this file
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
    /// What to show of what the model thinks before it answers
    #[arg(long, value_name = "WHAT")]
    reasoning: Option<Visible>,
    /// The same as --reasoning hide
    #[arg(long, conflicts_with = "reasoning")]
    no_reasoning: bool,
    /// Tell the chat template something more; may be repeated
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    template_var: Vec<String>,
    /// Give the prompt to the model as it is
    #[arg(long, conflicts_with_all = ["system", "template_var"])]
    no_chat_template: bool,
    /// Ask nothing, and tell how fast the model is here
    #[arg(long, conflicts_with_all = ["words", "prompt"])]
    pub bench: bool,
    /// Write the answer when it is complete
    #[arg(long)]
    no_stream: bool,
    /// Tell on standard error how fast it went, and the seed
    #[arg(long)]
    verbose: bool,
    /// Write a record; with -, read a request from each line, and write a record for each
    #[arg(long)]
    ndjson: bool,
    /// Write one document: {status, command, data, error}
    #[arg(long, conflicts_with = "ndjson")]
    json: bool,
    #[command(flatten)]
    choice: ChoiceFlags,
    #[command(flatten)]
    work: WorkFlags,
}

/// What is shown of reasoning.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Visible {
    /// Reasoning before the answer; the default on a terminal
    Show,
    /// The answer alone; the default elsewhere
    Hide,
    /// Reasoning alone
    Only,
}

impl Flags {
    /// The form of the output.
    pub fn form(&self) -> Form {
        match self {
            Flags { json: true, .. } => Form::Json,
            Flags { ndjson: true, .. } => Form::Ndjson,
            _ => Form::Human,
        }
    }

    /// What the flags wish.
    ///
    /// # Errors
    /// If a value means nothing, or a file that is named cannot be read.
    pub fn manner(&self) -> Result<Manner> {
        let preset = Preset {
            options: self.options()?,
            system: self.system.clone(),
            raw: self.no_chat_template,
            variables: given::variables(&self.template_var)?,
            rules: given::rules(self.json_schema.as_deref(), self.grammar.as_deref())?,
            lenient: false,
        };
        Ok(Manner {
            preset,
            reasoning: self.reasoning(),
            terminal: output::to_terminal(),
            colours: output::colours(),
            work: self.work.work()?,
            stream: !self.no_stream,
            verbose: self.verbose,
        })
    }

    fn options(&self) -> Result<Options> {
        let options = Options {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ..self.choice.options()?
        };
        options.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        Ok(options)
    }

    fn reasoning(&self) -> Reasoning {
        match (self.no_reasoning, self.reasoning) {
            (true, _) | (_, Some(Visible::Hide)) => Reasoning::Hide,
            (_, Some(Visible::Only)) => Reasoning::Only,
            (_, Some(Visible::Show)) => Reasoning::Show,
            (_, None) if output::to_terminal() => Reasoning::Show,
            (_, None) => Reasoning::Hide,
        }
    }
}
