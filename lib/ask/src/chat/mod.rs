//! A conversation on a terminal: a line in, an answer out, until there is enough.

mod command;
mod editor;
mod quiet;

use std::path::PathBuf;
use std::time::Instant;

use command::Command;
use editor::{Editor, Line};
use mlxk_cli::{Output, interrupt};
use mlxk_core::{Error, Kind, Record, Result};
use mlxk_infer::{Model, Runner};
use mlxk_processor::event::{End, Reason};
use mlxk_processor::{Event, Request};
use quiet::Quiet;
use serde_json::{Value, json};

use crate::Manner;
use crate::page::Page;

/// What a conversation has come to.
struct Chat {
    runner: Runner<Model>,
    manner: Manner,
    /// The manner at the start, and a record of what was set since.
    start: Manner,
    set: Record,
    /// What was said, without what the system says.
    messages: Vec<Value>,
}

/// Talks until the user leaves. `history` is the file that keeps what was typed.
///
/// # Errors
/// If the terminal cannot be read or written.
pub fn chat(
    name: &str,
    runner: Runner<Model>,
    manner: &Manner,
    history: Option<PathBuf>,
    out: &mut Output,
) -> Result<()> {
    let (manner, start) = (manner.clone(), manner.clone());
    let set = Record::default().with("prompt", "");
    let mut chat = Chat { runner, manner, start, set, messages: Vec::new() };
    let mut editor = Editor::new(history)?;
    chat.remark(&format!("{name}; /help tells the commands, Ctrl-D leaves"), out)?;
    loop {
        let done = match editor.read()? {
            Line::End => return Ok(()),
            Line::Interrupted => chat.remark("Ctrl-D leaves", out),
            Line::Text(text) => match Command::parse(&text) {
                Ok(Some(Command::Quit)) => return Ok(()),
                Ok(Some(command)) => chat.obey(command, out),
                Ok(None) if text.trim().is_empty() => Ok(()),
                Ok(None) => chat.say(text, out),
                Err(e) => Err(e),
            },
        };
        done.or_else(|e| complain(&e, out))?;
    }
}

/// Tells what went wrong: the conversation goes on, unless the terminal is gone.
fn complain(e: &Error, out: &mut Output) -> Result<()> {
    out.text(&format!("{e}\n"))?;
    match &e.hint {
        Some(hint) => out.text(&format!("hint: {hint}\n")),
        None => Ok(()),
    }
}

impl Chat {
    /// Says `text` for the user, and writes the answer. A text that cannot be answered was not
    /// said.
    fn say(&mut self, text: String, out: &mut Output) -> Result<()> {
        if self.manner.preset.raw {
            self.messages.clear();
        }
        self.messages.push(json!({"role": "user", "content": text}));
        self.answer(out).inspect_err(|_| {
            self.messages.pop();
        })
    }

    /// Answers the last message.
    fn answer(&mut self, out: &mut Output) -> Result<()> {
        let request = Request::parse(&self.request(), &self.manner.preset)?;
        let started = Instant::now();
        let mut first = None;
        let mut page = Page::new(&self.manner);
        let (mut reasoning, mut text, mut calls) = (String::new(), String::new(), Vec::new());
        let watch = interrupt::watch_patiently();
        let _quiet = Quiet::begin();
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
                Event::Logprobs(_) => continue,
                Event::Reasoning(more) => reasoning += &more,
                Event::Text(more) => text += &more,
                Event::Call(call) => calls.push(call.record()),
            }
            first.get_or_insert_with(Instant::now);
        }
        watch.forgive();
        if let Some(e) = failed {
            out.text(page.close())?;
            return Err(e);
        }
        let silent = text.is_empty() && reasoning.is_empty() && calls.is_empty();
        if silent && end.as_ref().is_some_and(|end| end.reason == Reason::Interrupted) {
            self.messages.pop();
            return self.remark("interrupted before the answer; the question is taken back", out);
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

    /// What is asked next, as a record.
    fn request(&self) -> Record {
        let last = || self.messages.last().and_then(|message| message["content"].as_str());
        if self.manner.preset.raw {
            return Record::default().with("prompt", last().unwrap_or_default());
        }
        Record::default().with("messages", self.conversation())
    }

    /// The messages, with what the system says before them.
    fn conversation(&self) -> Vec<Value> {
        let system = self.manner.preset.system.iter();
        let system = system.map(|content| json!({"role": "system", "content": content}));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Tells how fast the answer came, and how full the context is.
    fn status(&self, end: &End, first: Instant, out: &mut Output) -> Result<()> {
        let seconds = first.elapsed().as_secs_f64().max(1e-9);
        let rate = end.completion_tokens.saturating_sub(1) as f64 / seconds;
        let used = end.prompt_tokens + end.completion_tokens;
        let context = match self.runner.processor().context_length() {
            Some(all) => format!("{used} of {all} tokens in the context"),
            None => format!("{used} tokens in the context"),
        };
        let why = match end.reason {
            Reason::Stop => "",
            Reason::Calls => ", calls a function",
            Reason::Length(_) => ", cut",
            Reason::Interrupted => ", interrupted",
        };
        let tokens = end.completion_tokens;
        self.remark(&format!("{tokens} tokens, {rate:.1} tok/s{why}; {context}"), out)
    }

    /// Writes a line that is not the model's.
    fn remark(&self, text: &str, out: &mut Output) -> Result<()> {
        match self.manner.colours {
            true => out.text(&format!("\x1b[2m[{text}]\x1b[22m\n")),
            false => out.text(&format!("[{text}]\n")),
        }
    }

    /// Takes back what the model said last, and what the user said before it.
    fn take_back(&mut self) -> Result<Value> {
        let user = self.messages.iter().rposition(|message| message["role"] == "user");
        let user = user.ok_or_else(|| Error::new(Kind::Validation, "", "nothing was said yet"))?;
        let mut taken = self.messages.split_off(user);
        Ok(taken.swap_remove(0))
    }
}
