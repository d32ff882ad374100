//! Shell completion: flags, commands, and the names of models on disk.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter,
    SubcommandCandidates, ValueCompleter,
};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};
use mlxk_core::Origin;
use mlxk_core::list::{Listed, matching};
use mlxk_core::printable::is_printable;
use mlxk_core::store::Revisions;
use mlxk_core::store::cache::Repo;

use crate::{compatibility, dispatch};

/// The program that finds the others.
const MAIN: &str = "mlxk";

/// The shells whose questions are answered.
pub const SHELLS: Shells<'static> = Shells(&[&Bash, &AutoloadedZsh, &Fish]);

/// If the environment holds `COMPLETE=SHELL`, answers the shell and exits; else returns at once.
///
/// With no words to complete the answer is the script that registers the completion. Under its other
/// names `mlxk` registers these.
pub fn answer(command: fn() -> Command) {
    let called = compatibility::called_as();
    let other = compatibility::NAMES.into_iter().find(|name| *name == called);
    let named = || match (command(), other) {
        (command, Some(other)) if command.get_name() == MAIN => command.name(other),
        (command, _) => command,
    };
    let program = named().get_name().to_owned();
    CompleteEnv::with_factory(named).completer(program).shells(SHELLS).complete();
}

/// Completes the name of a model, or the path of a workspace.
pub fn models() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let text = current.to_string_lossy();
        if text.starts_with(['.', '/', '~']) {
            return PathCompleter::dir().complete(current);
        }
        let names = match text.rsplit_once('@') {
            Some((name, _)) => revisions(name),
            None => names(),
        };
        candidates(names, &text).into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Completes one of `words`.
pub fn words(words: &'static [&'static str]) -> ArgValueCandidates {
    ArgValueCandidates::new(|| words.iter().map(CompletionCandidate::new).collect())
}

/// Completes a command of `mlxk` or a topic that has a manual page.
pub fn topics() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let commands = dispatch::COMMANDS.iter().map(|(name, _)| *name);
        commands.chain(dispatch::TOPICS).map(CompletionCandidate::new).collect()
    })
}

/// Completes the name of a command of `mlxk`.
pub fn commands() -> SubcommandCandidates {
    SubcommandCandidates::new(|| {
        let candidate = |(name, about): &(&'static str, &'static str)| {
            CompletionCandidate::new(*name).help(Some((*about).into()))
        };
        let former = |(name, current): &(&'static str, &'static str)| {
            CompletionCandidate::new(*name).help(Some(format!("The same as {current}").into()))
        };
        let current = dispatch::COMMANDS.iter().map(candidate);
        current.chain(dispatch::FORMER.iter().map(former)).collect()
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

/// The names of the models on disk.
fn names() -> Vec<String> {
    let name = |listed: Listed| Some(listed.display_name.unwrap_or(listed.found.name));
    listed("", Revisions::Current, name)
}

/// The revisions of the cached model `name`, by their refs and commits, each as `name@revision`.
fn revisions(name: &str) -> Vec<String> {
    let of = |listed: Listed| match listed.found.origin {
        Origin::Cache { repo } if listed.found.name == name => {
            Some(Repo { name: listed.found.name, path: repo })
        }
        _ => None,
    };
    let repos: Vec<Repo> = listed(name, Revisions::Current, of);
    let refs = repos.iter().flat_map(|repo| repo.refs().unwrap_or_default()).map(|r| r.name);
    let snapshots = repos.iter().flat_map(|repo| repo.snapshots().unwrap_or_default());
    let revisions = refs.chain(snapshots.map(|snapshot| snapshot.revision));
    let named = revisions.map(|revision| format!("{name}@{revision}"));
    named.filter(|name| name.chars().all(is_printable)).collect()
}

/// What `of` makes of the models on disk that match; empty on an error, which a shell could not use. A
/// name that a terminal would obey is not offered.
fn listed<T>(pattern: &str, revisions: Revisions, of: impl Fn(Listed) -> Option<T>) -> Vec<T> {
    let listed = crate::places().and_then(|places| matching(&places, pattern, revisions));
    let plain = |listed: &Listed| listed.found.name.chars().all(is_printable);
    let models = listed.map(|listing| listing.models).unwrap_or_default();
    models.into_iter().filter(plain).filter_map(of).collect()
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
        let mut script = Vec::new();
        Zsh.write_registration(var, name, bin, completer, &mut script)?;
        // A name is also found by its middle, which zsh would drop: -U takes what is offered.
        let script = String::from_utf8_lossy(&script).replace(" other\n", " other -U\n");
        out.write_all(script.as_bytes())?;
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
