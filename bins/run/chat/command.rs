//! Commands of a chat: lines that begin with a slash.

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_cli::Output;
use mlxk_core::{Error, Kind, Record, Result};
use mlxk_processor::Request;
use mlxk_processor::sampling::{Field, Options};
use serde_json::Value;

use super::conversation::Conversation;
use crate::run::options::Reasoning;

/// Commands, and the help of each.
pub const HELP: [(&str, &str); 10] = [
    ("/system [TEXT]", "set the system prompt; without TEXT, show it"),
    ("/set [NAME [VALUE]]", "set temperature, max_tokens, ...; without VALUE, reset it"),
    ("/reset", "delete all messages"),
    ("/retry", "answer the last message again"),
    ("/undo", "delete the last message and its answer"),
    ("/save FILE", "write the conversation to a file, as a request"),
    ("/load FILE", "continue a conversation from a file"),
    ("/help", "show this"),
    ("/quit", "quit; Ctrl-D does too"),
    ("\"\"\"", "begins and ends a message of several lines; \\ continues a line"),
];

/// Option of `/set` that belongs to the page, not to the request.
const REASONING: &str = "reasoning";

/// Command of a line.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Quit,
    Reset,
    Retry,
    Undo,
    System(Option<String>),
    Set(Option<(String, Option<String>)>),
    Save(String),
    Load(String),
}

impl Command {
    /// Command of a line, if it has one.
    ///
    /// # Errors
    /// If the line begins with a slash and is not a command.
    pub fn parse(line: &str) -> Result<Option<Command>> {
        let line = line.trim();
        if ["exit", "quit"].contains(&line.to_lowercase().as_str()) {
            return Ok(Some(Command::Quit));
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(None) };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let some = (!rest.is_empty()).then(|| rest.to_owned());
        let file =
            || some.clone().ok_or_else(|| wrong(&format!("/{name} needs the name of a file")));
        Ok(Some(match name {
            "help" | "?" => Command::Help,
            "quit" | "exit" | "bye" => Command::Quit,
            "reset" | "clear" => Command::Reset,
            "retry" => Command::Retry,
            "undo" => Command::Undo,
            "system" => Command::System(some),
            "set" => Command::Set(some.map(|some| match some.split_once(char::is_whitespace) {
                Some((name, value)) => (name.to_owned(), Some(value.trim().to_owned())),
                None => (some, None),
            })),
            "save" => Command::Save(file()?),
            "load" => Command::Load(file()?),
            _ => {
                return Err(
                    wrong(&format!("/{name} is not a command")).hint("/help lists the commands")
                );
            }
        }))
    }
}

