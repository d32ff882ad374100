//! OpenAI's completions: a prompt goes to the model as it is.

use axum::response::sse;
use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::engine::{End, Event, Likelihood, Request};
use crate::fields::Fields;
use crate::refusal::Refusal;
use crate::task::{self, Shape, Task};
use crate::wording::{self, Answer, Likely, Wording, data, finish_reason, usage};

/// Tokens of an answer whose length is not asked, as OpenAI has it.
const MAX_TOKENS: u64 = 16;

/// Prompts of a body.
const MOST_PROMPTS: usize = 128;

/// What a prompt may be.
#[derive(Clone)]
enum Prompt {
    Text(String),
    Tokens(Vec<u64>),
}

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let model = task::model(&mut fields)?;
    let prompts = fields
        .read("prompt", &format!("a text, tokens, or up to {MOST_PROMPTS} of these"), prompts)?
        .ok_or_else(|| Refusal::invalid("`prompt` is missing"))?;
    let mut record = task::choice(&mut fields, Record::default())?;
    record = fields.pass(&["stop", "json_schema", "grammar"], record);
    let most = fields.whole("max_tokens", 1, u64::MAX)?.unwrap_or(MAX_TOKENS);
    record = record.with("max_tokens", most);
    let logprobs = fields.whole("logprobs", 0, 20)?;
    if let Some(count) = logprobs {
        record = record.with("logprobs", count);
    }
    let n = task::count(&mut fields)?;
    fields.only("best_of", &[json!(n)])?;
    let echo = fields.truth("echo")?;
    if echo && logprobs.is_some() {
        return Err(Refusal::invalid("`echo` is not supported with `logprobs`"));
    }
    let (stream, usage) = task::stream(&mut fields)?;
    fields.skip(&["user"]);
    fields.finish("completions")?;
    let same_prompt = prompts.len() == 1;
    let mut requests = Vec::new();
    let mut echoes = Vec::new();
    for prompt in prompts {
        let (record, text) = match prompt {
            Prompt::Text(text) => (record.clone().with("prompt", &*text), text),
            Prompt::Tokens(_) if echo => {
                return Err(Refusal::invalid("`echo` is not supported with tokens"));
            }
            Prompt::Tokens(ids) => (record.clone().with("prompt_ids", ids), String::new()),
        };
        echoes.extend((0..n).map(|_| if echo { text.clone() } else { String::new() }));
        let request = Request { model: model.clone(), raw: true, record };
        requests.extend(task::repeated(&request, n));
    }
    let wording = Completions::new(&model, echoes, usage, logprobs.is_some(), same_prompt);
    Ok(Task { requests, shape: Shape::default(), stream, wording: Box::new(wording) })
}

fn prompts(value: &Value) -> Option<Vec<Prompt>> {
    match (prompt(value), value) {
        (Some(one), _) => Some(vec![one]),
        (None, Value::Array(all)) if (1..=MOST_PROMPTS).contains(&all.len()) => {
            all.iter().map(prompt).collect()
        }
        _ => None,
    }
}

fn prompt(value: &Value) -> Option<Prompt> {
    match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => {
            let id = |id: &Value| id.as_u64().filter(|&id| u32::try_from(id).is_ok());
            ids.iter().map(id).collect::<Option<_>>().map(Prompt::Tokens)
        }
        _ => None,
    }
}

/// The words of completions.
struct Completions {
    id: String,
    created: u64,
    model: String,
    /// What each answer begins with.
    echoes: Vec<String>,
    /// Whether a stream ends with a count of tokens.
    usage: bool,
    logprobs: bool,
    /// Whether all answers are to the same prompt.
    same_prompt: bool,
    /// Likelihoods that are not told yet, and the length of the text before them, by answer.
    pending: Vec<(Vec<Likely>, usize)>,
    ends: Vec<End>,
}

impl Completions {
    fn new(
        model: &str,
        echoes: Vec<String>,
        usage: bool,
        logprobs: bool,
        same_prompt: bool,
    ) -> Self {
        Completions {
            id: wording::fresh("cmpl-"),
            created: wording::now(),
            model: model.to_owned(),
            pending: vec![(Vec::new(), 0); echoes.len()],
            echoes,
            usage,
            logprobs,
            same_prompt,
            ends: Vec::new(),
        }
    }

    fn document(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chunk(&mut self, number: usize, text: &str, reason: Option<&str>) -> sse::Event {
        let (told, before) = &mut self.pending[number];
        let logprobs = self.logprobs.then(|| likelihoods(told, *before));
        *before += told.drain(..).map(|(own, _)| own.text.chars().count()).sum::<usize>();
        let choice =
            json!({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason});
        let mut chunk = self.document(json!([choice]));
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }
}

impl Wording for Completions {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let ends: Vec<End> = answers.iter().filter_map(|answer| answer.end.clone()).collect();
        let choice = |(number, answer): (usize, &Answer)| {
            json!({
                "index": number,
                "text": format!("{}{}", self.echoes[number], answer.text),
                "logprobs": self.logprobs.then(|| likelihoods(&answer.logprobs, 0)),
                "finish_reason": answer.end.as_ref().map(finish_reason),
            })
        };
        let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
        let mut document = self.document(choices.into());
        document["usage"] = usage(&ends, self.same_prompt);
        document
    }

    fn begin(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let echoes: Vec<String> = std::mem::take(&mut self.echoes);
        let numbered = echoes.iter().enumerate().take(prompt_tokens.len());
        numbered.map(|(number, echo)| self.chunk(number, echo, None)).collect()
    }

    fn piece(&mut self, number: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Logprobs(own, top) => {
                self.pending[number].0.push((own, top));
                Vec::new()
            }
            Event::Text(text) => vec![self.chunk(number, &text, None)],
            Event::End(end) => {
                let last = self.chunk(number, "", Some(finish_reason(&end)));
                self.ends.push(end);
                vec![last]
            }
            // A prompt without a template sets nothing apart.
            Event::Begun { .. } | Event::Reasoning(_) | Event::Call(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<sse::Event> {
        let mut last = Vec::new();
        if self.usage {
            let mut chunk = self.document(json!([]));
            chunk["usage"] = usage(&self.ends, self.same_prompt);
            last.push(data(&chunk));
        }
        last.push(sse::Event::default().data("[DONE]"));
        last
    }

    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        let mut chunk = self.document(json!([]));
        chunk["error"] = refusal.openai(id)["error"].take();
        vec![data(&chunk)]
    }
}

/// OpenAI's form of the likelihoods of the tokens of a completion, `before` characters of it.
fn likelihoods(told: &[Likely], before: usize) -> Value {
    let mut offset = before;
    let mut offsets = Vec::new();
    for (own, _) in told {
        offsets.push(offset);
        offset += own.text.chars().count();
    }
    let by_text = |top: &[Likelihood]| -> Map<String, Value> {
        top.iter().map(|token| (token.text.clone(), token.logprob.into())).collect()
    };
    json!({
        "tokens": told.iter().map(|(own, _)| &*own.text).collect::<Vec<_>>(),
        "token_logprobs": told.iter().map(|(own, _)| own.logprob).collect::<Vec<_>>(),
        "top_logprobs": told.iter().map(|(_, top)| by_text(top)).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
