//! Lines of files or standard input, each a text or a record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use mlxk_cli::interrupt;
use mlxk_core::{Error, Kind, Record, Result};
use serde_json::Value;

/// Maximum size of a line in bytes; longer ones are not read, so that memory has a bound.
const MAX_LINE: u64 = 64 << 20;

/// Time after which a wait for a line is broken to see whether a signal was received.
const WAIT: Duration = Duration::from_millis(100);

/// Fields that hold the text of a record unless another one is named.
pub const FIELDS: [&str; 2] = ["text", "input"];

/// Lines to read.
#[derive(Clone, Debug)]
pub struct Source {
    /// Files of the lines; `-` is standard input.
    pub files: Vec<String>,
    /// True if a name that no file has is itself a text, and standard input is a single text, as for
    /// mlx-knife.
    pub whole: bool,
    /// Field of records that holds the text.
    pub field: Option<String>,
    /// Maximum number of lines in a group.
    pub batch: usize,
}

/// A text to embed.
pub struct Item {
    /// Record to which the vector is added as a field.
    pub record: Record,
    /// Content of the text.
    pub content: Content,
    /// File and line of the text.
    pub place: String,
}

/// Content of a text.
pub enum Content {
    /// Characters.
    Text(String),
    /// Tokens, special ones included.
    Tokens(Vec<u32>),
}

/// Texts of `source`, in [`groups`].
pub fn texts(source: Source) -> impl Iterator<Item = Vec<Result<Item>>> {
    let field = source.field.clone();
    groups(source, move |line, place| item(line, field.as_deref(), place))
}

/// What `parse` makes of each line of `source` and its place, in order; the error of a line is about
/// its place. A group has the lines that have arrived, so that none waits for a later one. A signal
/// that is [watched](interrupt::watch) for ends the groups.
pub fn groups<T: Send + 'static>(
    source: Source,
    parse: impl Fn(&str, &str) -> Result<T> + Send + 'static,
) -> impl Iterator<Item = Vec<Result<T>>> {
    let Source { files, whole, batch, .. } = source;
    let (sender, receiver) = sync_channel(batch);
    thread::spawn(move || {
        for file in files {
            let read = match file.as_str() {
                "-" if whole => text_of_stdin(&parse, &sender),
                text if whole && !Path::new(text).exists() => {
                    sender.send(parse_text(text, "the text", &parse)).ok()
                }
                "-" => lines(io::stdin().lock(), "standard input", &parse, &sender),
                path => match File::open(path) {
                    Ok(open) => lines(BufReader::new(open), path, &parse, &sender),
                    Err(e) => sender.send(Err(unopened(path, e))).ok(),
                },
            };
            // The receiver has been dropped.
            if read.is_none() {
                break;
            }
        }
    });
    Groups { receiver, batch }
}

struct Groups<T> {
    receiver: Receiver<Result<T>>,
    batch: usize,
}

impl<T> Iterator for Groups<T> {
    type Item = Vec<Result<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = loop {
            match self.receiver.recv_timeout(WAIT) {
                Ok(first) => break first,
                Err(RecvTimeoutError::Timeout) if !interrupt::caught() => {}
                Err(_) => return None,
            }
        };
        let more = self.receiver.try_iter().take(self.batch - 1);
        Some(std::iter::once(first).chain(more).collect())
    }
}

/// Sends what `parse` makes of the non-empty lines of `input`; a failed read is the last item. `None`
/// if the receiver has been dropped.
fn lines<T>(
    mut input: impl BufRead,
    name: &str,
    parse: &impl Fn(&str, &str) -> Result<T>,
    sender: &SyncSender<Result<T>>,
) -> Option<()> {
    for number in 1usize.. {
        let mut line = Vec::new();
        match (&mut input).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(read) if read as u64 == MAX_LINE && !line.ends_with(b"\n") => {
                let place = format!("{name}, line {number}");
                let most = MAX_LINE >> 20;
                let error = Error::validation(format!("a line of more than {most} MiB"));
                sender.send(Err(error.about(place))).ok()?;
                if let Err(e) = skip_line(&mut input) {
                    sender.send(Err(Error::io(Path::new(name), e))).ok()?;
                    break;
                }
            }
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(_) => {
                let place = format!("{name}, line {number}");
                let parsed = text(&line).and_then(|line| parse(line, &place));
                sender.send(parsed.map_err(|e| e.about(place))).ok()?;
            }
            Err(e) => {
                sender.send(Err(Error::io(Path::new(name), e))).ok()?;
                break;
            }
        }
    }
    Some(())
}

/// Sends what `parse` makes of standard input as one text, without its last line ends.
fn text_of_stdin<T>(
    parse: &impl Fn(&str, &str) -> Result<T>,
    sender: &SyncSender<Result<T>>,
) -> Option<()> {
    let (mut bytes, name) = (Vec::new(), "standard input");
    let read = io::stdin().lock().take(MAX_LINE).read_to_end(&mut bytes);
    let parsed = match read {
        Err(e) => Err(Error::io(Path::new(name), e)),
        Ok(_) => match str::from_utf8(&bytes) {
            Ok(text) => parse_text(text.trim_end_matches(['\n', '\r']), name, parse),
            Err(_) => Err(Error::validation("not UTF-8 text").about(name)),
        },
    };
    sender.send(parsed).ok()
}

/// What `parse` makes of a record with `text`.
fn parse_text<T>(text: &str, place: &str, parse: &impl Fn(&str, &str) -> Result<T>) -> Result<T> {
    let record = Record::default().with("text", text).to_string();
    parse(&record, place).map_err(|e| e.about(place))
}

/// Reads the rest of a line and forgets it.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let (used, ended) = (end.map_or(buffer.len(), |at| at + 1), end.is_some());
        input.consume(used);
        if ended || used == 0 {
            return Ok(());
        }
    }
}

/// The characters of a line.
fn text(line: &[u8]) -> Result<&str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    str::from_utf8(line).map_err(|_| Error::validation("not UTF-8 text"))
}

/// The text of a line.
fn item(line: &str, field: Option<&str>, place: &str) -> Result<Item> {
    let place = place.to_owned();
    if !line.trim_start().starts_with('{') {
        let record = Record::default().with("text", line);
        return Ok(Item { record, content: Content::Text(line.to_owned()), place });
    }
    let record = Record::parse(line)?;
    let content = match field {
        Some(field) => record.get(field).map(|value| content(field, value)),
        None => FIELDS.iter().find_map(|field| Some(content(field, record.get(field)?))),
    };
    let missing =
        || Error::validation(format!("a record without `{}`", field.unwrap_or(FIELDS[0])));
    Ok(Item { content: content.ok_or_else(missing)??, record, place })
}

/// The content of a field: a text, or a list of tokens.
fn content(field: &str, value: &Value) -> Result<Content> {
    let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let content = match value {
        Value::String(text) => Some(Content::Text(text.clone())),
        Value::Array(ids) => ids.iter().map(token).collect::<Option<_>>().map(Content::Tokens),
        _ => None,
    };
    content.ok_or_else(|| Error::validation(format!("`{field}` is neither a text nor tokens")))
}

fn unopened(path: &str, error: io::Error) -> Error {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let error = Error::io(Path::new(path), error);
    match missing {
        true => error.hint("give texts on standard input"),
        false => error,
    }
}

/// The error of the text at `place`, with the flag that lets a text that is too long pass.
pub fn about(error: Error, place: &str) -> Error {
    let error = error.about(place);
    match error.kind {
        Kind::ContextLengthExceeded => error.hint("--truncate cuts it"),
        _ => error,
    }
}
