//! OpenAI's completions: prompts that reach the model without a chat template.

use axum::response::sse;
use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::engine::{Event, Likelihood};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{Format, Output, TokenLogprobs};
use crate::job::{self, Job};
use crate::openai::envelope::{Ends, Envelope};

/// Default of `max_tokens` if neither the body nor the server sets it, as in OpenAI's API.
const MAX_TOKENS: u64 = 16;

/// Largest number of prompts in a body.
const MAX_PROMPTS: usize = 128;

/// A prompt.
#[derive(Clone)]
enum Prompt {
    Text(String),
    Ids(Vec<u64>),
}

impl Prompt {
    fn parse(value: &Value) -> Option<Prompt> {
        match value {
            Value::String(text) => Some(Prompt::Text(text.clone())),
            Value::Array(ids) if !ids.is_empty() => {
                let id = |id: &Value| id.as_u64().filter(|&id| u32::try_from(id).is_ok());
                ids.iter().map(id).collect::<Option<_>>().map(Prompt::Ids)
            }
            _ => None,
        }
    }

    /// Parses one prompt or an array of them.
    fn parse_all(value: &Value) -> Option<Vec<Prompt>> {
        match (Prompt::parse(value), value) {
            (Some(prompt), _) => Some(vec![prompt]),
            (None, Value::Array(prompts)) if (1..=MAX_PROMPTS).contains(&prompts.len()) => {
                prompts.iter().map(Prompt::parse).collect()
            }
            _ => None,
        }
    }

    /// The text that a completion with `echo` repeats.
    fn echo(&self) -> Result<String, ApiError> {
        match self {
            Prompt::Text(text) => Ok(text.clone()),
            Prompt::Ids(_) => Err(ApiError::invalid("`echo` is not supported with tokens")),
        }
    }

    fn into_record(self, record: Record) -> Record {
        match self {
            Prompt::Text(text) => record.with("prompt", text),
            Prompt::Ids(ids) => record.with("prompt_ids", ids),
        }
    }
}

/// Parses the body of completions. `default` is the server's default of `max_tokens`.
pub fn parse(mut fields: Fields, default: Option<u64>) -> Result<Job, ApiError> {
    let model = job::model(&mut fields)?;
    let expected = format!("a text, tokens, or up to {MAX_PROMPTS} of these");
    let prompts = fields
        .read("prompt", &expected, Prompt::parse_all)?
        .ok_or_else(|| ApiError::invalid("`prompt` is missing"))?;
    let mut record = job::sampling(&mut fields, Record::default())?;
    record = fields.forward(&["stop", "json_schema", "grammar"], record);
    let max_tokens = fields.integer("max_tokens", 1, u64::MAX)?.or(default);
    record = record.with("max_tokens", max_tokens.unwrap_or(MAX_TOKENS));
    let logprobs = fields.integer("logprobs", 0, 20)?;
    if let Some(count) = logprobs {
        record = record.with("logprobs", count);
    }
    let n = job::n(&mut fields)?;
    fields.only("best_of", &[json!(n)])?;
    let echo = fields.boolean("echo")?;
    if echo && logprobs.is_some() {
        return Err(ApiError::invalid("`echo` is not supported with `logprobs`"));
    }
    let (stream, include_usage) = job::stream(&mut fields)?;
    fields.ignore(&["user"]);
    fields.finish("completions")?;
    let count = prompts.len() as u64 * n;
    let count_field = if prompts.len() == 1 { "n" } else { "prompt" };
    let echoes = prompts.iter().map(|prompt| if echo { prompt.echo() } else { Ok(String::new()) });
    let echoes: Vec<String> = echoes.collect::<Result<_, _>>()?;
    let envelope =
        Envelope::new("cmpl-", ["text_completion"; 2], &model, n as usize, include_usage);
    let format = Box::new(CompletionsFormat::new(envelope, echoes, logprobs.is_some()));
    let requests = Box::new(prompts.into_iter().flat_map(move |prompt| {
        job::requests(model.clone(), true, prompt.into_record(record.clone()), n)
    }));
    Ok(Job { requests, count, count_field, parallel_tool_calls: true, stream, format })
}

