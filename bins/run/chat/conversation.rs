//! Conversation with a model: its messages, and the generation of answers.

use std::time::Instant;

use mlxk_cli::{Output, interrupt};
use mlxk_core::{Error, Kind, Record, Result};
use mlxk_engine::{Model, Runner};
use mlxk_processor::event::{End, FinishReason};
use mlxk_processor::{Event, Request};
use serde_json::{Value, json};

use super::terminal::Terminal;
use crate::run::options::RunOptions;
use crate::run::page::Page;

/// Conversation with a model.
pub struct Conversation {
    pub runner: Runner<Model>,
    pub options: RunOptions,
    /// Options at the start.
    pub start: RunOptions,
    /// Record of the sampling options set since the start.
    pub set: Record,
    /// Messages without the system prompt.
    pub messages: Vec<Value>,
    terminal: Terminal,
}

impl Conversation {
    /// Conversation without messages on `terminal`.
    pub fn new(runner: Runner<Model>, options: &RunOptions, terminal: Terminal) -> Conversation {
        let (options, start) = (options.clone(), options.clone());
        let set = Record::default().with("prompt", "");
        Conversation { runner, options, start, set, messages: Vec::new(), terminal }
    }

    /// Adds `text` as a message of the user, and writes the answer.
    ///
    /// # Errors
    /// If the text cannot be answered; its message is then removed.
    pub fn say(&mut self, text: String, out: &mut Output) -> Result<()> {
        if self.options.preset.raw {
            self.messages.clear();
        }
        self.messages.push(json!({"role": "user", "content": text}));
        self.answer(out).inspect_err(|_| {
            self.messages.pop();
        })
    }

    /// Answers the last message.
    fn answer(&mut self, out: &mut Output) -> Result<()> {
        let request = Request::parse(&self.request(), &self.options.preset)?;
        let started = Instant::now();
        let mut first = None;
        let mut page = Page::new(&self.options);
        let (mut reasoning, mut text, mut calls) = (String::new(), String::new(), Vec::new());
        let watch = interrupt::watch_patiently();
        let answering = self.terminal.answer();
        let mut end = None;
        let mut failed = None;
        for event in self.runner.generate(&request, &|| watch.caught())? {
            let event = match event {
                Ok(event) => event,
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            };
            out.text(&page.write(&event))?;
            match event {
                Event::End(last) => end = Some(last),
                Event::Started { .. } | Event::Logprobs(_) => continue,
                Event::Reasoning(more) => reasoning += &more,
                Event::Text(more) => text += &more,
                Event::ToolCall(call) => calls.push(call.record()),
            }
            first.get_or_insert_with(Instant::now);
        }
        // From here on Ctrl-C is no signal, which nobody would watch for.
        drop(answering);
        watch.forgive();
        if let Some(e) = failed {
            out.text(page.close())?;
            return Err(e);
        }
        let silent = text.is_empty() && reasoning.is_empty() && calls.is_empty();
        if silent && end.as_ref().is_some_and(|end| end.reason == FinishReason::Interrupted) {
            self.messages.pop();
            return self.remark("interrupted before the answer; the message was deleted", out);
        }
        let mut message = json!({"role": "assistant", "content": text});
        if !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        self.messages.push(message);
        match end {
            Some(end) => self.status(&end, first.unwrap_or(started), out),
            None => Ok(()),
        }
    }

    /// Sets the terminal's modes for the line editor.
    pub fn edit(&self) {
        self.terminal.edit();
    }

    /// Request for the next answer, as a record.
    fn request(&self) -> Record {
        let last = || self.messages.last().and_then(|message| message["content"].as_str());
        if self.options.preset.raw {
            return Record::default().with("prompt", last().unwrap_or_default());
        }
        Record::default().with("messages", self.all())
    }

    /// Messages with the system prompt before them.
    pub fn all(&self) -> Vec<Value> {
        let system = self.options.preset.system.iter();
        let system = system.map(|content| json!({"role": "system", "content": content}));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Writes the speed of the answer, and the tokens in the context.
    fn status(&self, end: &End, first: Instant, out: &mut Output) -> Result<()> {
        let seconds = first.elapsed().as_secs_f64().max(1e-9);
        let rate = end.completion_tokens.saturating_sub(1) as f64 / seconds;
        let used = end.prompt_tokens + end.completion_tokens;
        let context = match self.runner.processor().context_length() {
            Some(all) => format!("{used} of {all} tokens in the context"),
            None => format!("{used} tokens in the context"),
        };
        let why = match end.reason {
            FinishReason::Stop => "",
            FinishReason::ToolCalls => ", calls a function",
            FinishReason::Length(_) => ", cut",
            FinishReason::Interrupted => ", interrupted",
        };
        let tokens = end.completion_tokens;
        self.remark(&format!("{tokens} tokens, {rate:.1} tok/s{why}; {context}"), out)
    }

    /// Writes a line that is not part of the model's output.
    ///
    /// # Errors
    /// If the terminal cannot be written.
    pub fn remark(&self, text: &str, out: &mut Output) -> Result<()> {
        match self.options.colours {
            true => out.text(&format!("\x1b[2m[{text}]\x1b[22m\n")),
            false => out.text(&format!("[{text}]\n")),
        }
    }

    /// Removes the last question and its answer; the question is returned.
    ///
    /// # Errors
    /// If there are no messages.
    pub fn take_back(&mut self) -> Result<Value> {
        let user = self.messages.iter().rposition(|message| message["role"] == "user");
        let user = user.ok_or_else(|| Error::new(Kind::Validation, "", "there are no messages"))?;
        let mut taken = self.messages.split_off(user);
        Ok(taken.swap_remove(0))
    }
}
