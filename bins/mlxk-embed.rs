//! mlxk-embed: turns texts into vectors.

#[path = "embed/mod.rs"]
mod embed;

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::{Form, FormFlags, Input, Output, Tool, completion};
use mlxk_core::{Error, Result};

use mlxk_engine::Side;

use embed::{Encoding, Options, Prompt, Source};

/// Turn texts into vectors, which are near each other if the texts are alike in meaning
///
/// A line is a text, or a record with the field `text`. For each a record is written, in the same
/// order: that of the line, with the vector in the field `embedding`.
#[derive(Parser)]
#[command(name = "mlxk-embed", version, after_help = EXAMPLES)]
struct Embed {
    /// The embedding model: org/name, part of that, name@revision, a path
    #[arg(add = completion::models())]
    model: String,
    /// Files of texts or records, one a line; - for standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<String>,
    /// Put the model's prompt of this name before each text, as query or passage
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
    /// Put this text before each text
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    prompt_text: Option<String>,
    /// Put the model's prompt for questions before each text, if it has one
    #[arg(long, conflicts_with_all = ["prompt", "prompt_text"])]
    query: bool,
    /// Put the model's prompt for texts to be found before each text, if it has one
    #[arg(long, conflicts_with_all = ["prompt", "prompt_text", "query"])]
    document: bool,
    /// Cut texts that are too long for the model, instead of refusing them
    #[arg(long)]
    truncate: bool,
    /// Keep the first N elements of each vector, and normalize it
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Normalize vectors, also those of a model that does not
    #[arg(long)]
    normalize: bool,
    /// Leave vectors as they are, also those of a model that normalizes
    #[arg(long, conflicts_with = "normalize")]
    no_normalize: bool,
    /// How vectors are written
    #[arg(long, value_enum, default_value_t, value_name = "FORM", hide_possible_values = true)]
    encoding: Encoding,
    /// Embed at most N texts at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// The field of records that holds the text; default: text, or else input
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  echo 'Good morning.' | mlxk-embed MiniLM
  mlxk-embed bge-small --query < questions.txt > vectors.ndjson
  jq -c '{id, text: .title}' posts.ndjson | mlxk-embed MiniLM --truncate | jq -c '{id, embedding}'";

impl Tool for Embed {
    const COMMAND: &'static str = "embed";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let files = match Input::choose(&self.files)? {
            Input::Names(files) => files,
            Input::Stdin => vec!["-".to_owned()],
            Input::Nothing => {
                return Err(Error::command("nothing to embed")
                    .hint("name a file, or give texts on standard input"));
            }
        };
        let prompt = match (&self.prompt, &self.prompt_text) {
            (Some(name), _) => Prompt::Named(name.clone()),
            (None, Some(text)) => Prompt::Text(text.clone()),
            (None, None) if self.query => Prompt::Side(Side::Query),
            (None, None) if self.document => Prompt::Side(Side::Document),
            (None, None) => Prompt::Default,
        };
        let batch = usize::from(self.batch);
        let options = Options {
            source: Source { files, field: self.field.clone(), batch },
            prompt,
            truncate: self.truncate,
            dimensions: self.dimensions,
            normalize: (self.normalize || self.no_normalize).then_some(self.normalize),
            encoding: self.encoding,
        };
        embed::embed(&self.model, &options, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Embed>()
}
