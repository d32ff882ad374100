//! mlxk-embed: turns texts into vectors, and searches them.

#[path = "embed/mod.rs"]
mod embed;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use mlxk_cli::{Form, FormFlags, Input, Output, Tool, compatibility, completion};
use mlxk_core::probe::sentence::Pooling;
use mlxk_core::{Error, Result};
use mlxk_processor::engine::EmbedPrompt;

use embed::{Encoding, Format, Model, Options, Question, Ranking, Source};

/// Turn texts into vectors, which are near each other if the texts are alike in meaning
///
/// A line is a text, or a record with the field `text`. For each a record is written, in the same
/// order: that of the line, with the vector in the field `embedding`. With --search these records are
/// read, and the best ones written.
#[derive(Parser)]
#[command(name = "mlxk-embed", version, after_help = EXAMPLES)]
struct Embed {
    /// The embedding model: org/name, part of that, name@revision, a path
    #[arg(add = completion::models())]
    model: String,
    /// Files of texts or records, one a line; - for standard input. `mlxk embed` takes a text instead
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
    /// Pool the vectors of tokens this way, instead of as the model says: last, mean, cls, max
    #[arg(long, value_name = "WAY", value_parser = pooling)]
    pooling: Option<Pooling>,
    /// Put this task before each text, as a question to models that take instructions
    #[arg(long, value_name = "TASK", conflicts_with_all = ["prompt", "prompt_text", "document"])]
    instruct: Option<String>,
    /// Read lines from standard input, as `mlxk embed --batch` did
    #[arg(long, hide = true)]
    lines: bool,
    /// Embed on the CPU, although there is a GPU
    #[arg(long)]
    cpu: bool,
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
    /// Write the vectors to this file, .npy or .safetensors, as the rows of a matrix
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with = "encoding")]
    output: Option<PathBuf>,
    /// Rank records with vectors by their similarity to this question
    #[arg(long, value_name = "QUESTION", value_parser = NonEmptyStringValueParser::new())]
    #[arg(group = "ranked", conflicts_with_all = ["output", "encoding"])]
    search: Option<String>,
    /// Rank texts by the scores of a reranker for this question
    #[arg(long, value_name = "QUESTION", value_parser = NonEmptyStringValueParser::new())]
    #[arg(group = "ranked", conflicts_with_all = [
        "output", "encoding", "prompt", "prompt_text", "query", "document", "dimensions",
        "normalize", "no_normalize", "pooling",
        "instruct",
    ])]
    rerank: Option<String>,
    /// Write the N best records
    #[arg(long, value_name = "N", default_value_t = 10, requires = "ranked")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Leave out records whose score is below X
    #[arg(long, value_name = "X", requires = "ranked", value_parser = finite)]
    #[arg(allow_negative_numbers = true)]
    threshold: Option<f32>,
    #[command(flatten)]
    form: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  echo 'Good morning.' | mlxk-embed MiniLM
  mlxk-embed bge-small --query < questions.txt > vectors.ndjson
  jq -c '{id, text: .title}' posts.ndjson | mlxk-embed MiniLM --truncate > index.ndjson
  mlxk-embed MiniLM --search 'How does it end?' --top 50 < index.ndjson |
      mlxk-embed ms-marco --rerank 'How does it end?'";

impl Tool for Embed {
    const COMMAND: &'static str = "embed";

    fn form(&self) -> Form {
        self.form.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        if self.cpu {
            mlxk_tensor::mlx::use_cpu()?;
        }
        let source = self.source()?;
        let ranking = Ranking::new(self.top as usize, self.threshold);
        let places = mlxk_cli::places()?;
        if let Some(text) = &self.rerank {
            let question = Question { text, truncate: self.truncate };
            return embed::rerank(&self.model, question, source, ranking, &places, out);
        }
        let output = self.output.as_deref();
        let file = output.map(|path| Ok((path, Format::of(path)?))).transpose()?;
        let model = Model::load(&self.model, &self.options(), &places, out)?;
        match (&self.search, file) {
            (Some(question), _) => embed::search(&model, question, source, ranking, out),
            (None, Some((path, format))) => embed::save(&model, source, path, format, out),
            (None, None) => embed::embed(&model, source, self.encoding, out),
        }
    }
}

impl Embed {
    /// What to read.
    fn source(&self) -> Result<Source> {
        let whole = compatibility::is_called() && !self.lines;
        let files = match Input::choose(&self.files)? {
            Input::Names(files) => files,
            Input::Stdin => vec!["-".to_owned()],
            Input::Nothing => {
                let (what, lines) = match (&self.search, &self.rerank) {
                    (Some(_), _) => ("nothing to search", "records with vectors"),
                    (_, Some(_)) => ("nothing to rank", "texts"),
                    _ => ("nothing to embed", "texts"),
                };
                let hint = format!("name a file, or give {lines} on standard input");
                return Err(Error::command(what).hint(hint));
            }
        };
        Ok(Source { files, whole, field: self.field.clone(), batch: usize::from(self.batch) })
    }

    /// Options of the model.
    fn options(&self) -> Options {
        let prompt = match (&self.prompt, &self.prompt_text) {
            (Some(name), _) => EmbedPrompt::Named(name.clone()),
            (None, Some(text)) => EmbedPrompt::Text(text.clone()),
            (None, None) if self.instruct.is_some() => {
                let task = self.instruct.as_deref().unwrap_or_default();
                EmbedPrompt::Text(format!("Instruct: {task}\nQuery:"))
            }
            (None, None) if self.document => EmbedPrompt::Document,
            (None, None) if self.query || self.search.is_some() => EmbedPrompt::Query,
            (None, None) => EmbedPrompt::Default,
        };
        Options {
            prompt,
            pooling: self.pooling,
            truncate: self.truncate,
            dimensions: self.dimensions,
            normalize: (self.normalize || self.no_normalize).then_some(self.normalize),
        }
    }
}

/// A way to pool, by its name in configurations or by a shorter one.
fn pooling(name: &str) -> std::result::Result<Pooling, String> {
    let way = if name == "last" { Some(Pooling::LastToken) } else { Pooling::find(name) };
    way.ok_or_else(|| {
        let names: Vec<&str> = Pooling::ALL.iter().map(|(.., name)| *name).collect();
        format!("the ways are last, {}", names.join(", "))
    })
}

/// A finite number.
fn finite(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().ok().filter(|x: &f32| x.is_finite());
    number.ok_or_else(|| "not a finite number".to_owned())
}

fn main() -> ExitCode {
    mlxk_cli::main::<Embed>()
}
