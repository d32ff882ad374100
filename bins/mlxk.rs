//! mlxk: finds the program for a command, and becomes it.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use mlxk_cli::{Form, Output, Tool, completion, dispatch, program};
use mlxk_core::{Error, Kind, Result};

/// Manage and run MLX models
///
/// `mlxk COMMAND` is the program mlxk-COMMAND, and takes its options. As in mlx-knife, list, show,
/// health, rm, pull, clone and push print text wherever it goes, and read standard input only if
/// named `-`; in pipes use mlxk-ls and so on, which print and read records.
#[derive(Parser)]
#[command(name = "mlxk", disable_version_flag = true, disable_help_subcommand = true)]
#[command(override_usage = "mlxk COMMAND [ARGUMENT]...", help_template = TEMPLATE)]
#[command(before_help = dispatch::overview(), add = completion::commands())]
struct Mlxk {
    /// Print version
    #[arg(short = 'V', long)]
    version: bool,
    /// One document: {status, command, data, error}
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Open the manual page of a command
    Help {
        /// A command, or a topic: model, record
        #[arg(add = completion::topics())]
        topic: Option<String>,
    },
    #[command(external_subcommand)]
    Tool(Vec<OsString>),
}

const TEMPLATE: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}";

impl Tool for Mlxk {
    const COMMAND: &'static str = "version";

    fn form(&self) -> Form {
        if self.json || program::json_wanted() { Form::Json } else { Form::Human }
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        match (&self.command, out.form) {
            (Some(Command::Tool(words)), _) => Err(dispatch::run(words, self.json)),
            (Some(Command::Help { topic: Some(topic) }), _) => Err(dispatch::manual(topic)),
            (None, Form::Json) if self.version => out.envelope(dispatch::version()),
            (None, _) if self.version => out.text(&dispatch::version_line()),
            (Some(Command::Help { topic: None }), _) => out.text(&overview()),
            (None, Form::Json) => Err(no_command()),
            (None, _) => {
                out.text(&overview())?;
                Err(no_command())
            }
        }
    }
}

fn overview() -> String {
    Mlxk::command().render_help().to_string()
}

fn no_command() -> Error {
    Error::new(Kind::Command, "", "no command given").hint("mlxk help")
}

fn main() -> ExitCode {
    dispatch::complete();
    program::main_with::<Mlxk>(dispatch::arguments(env::args_os()))
}
