//! Input of a program: the names on its command line, or the records on its standard input.

use std::io::{self, BufRead, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::mpsc::{Receiver, sync_channel};
use std::{fs, thread};

use mlxk_core::{Error, Kind, Record, Result};

/// The maximum number of records in a batch.
const BATCH: usize = 256;

/// The source of the records.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// The command line.
    Names(Vec<String>),
    /// Standard input.
    Stdin,
    /// No input: the program runs with its defaults.
    Nothing,
}

impl Input {
    /// The names, if there are any; else stdin, if it is a pipe, a socket or a file. `-` is stdin.
    pub fn choose(names: &[String]) -> Result<Input> {
        match names {
            [dash] if dash == "-" => Ok(Input::Stdin),
            [] if stdin_holds_data()? => Ok(Input::Stdin),
            [] => Ok(Input::Nothing),
            names => Ok(Input::Names(names.to_vec())),
        }
    }

    /// The input as [`Input::choose`] selects it; an error if there are neither names nor data.
    pub fn required(names: &[String]) -> Result<Input> {
        match Input::choose(names)? {
            Input::Nothing => Err(Error::new(Kind::Command, "", "no model named")
                .hint("give a name, or records on standard input")),
            input => Ok(input),
        }
    }

    /// The records in batches of those that have arrived, so that none waits for a later one.
    pub fn batches(self) -> Box<dyn Iterator<Item = Vec<Result<Record>>>> {
        match self {
            Input::Names(names) => {
                let records = names.iter().map(|name| Ok(Record::default().with("name", &**name)));
                Box::new(std::iter::once(records.collect()))
            }
            Input::Stdin => Box::new(Batches(read_stdin())),
            Input::Nothing => Box::new(std::iter::empty()),
        }
    }
}

/// True if stdin is a pipe, a socket or a file; false for a terminal and /dev/null (under cron).
pub(crate) fn stdin_holds_data() -> Result<bool> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(false);
    }
    let metadata = stdin.as_fd().try_clone_to_owned().and_then(|fd| fs::File::from(fd).metadata());
    let kind = metadata.map_err(|e| Error::io("standard input".as_ref(), e))?.file_type();
    Ok(kind.is_fifo() || kind.is_socket() || kind.is_file())
}

struct Batches(Receiver<Result<Record>>);

impl Iterator for Batches {
    type Item = Vec<Result<Record>>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.0.recv().ok()?;
        let more = self.0.try_iter().take(BATCH - 1);
        Some(std::iter::once(first).chain(more).collect())
    }
}

/// Reads stdin in a thread of its own, at most one batch ahead.
fn read_stdin() -> Receiver<Result<Record>> {
    let (sender, receiver) = sync_channel(BATCH);
    thread::spawn(move || {
        for record in records(io::stdin().lock()) {
            // The receiver is dropped when the program ends early.
            if sender.send(record).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The records of `lines`, without empty lines. A failed read ends the iteration.
fn records(mut lines: impl BufRead) -> impl Iterator<Item = Result<Record>> {
    let mut number = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        while !ended {
            let mut line = Vec::new();
            number += 1;
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => ended = true,
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => return Some(record(&line, number)),
                Err(e) => {
                    ended = true;
                    return Some(Err(Error::io("standard input".as_ref(), e)));
                }
            }
        }
        None
    })
}

fn record(line: &[u8], number: usize) -> Result<Record> {
    let at = |e: Error| e.about(format!("standard input, line {number}"));
    match str::from_utf8(line) {
        Ok(line) => named(line).map_err(at),
        Err(_) => Err(at(Error::new(Kind::Validation, "", "not UTF-8 text"))),
    }
}

/// A record that names a model.
fn named(line: &str) -> Result<Record> {
    let record = Record::parse(line)?;
    record.spec()?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named_and_do_not_stop_the_rest() {
        let input = b"{\"name\":\"a/b\",\"x\":1}\n\nplain/name\r\n{oops\n\xff\xfe\nlast";
        let read: Vec<_> = records(&input[..])
            .map(|r| match r {
                Ok(record) => record.to_string(),
                Err(e) => e.subject,
            })
            .collect();
        let line = |n| format!("standard input, line {n}");
        let expected = [
            r#"{"name":"a/b","x":1}"#.into(),
            r#"{"name":"plain/name"}"#.into(),
            line(4),
            line(5),
            r#"{"name":"last"}"#.into(),
        ];
        assert_eq!(read, expected);
    }
}
