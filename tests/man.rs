//! The manual pages and the programs agree on every flag.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlxk_core::Architecture;
use mlxk_processor::sampling::{FIELDS, Field, Options};
use serde_json::Value;

use crate::env::program_path;

const TOOLS: [&str; 11] = [
    "mlxk-clone",
    "mlxk-convert",
    "mlxk-embed",
    "mlxk-health",
    "mlxk-ls",
    "mlxk-pull",
    "mlxk-push",
    "mlxk-rm",
    "mlxk-run",
    "mlxk-serve",
    "mlxk-show",
];

#[test]
fn a_page_tells_of_every_flag_and_of_no_other() {
    for tool in TOOLS {
        let help = Command::new(program_path(tool)).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert_eq!(flags_of_page(&page(tool, 1)), flags_of_help(&help), "{tool}");
    }
}

#[test]
fn a_page_has_the_sections_that_people_look_for() {
    let everywhere = ["NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"];
    let tools = TOOLS.map(|tool| (tool, 1)).into_iter();
    for (name, section) in tools.chain([("mlxk", 1), ("mlxk-model", 7), ("mlxk-record", 7)]) {
        let page = page(name, section);
        let of_programs: &[&str] =
            if section == 1 { &["SYNOPSIS", "ENVIRONMENT", "FILES", "EXIT STATUS"] } else { &[] };
        for title in everywhere.iter().chain(of_programs) {
            assert!(page.contains(&format!(".Sh {title}\n")), "{name}: {title}");
        }
        assert!(page.contains(&format!(".Nm {name}\n")), "{name}");
    }
}

/// With `UPDATE=1` in the environment the list is written anew.
#[test]
fn the_page_about_models_lists_the_architectures_that_can_run() {
    let all = Architecture::ALL.iter().flat_map(|architecture| architecture.names());
    let names: BTreeSet<&str> = all.copied().collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let mut lines = vec![String::new()];
    for name in names.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(name),
            Some(line) if line.len() + name.len() < 78 => *line = format!("{line} {name}"),
            _ => lines.push(name.to_owned()),
        }
    }
    let page = page("mlxk-model", 7);
    let (before, rest) = page.split_once(".Bd -filled -offset indent\n").unwrap();
    let (_, after) = rest.split_once(".Ed\n").unwrap();
    let expected =
        format!("{before}.Bd -filled -offset indent\n{}\n.Ed\n{after}", lines.join("\n"));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path("mlxk-model", 7), expected).unwrap();
    } else {
        assert!(page == expected, "mlxk-model.7 is out of date: UPDATE=1 cargo test");
    }
}

/// A field of options is a flag of mlxk-run and, if all APIs have it, of mlxk-serve; that pages have
/// these flags is told above.
#[test]
fn every_option_of_sampling_is_documented() {
    let help = |tool: &str| {
        let help = Command::new(program_path(tool)).arg("--help").output().unwrap();
        flags_of_help(&String::from_utf8(help.stdout).unwrap())
    };
    let (run, serve) = (help("mlxk-run"), help("mlxk-serve"));
    let record = page("mlxk-record", 7);
    let has_row = |name: &str| {
        let rows = record.lines().filter_map(|line| line.strip_prefix(".It Li "));
        rows.flat_map(|row| row.split(" , ")).any(|other| other == name)
    };
    for field in Options::fields() {
        assert!(run.contains(&flag(field)), "mlxk-run: {}", field.name);
        assert!(has_row(field.name), "mlxk-record.7: {}", field.name);
    }
    let openapi = include_str!("../lib/serve/src/openapi.json");
    let openapi: Value = serde_json::from_str(openapi).unwrap();
    for field in FIELDS {
        assert!(serve.contains(&flag(field)), "mlxk-serve: {}", field.name);
        for schema in ["Chat", "Completion", "Response", "Messages"] {
            let properties = &openapi["components"]["schemas"][schema]["properties"];
            assert!(properties[field.name].is_object(), "openapi.json, {schema}: {}", field.name);
        }
    }
}

/// The flag of a field; that of a list states one item.
fn flag(field: &Field) -> String {
    let name = if field.form.is_list() { field.name.trim_end_matches('s') } else { field.name };
    format!("--{}", name.replace('_', "-"))
}

fn page(name: &str, section: u8) -> String {
    fs::read_to_string(path(name, section)).unwrap()
}

fn path(name: &str, section: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("man/{name}.{section}"))
}

/// `.It Fl f , Fl -filter Ar condition`: the words behind each `Fl`.
fn flags_of_page(page: &str) -> BTreeSet<String> {
    let items = page.lines().filter(|line| line.starts_with(".It Fl "));
    let words = items.flat_map(|line| line.split("Fl ").skip(1));
    words.filter_map(|rest| rest.split_whitespace().next()).map(|flag| format!("-{flag}")).collect()
}

/// `  -f, --filter <CONDITION>`: what begins a line with a dash.
fn flags_of_help(help: &str) -> BTreeSet<String> {
    let flag = |line: &&str| line.starts_with('-') && !line.starts_with("- "); // a value's meaning
    let lines = help.lines().map(str::trim).filter(flag);
    let words = lines.flat_map(|line| line.split_whitespace().take_while(|w| w.starts_with('-')));
    words.map(|word| word.split(['=', '[', ',']).next().unwrap_or(word).to_owned()).collect()
}
