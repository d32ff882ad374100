//! The flags that choose tokens, for those who want it exactly.

use clap::{ArgAction, Args};
use mlxk_core::{Error, Kind, Result};
use mlxk_processor::request::Options;

/// How to choose tokens, for those who want it exactly.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Choice of tokens")]
pub struct ChoiceFlags {
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

impl ChoiceFlags {
    /// What the flags wish.
    ///
    /// # Errors
    /// If a bias is not of the form `ID=X`.
    pub fn options(&self) -> Result<Options> {
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
