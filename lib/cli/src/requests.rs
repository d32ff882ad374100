//! Requests on standard input: one JSON object per line, each with its line number.

use std::io::{self, BufRead};
use std::path::Path;

use mlxk_core::{Error, Kind, Record, Result};

/// The requests as they arrive; empty lines do not count. A failed read is the last item.
pub fn requests() -> impl Iterator<Item = Result<(Record, usize)>> {
    read(io::stdin().lock())
}

/// The same error with the line of standard input that it is about.
pub fn at(line: usize, mut error: Error) -> Error {
    let place = format!("standard input, line {line}");
    error.subject = match error.subject.as_str() {
        "" => place,
        subject => format!("{place}: {subject}"),
    };
    error
}

fn read(lines: impl BufRead) -> impl Iterator<Item = Result<(Record, usize)>> {
    let lines = lines.split(b'\n').zip(1..);
    let lines = lines.filter(|(line, _)| !line.as_ref().is_ok_and(|l| l.trim_ascii().is_empty()));
    let mut failed = false;
    let until_failure = lines.take_while(move |(line, _)| {
        let go_on = !failed;
        failed = line.is_err();
        go_on
    });
    until_failure.map(|(line, number)| match line {
        Ok(line) => record(&line).map(|record| (record, number)).map_err(|e| at(number, e)),
        Err(e) => Err(Error::io(Path::new("standard input"), e)),
    })
}

fn record(line: &[u8]) -> Result<Record> {
    let invalid = |message| Error::new(Kind::Validation, "", message);
    let text = str::from_utf8(line).map_err(|_| invalid("not UTF-8 text".to_owned()))?;
    match text.trim_start().starts_with('{') {
        true => Record::parse(text),
        false => Err(invalid("not a JSON object".to_owned())
            .hint("a request is {\"prompt\": \"...\"} or {\"messages\": [...]}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_told_by_their_number_and_do_not_stop_the_rest() {
        let input = b"{\"prompt\":\"a\"}\n\nplain\r\n{oops\n\xff\n[1]\n {\"prompt\":\"b\"}";
        let told: Vec<String> = read(&input[..])
            .map(|item| match item {
                Ok((record, line)) => format!("{line} {record}"),
                Err(e) => e.subject,
            })
            .collect();
        let at = |line| format!("standard input, line {line}");
        let first = "1 {\"prompt\":\"a\"}".to_owned();
        let last = "7 {\"prompt\":\"b\"}".to_owned();
        assert_eq!(told, [first, at(3), at(4), at(5), at(6), last]);
    }
}