impl Conversation {
    /// Executes a command.
    ///
    /// # Errors
    /// If the command fails, or the terminal cannot be written.
    pub fn obey(&mut self, command: Command, out: &mut Output) -> Result<()> {
        match command {
            Command::Quit => Ok(()),
            Command::Help => {
                let lines = HELP.iter().map(|(name, what)| format!("{name:<18} {what}\n"));
                out.text(&lines.collect::<String>())
            }
            Command::Reset => {
                self.messages.clear();
                self.remark("all messages deleted", out)
            }
            Command::Undo => {
                self.take_back()?;
                self.remark("the last message was deleted", out)
            }
            Command::Retry => {
                let question = self.take_back()?;
                self.say(question["content"].as_str().unwrap_or_default().to_owned(), out)
            }
            Command::System(None) => {
                let system = self.options.preset.system.as_deref().unwrap_or("no system prompt");
                out.text(&format!("{system}\n"))
            }
            Command::System(text) => {
                self.options.preset.system = text;
                self.remark("system prompt set", out)
            }
            Command::Set(None) => self.show_options(out),
            Command::Set(Some((name, value))) => self.set(&name, value.as_deref(), out),
            Command::Save(file) => {
                self.save(&at_home(&file))?;
                self.remark(&format!("{} messages in {file}", self.messages.len()), out)
            }
            Command::Load(file) => {
                self.load(&at_home(&file))?;
                self.remark(&format!("{} messages from {file}", self.messages.len()), out)
            }
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>, out: &mut Output) -> Result<()> {
        match (name, value) {
            (REASONING, None) => self.options.reasoning = self.start.reasoning,
            (REASONING, Some("show")) => self.options.reasoning = Reasoning::Show,
            (REASONING, Some("hide")) => self.options.reasoning = Reasoning::Hide,
            (REASONING, Some("only")) => self.options.reasoning = Reasoning::Only,
            (REASONING, _) => return Err(wrong("`reasoning` is show, hide or only")),
            _ if Options::fields().any(|field| field.name == name) => {
                let value = value.map_or(Value::Null, |value| {
                    serde_json::from_str(value).unwrap_or_else(|_| value.into())
                });
                // What is null holds as at the start.
                let set = self.set.clone().with(name, value);
                let options = Request::parse(&set, &self.start.preset)?.options;
                (self.options.preset.options, self.set) = (options, set);
            }
            _ => {
                let names = Options::fields().map(|field| field.name).chain([REASONING]);
                let hint = format!("options: {}", names.collect::<Vec<_>>().join(", "));
                return Err(wrong(&format!("{name} is not an option")).hint(hint));
            }
        }
        let value = value.unwrap_or("reset");
        self.remark(&format!("{name} is {value}"), out)
    }

    /// Writes the options of the next answer.
    fn show_options(&self, out: &mut Output) -> Result<()> {
        let defaults = self.runner.processor().defaults();
        let value = |field: &Field| {
            let own = field.get(&self.options.preset.options).or_else(|| field.default(defaults));
            own.map_or_else(|| unset(field.name).to_owned(), |value| shown(&value))
        };
        let options = Options::fields().map(|field| (field.name, value(field)));
        let reasoning = (REASONING, format!("{:?}", self.options.reasoning).to_lowercase());
        let lines = options.chain([reasoning]).map(|(name, value)| format!("{name:<21} {value}\n"));
        out.text(&lines.collect::<String>())
    }

    /// Writes the conversation as a request, which `mlxk-run --ndjson -` takes too.
    fn save(&self, path: &Path) -> Result<()> {
        let record = Record::default().with("messages", self.all());
        fs::write(path, format!("{record}\n")).map_err(|e| Error::io(path, e))
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let at = |mut e: Error| {
            e.subject = path.display().to_string();
            e
        };
        let record = Record::parse(text.trim()).map_err(at)?;
        Request::parse(&record, &self.options.preset).map_err(at)?;
        let messages = record.fields().get("messages").and_then(Value::as_array);
        let messages = messages.ok_or_else(|| at(wrong("no `messages`")))?;
        let (system, said): (Vec<Value>, Vec<Value>) =
            messages.iter().cloned().partition(|message| message["role"] == "system");
        let system = system.first().and_then(|message| message["content"].as_str());
        self.options.preset.system = system.map(str::to_owned);
        self.messages = said;
        Ok(())
    }
}

/// Meaning of an option that has no value.
fn unset(name: &str) -> &'static str {
    match name {
        "max_tokens" => "the rest of the context",
        "seed" => "random for each answer",
        _ => "none",
    }
}

/// Value of an option as `/set` takes it.
fn shown(value: &Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => number.to_string(),
        None => value.to_string(),
    }
}

/// Path as typed, with `~` expanded as by a shell.
fn at_home(typed: &str) -> PathBuf {
    mlxk_cli::places::at_home(Path::new(typed))
}

fn wrong(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_and_nothing_else_does() {
        let parse = |line: &str| Command::parse(line).unwrap();
        assert_eq!(parse("Why / how?"), None);
        assert_eq!(parse(" /reset "), Some(Command::Reset));
        assert_eq!(parse("Quit"), Some(Command::Quit));
        assert_eq!(parse("/system  Be brief. "), Some(Command::System(Some("Be brief.".into()))));
        let set =
            |value: Option<&str>| Command::Set(Some(("top_p".into(), value.map(str::to_owned))));
        assert_eq!(parse("/set top_p  0.5"), Some(set(Some("0.5"))));
        assert_eq!(parse("/set top_p "), Some(set(None)));
        for line in ["/no", "/save", "/"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
