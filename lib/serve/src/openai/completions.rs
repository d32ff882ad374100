//! OpenAI's completions: a prompt goes to the model as it is.

use axum::response::sse;
use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::engine::{Event, Likelihood};
use crate::error::Refusal;
use crate::fields::Fields;
use crate::format::{self, Answer, Ends, Likely, Wording, finish_reason};
use crate::job::{self, Task};
use crate::openai::envelope::Heading;

/// Tokens of an answer whose length neither request nor server says, as OpenAI has it.
const MAX_TOKENS: u64 = 16;

/// Prompts of a body.
const MOST_PROMPTS: usize = 128;

/// What a prompt may be.
#[derive(Clone)]
enum Prompt {
    Text(String),
    Tokens(Vec<u64>),
}

/// Reads a body. An answer has `most` tokens if that says nothing.
pub fn read(mut fields: Fields, most: Option<u64>) -> Result<Task, Refusal> {
    let model = job::model(&mut fields)?;
    let prompts = fields
        .read("prompt", &format!("a text, tokens, or up to {MOST_PROMPTS} of these"), prompts)?
        .ok_or_else(|| Refusal::invalid("`prompt` is missing"))?;
    let mut record = job::choice(&mut fields, Record::default())?;
    record = fields.pass(&["stop", "json_schema", "grammar"], record);
    let most = fields.whole("max_tokens", 1, u64::MAX)?.or(most);
    record = record.with("max_tokens", most.unwrap_or(MAX_TOKENS));
    let logprobs = fields.whole("logprobs", 0, 20)?;
    if let Some(count) = logprobs {
        record = record.with("logprobs", count);
    }
    let n = job::count(&mut fields)?;
    fields.only("best_of", &[json!(n)])?;
    let echo = fields.truth("echo")?;
    if echo && logprobs.is_some() {
        return Err(Refusal::invalid("`echo` is not supported with `logprobs`"));
    }
    let (stream, usage) = job::stream(&mut fields)?;
    fields.skip(&["user"]);
    fields.finish("completions")?;
    let same_prompt = prompts.len() == 1;
    let count = prompts.len() as u64 * n;
    let echoes = prompts.iter().map(|prompt| match prompt {
        _ if !echo => Ok(String::new()),
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Tokens(_) => Err(Refusal::invalid("`echo` is not supported with tokens")),
    });
    let echoes: Vec<String> = echoes.collect::<Result<_, _>>()?;
    let words = Completions::new(&model, echoes, n, usage, logprobs.is_some());
    let requests = prompts.into_iter().flat_map(move |prompt| {
        let record = match prompt {
            Prompt::Text(text) => record.clone().with("prompt", text),
            Prompt::Tokens(ids) => record.clone().with("prompt_ids", ids),
        };
        job::repeated(model.clone(), true, record, n)
    });
    let (requests, wording) = (Box::new(requests), Box::new(words));
    let field = if same_prompt { "n" } else { "prompt" };
    Ok(Task { requests, count: (count, field), single: false, stream, wording })
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
    heading: Heading,
    /// What the answers to each prompt begin with.
    echoes: Vec<String>,
    /// Answers to each.
    n: usize,
    logprobs: bool,
    /// Likelihoods that are not told yet, and the length of the text before them, by answer.
    pending: Vec<(Vec<Likely>, usize)>,
    ends: Ends,
}

impl Completions {
    fn new(model: &str, echoes: Vec<String>, n: u64, usage: bool, logprobs: bool) -> Self {
        let heading = Heading::new("cmpl-", ["text_completion"; 2], model, usage);
        let (n, ends) = (n as usize, Ends::new());
        let pending = vec![(Vec::new(), 0); echoes.len() * n];
        Completions { heading, echoes, n, logprobs, pending, ends }
    }

    fn chunk(&mut self, number: usize, text: &str, reason: Option<&str>) -> sse::Event {
        let (told, before) = &mut self.pending[number];
        let logprobs = self.logprobs.then(|| likelihoods(told, *before));
        *before += told.drain(..).map(|(own, _)| own.text.chars().count()).sum::<usize>();
        self.heading.chunk(
            json!({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}),
        )
    }
}

impl Wording for Completions {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let ends = format::ends(&answers);
        let choice = |(number, answer): (usize, &Answer)| {
            json!({
                "index": number,
                "text": format!("{}{}", self.echoes[number / self.n], answer.text),
                "logprobs": self.logprobs.then(|| likelihoods(&answer.logprobs, 0)),
                "finish_reason": answer.end.as_ref().map(finish_reason),
            })
        };
        let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
        self.heading.whole(choices, &ends, self.n)
    }

    fn begin(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let echo = |number: usize| self.echoes[number / self.n].clone();
        let echoes: Vec<String> = (0..prompt_tokens.len()).map(echo).collect();
        let numbered = echoes.iter().enumerate();
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
                self.ends.insert(number, end);
                vec![last]
            }
            // A prompt without a template sets nothing apart.
            Event::Begun { .. } | Event::Reasoning(_) | Event::Call(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<sse::Event> {
        self.heading.end(&self.ends, self.n)
    }

    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        self.heading.fail(refusal, id)
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
