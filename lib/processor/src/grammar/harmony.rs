//! Grammar of completions in OpenAI's harmony format: free reasoning, then a text or a tool call
//! with rules.
//!
//! Source of the format: <https://cookbook.openai.com/articles/openai-harmony>.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use mlxk_core::{Error, Kind, Result};
use serde_json::{Value, json};

use super::compiler::{Compiled, Compiler, Tools};
use super::fault::broken;
use super::rules::{Rules, json_schema, named};
use super::vocabulary::Vocabulary;
use crate::tools;

/// Ids of the special tokens that separate messages and their headers.
struct HarmonyTokens {
    start: u32,
    channel: u32,
    message: u32,
    end: u32,
    /// Token before the format of a message.
    constrain: Option<u32>,
}

impl Compiler<'_> {
    /// Compiles rules for a completion of `prompt` in the harmony format, which the prompt may have
    /// begun. The completion may be a call of one of `tools`, and is one if the rules require it.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the rules are malformed, cannot be followed, or are too large;
    /// [`Kind::CapabilityNotSupported`] if the model lacks a token of the format.
    pub fn compile_harmony(
        &self,
        rules: &Rules,
        tools: &Tools,
        prompt: &[u32],
    ) -> Result<Compiled> {
        let special = HarmonyTokens::find(self.vocabulary())?;
        let header = special.header(prompt);
        let text = special.grammar(rules, tools.tools, header.is_none());
        let mut compiled = self.compile_with(rules, tools, |calls, cancel| {
            let mut grammars = vec![GrammarWithLexer::from_lark(text.clone())];
            if !matches!(rules, Rules::Call(_)) {
                grammars.push(named("text", rules.text(false, cancel)?));
            }
            for (place, call) in calls.iter().enumerate() {
                let arguments = json_schema(call.arguments(), cancel)?;
                grammars.push(named(&format!("arguments_{place}"), arguments));
            }
            Ok(TopLevelGrammar { grammars, max_tokens: None })
        })?;
        let header = header.unwrap_or_default();
        let matcher = &mut compiled.matcher;
        match matcher.try_consume_tokens(header).map_err(|e| broken(&e))? == header.len() {
            true => Ok(compiled),
            false => {
                let message = "the prompt begins an answer that the rules have no place for";
                Err(Error::new(Kind::Validation, "", message))
            }
        }
    }
}

impl HarmonyTokens {
    fn find(vocabulary: &Vocabulary) -> Result<HarmonyTokens> {
        let special = |token: &str| {
            vocabulary.special(token).ok_or_else(|| {
                let message = format!("{token} is no token, and rules need it");
                Error::new(Kind::CapabilityNotSupported, "", message)
            })
        };
        Ok(HarmonyTokens {
            start: special("<|start|>")?,
            channel: special("<|channel|>")?,
            message: special("<|message|>")?,
            end: special("<|end|>")?,
            constrain: vocabulary.special("<|constrain|>"),
        })
    }

    /// Header of the completion at the end of `prompt`: the role, the channel and the token before
    /// the text, as far as they are present; none if the completion has not begun.
    fn header<'p>(&self, prompt: &'p [u32]) -> Option<&'p [u32]> {
        let header = &prompt[prompt.iter().rposition(|&id| id == self.start)? + 1..];
        let body = header.iter().position(|&id| id == self.message);
        (!header.contains(&self.end)).then(|| &header[..body.map_or(header.len(), |at| at + 1)])
    }

    /// Grammar of a completion behind its start token, or with that token if `starts` is true. Text
    /// before a tool call is allowed only where the text is free.
    fn grammar(&self, rules: &Rules, tools: &[Value], starts: bool) -> String {
        let HarmonyTokens { start, channel, message, end, constrain } = self;
        let before = if starts { format!("<[{start}]>") } else { String::new() };
        let (parts, last) = match rules {
            Rules::Strict => (r#"("analysis" | "commentary")"#, r#"("final" | "commentary")"#),
            _ => (r#""analysis""#, r#""final""#),
        };
        let form = match constrain {
            Some(id) => format!(r#"" json" | " "? <[{id}]> "json""#),
            None => r#"" json""#.to_owned(),
        };
        let text = match rules {
            Rules::Call(_) => None,
            _ => Some(format!("<[{channel}]> {last} form? <[{message}]> @text")),
        };
        let calls = tools.iter().enumerate().map(|(place, tool)| {
            let name = tools::name(tool).unwrap_or_default();
            let to = json!(format!(" to=functions.{name}"));
            let header = format!(r#"{to} (<[{channel}]> "commentary")?"#);
            let other = format!(r#"<[{channel}]> "commentary" {to}"#);
            format!("({header} | {other}) form? <[{message}]> @arguments_{place}")
        });
        let last: Vec<String> = text.into_iter().chain(calls).collect();
        format!(
            r#"start: {before} "assistant" part* ({last})
part: <[{channel}]> {parts} <[{message}]> TEXT? <[{end}]> <[{start}]> "assistant"
form: {form}
TEXT: /(?s:.+)/"#,
            last = last.join(" | ")
        )
    }
}
