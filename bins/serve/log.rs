//! Logs on standard error, as text or as JSON, without secrets.

use std::env;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use mlxk_serve::{Entry, Level, Log};
use serde_json::{Value, json};

/// Least number of characters behind `hf_` that make a token of the Hub.
const TOKEN: usize = 30;

/// Flags of logs.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Logs (on standard error)")]
pub struct LogFlags {
    /// Log every HTTP request, not only those for answers
    #[arg(long)]
    verbose: bool,
    /// Write logs as JSON, one object per line
    #[arg(long, env = "MLXK2_LOG_JSON", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    log_json: bool,
}

impl LogFlags {
    /// Log that writes to standard error.
    pub(crate) fn log(self) -> Log {
        let from = if self.verbose { Level::Debug } else { Level::Info };
        let home = env::var("HOME").ok().filter(|home| home.len() > 1);
        Log::new(move |entry| {
            if entry.level < from {
                return;
            }
            let line = match self.log_json {
                true => json_line(entry, home.as_deref()),
                false => text_line(entry, home.as_deref()),
            };
            // A closed stderr must not stop the server.
            let _ = io::stderr().lock().write_all(line.as_bytes());
        })
    }
}

fn text_line(entry: &Entry, home: Option<&str>) -> String {
    let mut line = format!("[{}] {}", entry.level.name(), entry.message);
    for (name, value) in entry.fields.fields().iter().filter(|(_, value)| !value.is_null()) {
        line += &format!(" {name}={value}");
    }
    if let Some(id) = &entry.id {
        line += &format!(" request_id={id}");
    }
    redacted(&line, home) + "\n"
}

fn json_line(entry: &Entry, home: Option<&str>) -> String {
    // A clock before 1970 gives the timestamp 0.
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = json!({
        "ts": age.as_secs_f64(),
        "level": entry.level.name(),
        "msg": redacted(&entry.message, home),
    });
    if let Some(id) = &entry.id {
        line["request_id"] = id.as_str().into();
    }
    for (name, value) in entry.fields.fields() {
        line[name] = match value {
            Value::String(text) => redacted(text, home).into(),
            value => value.clone(),
        };
    }
    format!("{line}\n")
}

/// Text without tokens, the path of the home directory, and control characters.
fn redacted(text: &str, home: Option<&str>) -> String {
    let text = home.map_or_else(|| text.to_owned(), |home| text.replace(home, "~"));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find("hf_") {
        let (before, from) = rest.split_at(start);
        let length = 3 + from[3..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        out += before;
        out += if length >= 3 + TOKEN { "[REDACTED_TOKEN]" } else { &from[..length] };
        rest = &from[length..];
    }
    out += rest;
    out.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use mlxk_core::Record;

    use super::*;

    #[test]
    fn what_is_secret_is_left_out() {
        let token = format!("hf_{}", "a1".repeat(15));
        let text = format!("in /home/me/x: {token}, hf_short\n");
        let shown = "in ~/x: [REDACTED_TOKEN], hf_short\u{fffd}";
        assert_eq!(redacted(&text, Some("/home/me")), shown);
    }

    #[test]
    fn an_entry_is_a_line() {
        let fields = Record::default().with("model", "m").with("none", Value::Null);
        let id = Some("7".to_owned());
        let entry = Entry { level: Level::Info, message: "done".into(), id, fields };
        assert_eq!(text_line(&entry, None), "[INFO] done model=\"m\" request_id=7\n");
        let line: Value = serde_json::from_str(&json_line(&entry, None)).unwrap();
        assert_eq!((&line["msg"], &line["model"]), (&json!("done"), &json!("m")));
        assert_eq!((&line["level"], &line["request_id"]), (&json!("INFO"), &json!("7")));
        assert!(line["ts"].as_f64().unwrap() > 1e9);
    }
}
