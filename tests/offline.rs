//! Programs without a network: all but those that move models work as ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::completions::programs;
use crate::convert::gguf;
use crate::env::{Env, program_path};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The programs that are for the network.
const ONLINE: [&str; 3] = ["mlxk-clone", "mlxk-pull", "mlxk-push"];

/// All others, with arguments that make them do their work, and a word of what they then print.
const OFFLINE: [(&str, &[&str], &str); 8] = [
    ("mlxk", &["list", "--all", "--json"], "org/m"),
    ("mlxk-ls", &["--all"], "org/m"),
    ("mlxk-show", &["org/m"], "org/m"),
    ("mlxk-health", &["org/m"], "healthy"),
    ("mlxk-convert", &["tiny.gguf", "./imported"], "healthy"),
    ("mlxk-run", &["tiny", "--temperature", "0", "--max-tokens", "4", "w1 w2"], " w"),
    ("mlxk-embed", &["bert", "texts"], "embedding"),
    ("mlxk-rm", &["--force", "org/m"], "deleted"),
];

/// The program that does not end by itself; its own tests run it so.
const SERVING: &str = "mlxk-serve";

#[test]
fn with_an_empty_network_namespace_programs_work() {
    if !can_unshare() {
        // Past the harness, which shows what a passing test prints to nobody.
        let said = b"offline: not tested, since no empty network namespace can be made here\n";
        std::io::Write::write_all(&mut std::io::stderr(), said).unwrap();
        return;
    }
    let env = home();
    for (program, args, word) in OFFLINE {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--"]).arg(program_path(program)).args(args);
        let output = env.at_home(command).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(word), "{program}: {output:?}");
    }
}

#[test]
fn no_program_is_left_out() {
    let tested = OFFLINE.iter().map(|(program, ..)| *program).chain(ONLINE).chain([SERVING]);
    let tested: BTreeSet<String> = tested.map(str::to_owned).collect();
    let left_out: Vec<_> = programs().into_iter().filter(|name| !tested.contains(name)).collect();
    assert_eq!(left_out, [""; 0]);
}

pub fn can_unshare() -> bool {
    let probe = Command::new("unshare").args(["--map-root-user", "--net", "true"]).output();
    probe.is_ok_and(|output| output.status.success())
}

/// A home with a model in the cache, one to run, and one to import.
fn home() -> Env {
    let env = Env::new();
    env.model("org/m").write();
    fs::write(env.home().join("tiny.gguf"), gguf::Builder::llama().bytes()).unwrap();
    fs::write(env.home().join("texts"), "Good morning.\n").unwrap();
    for (name, case) in [("tiny", "parity/llama"), ("bert", "embed/bert-cls")] {
        let model = env.workspaces().join(name);
        fs::create_dir_all(&model).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let from: PathBuf = [ROOT, "tests/data", case, file].iter().collect();
            fs::copy(from, model.join(file)).unwrap();
        }
    }
    env
}
