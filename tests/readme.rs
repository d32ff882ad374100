//! What the README shows works as it stands there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::embed::copy;
use crate::env::{Env, program_path};

/// The block of every ```` ```sh ```` fence.
fn scripts(readme: &str) -> Vec<String> {
    let fences = readme.split("\n```sh\n").skip(1);
    fences
        .filter_map(|rest| rest.split_once("\n```"))
        .map(|(script, _)| script.to_owned())
        .collect()
}

#[test]
fn every_pipeline_of_the_readme_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let scripts = scripts(&readme);
    assert!(scripts.len() >= 8, "only {} scripts found", scripts.len());
    let env = Env::with_three();
    let mut model = env.model("mlx-community/Qwen3-0.6B-4bit");
    for entry in fs::read_dir(root.join("tests/data/parity/qwen3-q4")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        model = model.file(&name, fs::read(entry.path()).unwrap());
    }
    model.write();
    for (name, case) in [("bge-small", "bert-mean"), ("bge-reranker", "bert-rerank")] {
        copy(&root.join("tests/data/embed").join(case), &env.workspaces().join(name));
    }
    copy(&root.join("tests/data/speech/whisper-hf"), &env.workspaces().join("whisper"));
    fs::copy(root.join("tests/data/audio/tones-44k1.m4a"), env.home().join("talk.m4a")).unwrap();
    let programs = program_path("mlxk");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", programs.parent().unwrap().display());
    for script in scripts {
        let mut bash = env.at_home(Command::new("bash"));
        let run = bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", &path).output();
        let run = run.unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{script}\n{stderr}");
        assert!(!run.stdout.is_empty() || script.contains("> answer"), "{script} says nothing");
    }
}