/// The format of completions.
struct CompletionsFormat {
    envelope: Envelope,
    /// The start of the text of each prompt's completions.
    echoes: Vec<String>,
    /// True if the response has log probabilities.
    logprobs: bool,
    /// The state of each choice of a stream.
    choices: Vec<Choice>,
    ends: Ends,
}

/// The state of a choice of a stream.
#[derive(Clone, Default)]
struct Choice {
    /// Log probabilities for the next chunk.
    logprobs: Vec<TokenLogprobs>,
    /// Length of the tokens that had log probabilities in earlier chunks, in characters.
    offset: usize,
}

impl CompletionsFormat {
    fn new(envelope: Envelope, echoes: Vec<String>, logprobs: bool) -> Self {
        let choices = vec![Choice::default(); echoes.len() * envelope.n()];
        CompletionsFormat { envelope, echoes, logprobs, choices, ends: Ends::new() }
    }

    /// The start of the text of the completion `index`.
    fn echo(&self, index: usize) -> &str {
        &self.echoes[index / self.envelope.n()]
    }

    fn chunk(&mut self, index: usize, text: &str, finish_reason: Option<&str>) -> sse::Event {
        let choice = &mut self.choices[index];
        let logprobs = self.logprobs.then(|| logprobs(&choice.logprobs, choice.offset));
        let tokens = choice.logprobs.drain(..);
        choice.offset += tokens.map(|(own, _)| own.text.chars().count()).sum::<usize>();
        self.envelope.chunk(json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }))
    }
}

impl Format for CompletionsFormat {
    fn document(&mut self, outputs: Vec<Output>) -> Value {
        self.envelope.document(&outputs, |index, output| {
            json!({
                "index": index,
                "text": format!("{}{}", self.echo(index), output.text),
                "logprobs": self.logprobs.then(|| logprobs(&output.logprobs, 0)),
                "finish_reason": output.end.as_ref().map(|end| end.reason.name()),
            })
        })
    }

    fn start(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let chunk = |index| {
            let echo = self.echo(index).to_owned();
            self.chunk(index, &echo, None)
        };
        (0..prompt_tokens.len()).map(chunk).collect()
    }

    fn event(&mut self, index: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Logprobs(own, top) => {
                self.choices[index].logprobs.push((own, top));
                Vec::new()
            }
            Event::Text(text) => vec![self.chunk(index, &text, None)],
            Event::End(end) => {
                let last = self.chunk(index, "", Some(end.reason.name()));
                self.ends.insert(index, end);
                vec![last]
            }
            // Without a chat template, the engine finds neither reasoning nor tool calls.
            Event::Begun { .. } | Event::Reasoning(_) | Event::Call(_) => Vec::new(),
        }
    }

    fn finish(&mut self) -> Vec<sse::Event> {
        self.envelope.finish(&self.ends)
    }

    fn fail(&mut self, error: &ApiError, id: &str) -> Vec<sse::Event> {
        self.envelope.fail(error, id)
    }
}

/// The `logprobs` of a choice, whose first token is at `offset`, in characters.
fn logprobs(tokens: &[TokenLogprobs], offset: usize) -> Value {
    let mut offset = offset;
    let mut offsets = Vec::new();
    for (own, _) in tokens {
        offsets.push(offset);
        offset += own.text.chars().count();
    }
    let by_text = |top: &[Likelihood]| -> Map<String, Value> {
        top.iter().map(|token| (token.text.clone(), token.logprob.into())).collect()
    };
    json!({
        "tokens": tokens.iter().map(|(own, _)| &*own.text).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|(own, _)| own.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(|(_, top)| by_text(top)).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
