//! Dispatch of `mlxk COMMAND` to the command's program, under its current or its former name.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mlxk_core::{Error, Kind};
use serde_json::{Value, json};
use strsim::jaro_winkler;

use crate::compatibility::{self, called_as};
use crate::system;

/// The commands with their descriptions.
pub const COMMANDS: &[(&str, &str)] = &[
    ("ls", "List the models on disk"),
    ("show", "Show what a model is"),
    ("health", "Say whether models are whole"),
    ("rm", "Remove models from the cache"),
    ("pull", "Fetch models into the cache"),
    ("clone", "Make a workspace of a model"),
    ("push", "Send a workspace to the Hub"),
    ("run", "Run a model on a prompt"),
    ("embed", "Turn texts into vectors"),
    ("serve", "Serve models over HTTP"),
    ("convert", "Import, quantise or mend a model"),
];

/// Topics that have a manual page, besides the commands.
pub const TOPICS: [&str; 2] = ["model", "record"];

/// Former names of commands, with their current names.
pub const FORMER: [(&str, &str); 3] =
    [("list", "ls"), ("server", "serve"), ("embed-serve", "serve")];

/// Commands that print text even in a pipe, for compatibility with older versions.
const TEXTUAL: [&str; 7] = ["list", "show", "health", "rm", "pull", "clone", "push"];

/// Minimum similarity of a misspelt command to the known one that is suggested.
const ALIKE: f64 = 0.7;

/// The specification that the envelope follows.
const SPECIFICATION: &str = "0.2.4";

/// The command line, where `mlx-run` stands for `mlxk run`.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.into_iter().collect();
    if called_as() == "mlx-run" && !arguments.is_empty() {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// The text of `mlxk --version`: the version of mlx-knife that scripts look for, then that of the suite.
pub fn version_line() -> String {
    let (name, version) = (called_as(), compatibility::VERSION);
    format!("{name} {version} (mlxk suite {})\n", env!("CARGO_PKG_VERSION"))
}

/// The `data` of `mlxk --version --json`.
pub fn version() -> Value {
    json!({
        "cli_version": compatibility::VERSION,
        "json_api_spec_version": SPECIFICATION,
        "system": system::describe(),
    })
}

/// The list of commands.
pub fn overview() -> String {
    let help = [("help", "Open the manual page of a command")];
    let line = |(name, about): &(&str, &str)| format!("  {name:<8}  {about}\n");
    format!("Commands:\n{}", COMMANDS.iter().chain(&help).map(line).collect::<String>())
}

/// Runs the command that `words` begin with instead of this program; returns only if that fails.
pub fn run(words: &[OsString], json: bool) -> Error {
    let [command, args @ ..] = words else {
        return unknown("");
    };
    let command = command.to_string_lossy();
    let mut program = program(current_name(&command));
    // The program answers in the ways of mlx-knife under this name.
    program.arg0(called_as()).args(former(&command, args));
    let says = |flag: &str| args.iter().any(|arg| arg == flag) || json && flag == "--json";
    if json {
        program.arg("--json");
    }
    if TEXTUAL.contains(&&*command) && !says("--ndjson") {
        if !says("--json") && !says("--human") {
            program.arg("--human");
        }
        // Scripts call it where standard input belongs to the script.
        if !says("-") {
            program.stdin(Stdio::null());
        }
    }
    let e = program.exec();
    match e.kind() {
        io::ErrorKind::NotFound if is_known(&command) => missing(current_name(&command)),
        io::ErrorKind::NotFound => unknown(&command),
        _ => Error::io(Path::new(program.get_program()), e),
    }
}

/// Opens the manual page of a command or topic; returns only if that fails.
pub fn manual(topic: &str) -> Error {
    let page = format!("mlxk-{}", current_name(topic));
    let e = Command::new("man").arg(installed_page(&page).unwrap_or_else(|| page.into())).exec();
    Error::new(Kind::Execution, "man", e.to_string()).hint(format!("mlxk {topic} --help"))
}

/// If a shell asks for the words after `mlxk COMMAND`, lets that command answer.
pub fn complete() {
    let words = env::args_os().skip_while(|arg| arg != "--").skip(1);
    let given: Vec<OsString> = words.collect();
    let position = env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    let position: usize = position.unwrap_or(given.len().saturating_sub(1));
    let words = arguments(given.clone());
    let position = position + words.len() - given.len();
    let [_, command, rest @ ..] = &words[..] else {
        return;
    };
    let name = command.to_str().map(current_name);
    let known = name.filter(|name| is_known(name));
    let (true, 2.., Some(name)) = (env::var_os("COMPLETE").is_some(), position, known) else {
        return;
    };
    // If it cannot be started, there are no completions, and a shell must not get an error message.
    let _ = program(name)
        .arg("--")
        .arg(format!("mlxk-{name}"))
        .args(rest)
        .env("_CLAP_COMPLETE_INDEX", (position - 1).to_string())
        .exec();
}

/// The arguments of a command of mlx-knife as the program of today takes them.
fn former(command: &str, args: &[OsString]) -> Vec<OsString> {
    let mut all: Vec<OsString> = args.to_vec();
    match command {
        "embed-serve" => all.insert(0, "--embed-only".into()),
        // There it takes no number.
        "embed" => {
            for place in 0..all.len() {
                let next = all.get(place + 1).and_then(|next| next.to_str());
                let counted = next.is_some_and(|next| next.parse::<u16>().is_ok());
                if all[place] == "--batch" && !counted {
                    all[place] = "--lines".into();
                }
            }
        }
        _ => {}
    }
    all
}

fn current_name(command: &str) -> &str {
    FORMER.iter().find(|(former, _)| *former == command).map_or(command, |(_, name)| name)
}

/// `mlxk-NAME` in the directory of this program, or else in `PATH`.
fn program(name: &str) -> Command {
    let file = format!("mlxk-{name}");
    let sibling = directory().map(|directory| directory.join(&file)).filter(|path| path.is_file());
    Command::new(sibling.map_or_else(|| OsString::from(file), PathBuf::into_os_string))
}

/// Directory of this program's executable, with symbolic links resolved.
fn directory() -> Option<PathBuf> {
    let program = env::current_exe().and_then(|program| program.canonicalize()).ok()?;
    program.parent().map(Path::to_owned)
}

/// The manual page installed with this program, which may be outside the search path of `man`.
fn installed_page(page: &str) -> Option<OsString> {
    let share = directory()?.parent()?.join("share/man");
    let path = |section| share.join(format!("man{section}/{page}.{section}"));
    [path(1), path(7)].into_iter().find(|path| path.is_file()).map(PathBuf::into_os_string)
}

fn is_known(command: &str) -> bool {
    let former = FORMER.iter().any(|(former, _)| *former == command);
    former || COMMANDS.iter().any(|(name, _)| *name == command)
}

fn missing(name: &str) -> Error {
    Error::new(Kind::Execution, format!("mlxk-{name}"), "not installed")
        .hint("install it in the directory of mlxk, or on PATH")
}

fn unknown(command: &str) -> Error {
    let names = || COMMANDS.iter().map(|(name, _)| *name).chain(FORMER.map(|(former, _)| former));
    let likeness = |name: &str| jaro_winkler(name, command);
    let nearest = names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = match nearest.filter(|name| likeness(name) >= ALIKE) {
        Some(name) => format!("did you mean `mlxk {name}`?"),
        None => {
            let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
            format!("the commands are {}", names.join(", "))
        }
    };
    Error::new(Kind::Command, command, "no such command").hint(hint)
}
