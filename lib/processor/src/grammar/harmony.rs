//! Whole answers in OpenAI's harmony: thoughts, which are free, then an answer or a call that
//! follows rules.
//!
//! The form is that of <https://cookbook.openai.com/articles/openai-harmony>.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use mlxk_core::{Error, Kind, Result};
use serde_json::{Value, json};

use super::{Ready, Rules, Vocabulary, broken, json_schema, named, weight};
use crate::tools;

/// The tokens that set parts and their headers apart, as terminals of a grammar.
struct Marks {
    start: u32,
    channel: u32,
    message: u32,
    end: u32,
    /// What announces the form of a text.
    constrain: Option<u32>,
}

impl Vocabulary {
    /// Makes `rules` ready for an answer in harmony to `prompt`, which has begun it or not. Unless
    /// they demand a call, it may be a call of one of `tools`.
    ///
    /// # Errors
    /// As [`ready`](Self::ready); and if what has begun is nothing that they have a place for.
    pub fn harmony(&self, rules: &Rules, tools: &[Value], prompt: &[u32]) -> Result<Ready> {
        let marks = self.marks()?;
        let header = marks.header(prompt);
        let tools = match rules {
            Rules::Call(demanded) => demanded,
            _ => tools,
        };
        let text = marks.grammar(rules, tools, header.is_none());
        let own = rules.weight() + weight(tools);
        let (what, rules, tools) = (rules.field(), rules.clone(), tools.to_vec());
        let mut ready = self.made(what, own, move || {
            let mut grammars = vec![GrammarWithLexer::from_lark(text)];
            if !matches!(rules, Rules::Call(_)) {
                grammars.push(named("own", rules.own()?));
            }
            for (place, tool) in tools.iter().enumerate() {
                let parameters = json_schema(tools::parameters(tool))?;
                grammars.push(named(&format!("arguments_{place}"), parameters));
            }
            Ok(TopLevelGrammar { grammars, max_tokens: None })
        })?;
        let header = header.unwrap_or_default();
        match ready.try_consume_tokens(header).map_err(|e| broken(&e))? == header.len() {
            true => Ok(ready),
            false => {
                let message = "the prompt begins an answer that the rules have no place for";
                Err(Error::new(Kind::Validation, "", message))
            }
        }
    }

    fn marks(&self) -> Result<Marks> {
        let mark = |mark: &str| {
            self.special(mark).ok_or_else(|| {
                let message = format!("{mark} is no token, and rules need it");
                Error::new(Kind::CapabilityNotSupported, "", message)
            })
        };
        Ok(Marks {
            start: mark("<|start|>")?,
            channel: mark("<|channel|>")?,
            message: mark("<|message|>")?,
            end: mark("<|end|>")?,
            constrain: self.special("<|constrain|>"),
        })
    }
}

impl Marks {
    /// What of the answer stands in `prompt`, up to its text: who speaks, and the channel. None if
    /// it has not begun.
    fn header<'p>(&self, prompt: &'p [u32]) -> Option<&'p [u32]> {
        let header = &prompt[prompt.iter().rposition(|&id| id == self.start)? + 1..];
        let body = header.iter().position(|&id| id == self.message);
        (!header.contains(&self.end)).then(|| &header[..body.map_or(header.len(), |at| at + 1)])
    }

    /// The form of an answer behind the mark that starts it, or with that mark. What the model says
    /// before a call is told only where text is free.
    fn grammar(&self, rules: &Rules, tools: &[Value], starts: bool) -> String {
        let Marks { start, channel, message, end, constrain } = self;
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
            _ => Some(format!("<[{channel}]> {last} form? <[{message}]> @own")),
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
