//! Audio to transcribe: files of the command line, standard input, or files listed there.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mlxk_core::{Error, Record, Result};
use mlxk_processor::audio::Source;
use mlxk_processor::transcript::{SpeechTask, TranscribeOptions, language};

/// Name of standard input in messages.
const STDIN: &str = "standard input";

/// Fields of a record that may hold the path of its audio.
const FIELDS: [&str; 3] = ["audio", "path", "file"];

/// Maximum size of a line of a list, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Where the audio is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioInput {
    /// Files; `-` is standard input.
    Files(Vec<String>),
    /// Files that standard input lists: a name or a record on each line.
    Listed,
}

impl AudioInput {
    /// The input, from the files of `--audio`, `-@`, and a `-` among the words of a prompt.
    ///
    /// # Errors
    /// If there is none, more than one, or standard input may not be read.
    pub fn choose(files: &[String], listed: bool, dash: bool) -> Result<AudioInput> {
        let standard = files.iter().filter(|file| *file == "-").count() + usize::from(dash);
        if listed && (!files.is_empty() || dash) {
            return Err(Error::command("both -@ and other audio"));
        }
        if standard > 1 || dash && !files.is_empty() {
            return Err(Error::command("standard input is one audio file, and is named once"));
        }
        let piped = mlxk_cli::prompt::wants_stdin(listed || standard > 0)?;
        match files {
            _ if listed => Ok(AudioInput::Listed),
            [] if piped => Ok(AudioInput::Files(vec!["-".to_owned()])),
            [] => Err(Error::command("a speech model needs audio")
                .hint("--audio FILE..., or - for standard input")),
            files => Ok(AudioInput::Files(files.to_vec())),
        }
    }

    /// True if there is one file only.
    pub fn is_single(&self) -> bool {
        matches!(self, AudioInput::Files(files) if files.len() == 1)
    }

    /// The audio files in order; a line of a list that is none is an error.
    pub fn files(self) -> Box<dyn Iterator<Item = Result<AudioFile>>> {
        match self {
            AudioInput::Files(files) => Box::new(files.into_iter().map(|name| {
                Ok(AudioFile { record: Record::default().with("audio", &*name), path: name.into() })
            })),
            AudioInput::Listed => Box::new(listed(io::stdin().lock())),
        }
    }
}

/// Audio file to transcribe.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioFile {
    /// Record of the file, whose fields its transcript keeps.
    pub record: Record,
    /// Path of the file; `-` is standard input.
    path: PathBuf,
}

impl AudioFile {
    /// Name of the file in messages.
    pub fn name(&self) -> String {
        match self.is_stdin() {
            true => STDIN.to_owned(),
            false => self.path.display().to_string(),
        }
    }

    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be opened, or is a directory.
    pub fn open(&self) -> Result<Source> {
        let opened = match self.is_stdin() {
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(&self.path),
        };
        let path = Path::new(if self.is_stdin() { Path::new(STDIN) } else { &self.path });
        let file = opened.map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        match metadata.is_dir() {
            true => Err(Error::io(path, io::ErrorKind::IsADirectory.into())),
            false => Ok(Source::File(file)),
        }
    }

    /// Options of the file: `options`, but for those that its record states.
    ///
    /// # Errors
    /// If a field of the record is invalid.
    pub fn options(&self, options: &TranscribeOptions) -> Result<TranscribeOptions> {
        let text = |name: &str| match self.record.get(name) {
            None => Ok(None),
            Some(value) if value.is_null() => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(Error::validation(format!("`{name}` is not a text"))),
            },
        };
        let mut options = options.clone();
        if let Some(name) = text("language")? {
            options.language = language::parse(&name)?.map(str::to_owned);
        }
        options.prompt = text("prompt")?.or(options.prompt);
        options.hotwords = text("hotwords")?.or(options.hotwords);
        options.task = match text("task")?.as_deref() {
            None => options.task,
            Some("transcribe") => SpeechTask::Transcribe,
            Some("translate") => SpeechTask::Translate,
            Some(_) => return Err(Error::validation("`task` is not transcribe or translate")),
        };
        Ok(options)
    }

    fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

/// The files that lines list; the error of a line is about its number. A failed read is the last item.
fn listed(mut lines: impl BufRead) -> impl Iterator<Item = Result<AudioFile>> {
    let (mut number, mut ended) = (0, false);
    std::iter::from_fn(move || {
        while !ended {
            let mut line = Vec::new();
            number += 1;
            match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) => ended = true,
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(read) => {
                    ended = read as u64 == MAX_LINE && !line.ends_with(b"\n");
                    let file = match ended {
                        true => Err(Error::validation("a line of more than 1 MiB")),
                        false => file(&line),
                    };
                    return Some(file.map_err(|e| e.about(format!("{STDIN}, line {number}"))));
                }
                Err(e) => {
                    ended = true;
                    return Some(Err(Error::io(Path::new(STDIN), e)));
                }
            }
        }
        None
    })
}

/// The file that a line names.
fn file(line: &[u8]) -> Result<AudioFile> {
    let line = str::from_utf8(line).map_err(|_| Error::validation("not UTF-8 text"))?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let record = match line.trim_start().starts_with('{') {
        true => Record::parse(line)?,
        false => Record::default().with("audio", line),
    };
    let path = FIELDS.iter().find_map(|field| record.str(field)).map(PathBuf::from);
    match path {
        Some(path) if path.as_os_str() == "-" => {
            Err(Error::validation("standard input has the list, and no audio"))
        }
        Some(path) => Ok(AudioFile { record, path }),
        None => Err(Error::validation("a record without `audio`")
            .hint("a record names its file: {\"audio\": \"a.wav\"}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_names_and_records_and_its_bad_lines_do_not_stop_it() {
        let lines =
            b"a b.wav\r\n\n{\"id\":1,\"path\":\"c.mp3\"}\n{}\n\xff\n-\n{oops\n{\"audio\":\"d\"}";
        let told: Vec<String> = listed(&lines[..])
            .map(|file| match file {
                Ok(file) => format!("{} {}", file.name(), file.record),
                Err(e) => e.subject,
            })
            .collect();
        let line = |number: usize| format!("standard input, line {number}");
        let expected = [
            "a b.wav {\"audio\":\"a b.wav\"}".to_owned(),
            "c.mp3 {\"id\":1,\"path\":\"c.mp3\"}".to_owned(),
            line(4),
            line(5),
            line(6),
            line(7),
            "d {\"audio\":\"d\"}".to_owned(),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_record_states_options_of_its_own() {
        let line = br#"{"audio":"a","language":"German","task":"translate","prompt":null}"#;
        let options =
            TranscribeOptions { prompt: Some("p".into()), ..TranscribeOptions::default() };
        let own = file(line).unwrap().options(&options).unwrap();
        assert_eq!(own.language.as_deref(), Some("de"));
        assert_eq!((own.task, own.prompt.as_deref()), (SpeechTask::Translate, Some("p")));
        for wrong in [r#"{"audio":"a","language":"xx"}"#, r#"{"audio":"a","task":1}"#] {
            assert!(file(wrong.as_bytes()).unwrap().options(&options).is_err(), "{wrong}");
        }
    }
}
