//! Flags of mlxk-run.

mod load;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use load::LoadFlags;
use mlxk_cli::{Form, output};
use mlxk_core::{Error, Kind, Result};
use mlxk_processor::request::{Options, Preset};

use super::files;
use super::options::{Reasoning, RunOptions};

/// Flags of mlxk-run.
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
    reasoning: Option<Reasoning>,
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
    sampling: SamplingFlags,
    #[command(flatten)]
    load: LoadFlags,
}

/// Flags of sampling that few need.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Choice of tokens")]
struct SamplingFlags {
    /// How often to drop the likeliest tokens, all but the last above --xtc-threshold
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// How likely a token is that --xtc-probability may drop (0.1)
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Taken from the logits of recent tokens
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    presence_penalty: Option<f32>,
    /// Taken from the logits of recent tokens for every time they came
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    frequency_penalty: Option<f32>,
    /// How many of the last tokens are recent (20)
    #[arg(long, value_name = "N")]
    penalty_context: Option<u32>,
    /// Add to the logit of a token; may be repeated
    #[arg(long, value_name = "ID=X", action = ArgAction::Append)]
    logit_bias: Vec<String>,
    /// End the answer at this token; may be repeated
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    stop_id: Vec<u32>,
    /// Tell in records how likely tokens were, and as many of the likeliest ones
    #[arg(long, value_name = "N")]
    logprobs: Option<u32>,
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
    /// If a value makes no sense, or a file that is named cannot be read.
    pub fn options(&self) -> Result<RunOptions> {
        let preset = Preset {
            options: self.sampling()?,
            system: self.system.clone(),
            raw: self.no_chat_template,
            variables: files::variables(&self.template_var)?,
            rules: files::rules(self.json_schema.as_deref(), self.grammar.as_deref())?,
            lenient: false,
        };
        Ok(RunOptions {
            preset,
            reasoning: self.reasoning(),
            terminal: output::to_terminal(),
            colours: output::colours(),
            model: self.load.options()?,
            stream: !self.no_stream,
            verbose: self.verbose,
        })
    }

    fn sampling(&self) -> Result<Options> {
        let options = Options {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ..self.sampling.options()?
        };
        options.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        Ok(options)
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

impl SamplingFlags {
    /// Sampling options that these flags state.
    fn options(&self) -> Result<Options> {
        let bias = |text: &String| {
            let bias = text
                .split_once('=')
                .and_then(|(id, bias)| Some((id.trim().parse().ok()?, bias.trim().parse().ok()?)));
            bias.ok_or_else(|| {
                Error::new(Kind::Command, "--logit-bias", format!("not ID=X: {text}"))
                    .hint("ID is the number of a token, X a number")
            })
        };
        Ok(Options {
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            penalty_context: self.penalty_context,
            logit_bias: self.logit_bias.iter().map(bias).collect::<Result<_>>()?,
            stop_ids: self.stop_id.clone(),
            logprobs: self.logprobs,
            ..Options::default()
        })
    }
}
