//! Shell completion: flags, commands, and the names of models on disk.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, SubcommandCandidates, ValueCompleter,
};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};
use mlxk_core::list::{Listed, matching};
use mlxk_core::store::Revisions;

use crate::dispatch;

/// The shells whose questions are answered.
pub const SHELLS: Shells<'static> = Shells(&[&Bash, &AutoloadedZsh, &Fish]);

/// If the environment holds `COMPLETE=SHELL`, answers the shell and exits; else returns at once.
///
/// With no words to complete the answer is the script that registers the completion.
pub fn answer(command: fn() -> Command) {
    let program = command().get_name().to_owned();
    CompleteEnv::with_factory(command).completer(program).shells(SHELLS).complete();
}

/// Completes the name of a model, or the path of a workspace.
pub fn models() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let text = current.to_string_lossy();
        if text.starts_with(['.', '/', '~']) {
            return PathCompleter::dir().complete(current);
        }
        candidates(names(), &text).into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Completes the name of a command of `mlxk`.
pub fn commands() -> SubcommandCandidates {
    SubcommandCandidates::new(|| {
        let candidate = |(name, about): &(&'static str, &'static str)| {
            CompletionCandidate::new(*name).help(Some((*about).into()))
        };
        dispatch::COMMANDS.iter().map(candidate).collect()
    })
}

/// The names that begin with `typed`, or else those that contain it, ignoring case.
fn candidates(names: Vec<String>, typed: &str) -> Vec<String> {
    let (going_on, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.starts_with(typed));
    if !going_on.is_empty() {
        return going_on;
    }
    let typed = typed.to_lowercase();
    others.into_iter().filter(|name| name.to_lowercase().contains(&typed)).collect()
}

/// The names of the models on disk; empty on an error, which a shell could not use.
fn names() -> Vec<String> {
    let listed = crate::places().and_then(|places| matching(&places, "", Revisions::Current));
    let name = |listed: Listed| listed.display_name.unwrap_or(listed.found.name);
    listed.map_or_else(|_| Vec::new(), |listed| listed.into_iter().map(name).collect())
}

/// Zsh, with a script that also works when zsh loads it from `fpath` on the first Tab: then the
/// whole file is the body of the function that must complete.
struct AutoloadedZsh;

impl EnvCompleter for AutoloadedZsh {
    fn name(&self) -> &'static str {
        Zsh.name()
    }

    fn is(&self, name: &str) -> bool {
        Zsh.is(name)
    }

    fn write_registration(
        &self,
        var: &str,
        name: &str,
        bin: &str,
        completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        Zsh.write_registration(var, name, bin, completer, out)?;
        let function = name.replace('-', "_");
        writeln!(
            out,
            "\nif [[ \"${{funcstack[1]}}\" == _{name} ]]; then\n    \
             _clap_dynamic_completer_{function} \"$@\"\nfi"
        )
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        Zsh.write_complete(command, words, directory, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_from_its_start_and_else_from_its_middle() {
        let names = || vec!["mlx-community/SmolLM2".into(), "org/smol".into()];
        assert_eq!(candidates(names(), "org"), ["org/smol"]);
        assert_eq!(candidates(names(), "Smol"), ["mlx-community/SmolLM2", "org/smol"]);
        assert_eq!(candidates(names(), "lm2"), ["mlx-community/SmolLM2"]);
    }
}
