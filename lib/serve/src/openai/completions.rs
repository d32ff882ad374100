//! OpenAI's completions: prompts that reach the model without a chat template.

use axum::response::sse;
use mlxk_processor::Event;
use mlxk_processor::event::{Logprobs, TokenLogprob};
use mlxk_processor::request::{Prompt, Request, Rules};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{Format, Output, finish_reason};
use crate::job::{self, Job};
use crate::omitted::Omitted;
use crate::openai::envelope::{Ends, Envelope};

/// Default of `max_tokens` if neither the body nor the server sets it, as in OpenAI's API.
const MAX_TOKENS: u64 = 16;

/// Maximum number of prompts in a body.
const MAX_PROMPTS: usize = 128;

/// Parses the body of completions. `default` is the server's default of `max_tokens`.
pub fn parse(mut fields: Fields, default: Option<u64>) -> Result<Job, ApiError> {
    let model = job::model(&mut fields)?;
    let expected = format!("a text, tokens, or up to {MAX_PROMPTS} of these");
    let prompts = fields
        .read("prompt", &expected, prompts)?
        .ok_or_else(|| ApiError::invalid("`prompt` is missing"))?;
    let mut options = job::options(&mut fields)?;
    options.stop = job::stop(&mut fields, "stop")?;
    let max_tokens = fields.integer("max_tokens", 1, u64::MAX)?.or(default);
    options.max_tokens = Some(max_tokens.unwrap_or(MAX_TOKENS));
    options.logprobs = job::top_logprobs(&mut fields, "logprobs")?;
    let logprobs = options.logprobs.is_some();
    let schema = fields.take("json_schema");
    let rules = Rules::parse(schema.as_ref(), fields.text("grammar")?.as_deref())?;
    let n = job::n(&mut fields)?;
    fields.only("best_of", &[json!(n)])?;
    let echo = fields.boolean("echo")?;
    if echo && logprobs {
        return Err(ApiError::invalid("`echo` is not supported with `logprobs`"));
    }
    let (stream, include_usage) = job::stream(&mut fields)?;
    fields.finish()?;
    let count = prompts.len() as u64 * n;
    let count_field = if prompts.len() == 1 { "n" } else { "prompt" };
    let echoes = prompts.iter().map(|prompt| if echo { echoed(prompt) } else { Ok(String::new()) });
    let echoes: Vec<String> = echoes.collect::<Result<_, _>>()?;
    let envelope =
        Envelope::new("cmpl-", ["text_completion"; 2], &model, n as usize, include_usage);
    let format = Box::new(CompletionsFormat::new(envelope, echoes, logprobs));
    let requests = Box::new(prompts.into_iter().flat_map(move |prompt| {
        let (model, options, rules) = (model.clone(), options.clone(), rules.clone());
        job::requests(Request { model, options, rules, ..Request::new(prompt) }, n)
    }));
    Ok(Job {
        requests,
        count,
        count_field,
        parallel_tool_calls: true,
        stream,
        format,
        omitted: Omitted::default(),
    })
}

/// Parses one prompt or an array of them.
fn prompts(value: &Value) -> Option<Vec<Prompt>> {
    match (prompt(value), value) {
        (Some(prompt), _) => Some(vec![prompt]),
        (None, Value::Array(prompts)) if (1..=MAX_PROMPTS).contains(&prompts.len()) => {
            prompts.iter().map(prompt).collect()
        }
        _ => None,
    }
}

fn prompt(value: &Value) -> Option<Prompt> {
    match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.iter().map(id).collect::<Option<_>>().map(Prompt::Tokens)
        }
        _ => None,
    }
}

/// The text that a completion with `echo` repeats.
fn echoed(prompt: &Prompt) -> Result<String, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(_) | Prompt::Chat(_) => {
            Err(ApiError::invalid("`echo` is not supported with tokens"))
        }
    }
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
    logprobs: Vec<Logprobs>,
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
        choice.offset += tokens.map(|logprobs| logprobs.token.text.chars().count()).sum::<usize>();
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
                "finish_reason": output.end.as_ref().map(finish_reason),
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
            Event::Logprobs(token) => {
                self.choices[index].logprobs.push(token);
                Vec::new()
            }
            Event::Text(text) => vec![self.chunk(index, &text, None)],
            Event::End(end) => {
                let last = self.chunk(index, "", Some(finish_reason(&end)));
                self.ends.insert(index, end);
                vec![last]
            }
            // Without a chat template, the engine finds neither reasoning nor tool calls.
            Event::Started { .. } | Event::Reasoning(_) | Event::ToolCall(_) => Vec::new(),
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
fn logprobs(tokens: &[Logprobs], offset: usize) -> Value {
    let mut offset = offset;
    let mut offsets = Vec::new();
    for Logprobs { token, .. } in tokens {
        offsets.push(offset);
        offset += token.text.chars().count();
    }
    let by_text = |top: &[TokenLogprob]| -> Map<String, Value> {
        top.iter().map(|token| (token.text.clone(), token.logprob.into())).collect()
    };
    json!({
        "tokens": tokens.iter().map(|logprobs| &*logprobs.token.text).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|logprobs| logprobs.token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(|logprobs| by_text(&logprobs.top)).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
