//! What the shells are told: the scripts that are installed, and the answers to Tab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::{COMMIT, Env, program_path};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The name of a program's script, as the shell looks for it.
fn script_name(shell: &str, program: &str) -> String {
    match shell {
        "zsh" => format!("_{program}"),
        shell => format!("{program}.{shell}"),
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of all programs: the files in `bins`. The folders there are modules of them.
pub fn programs() -> Vec<String> {
    let sources = fs::read_dir(repository().join("bins")).unwrap();
    let sources = sources.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut programs: Vec<_> = sources.map(stem).collect();
    programs.sort();
    programs
}

/// With `UPDATE=1` in the environment the scripts are written anew.
#[test]
fn the_scripts_are_those_that_the_programs_write() {
    let env = Env::new();
    let update = std::env::var_os("UPDATE").is_some();
    for program in programs() {
        for shell in SHELLS {
            let script = env.run(&program).env("COMPLETE", shell).ok();
            let path = repository().join("completions").join(script_name(shell, &program));
            if update {
                fs::write(&path, script).unwrap();
            } else {
                let kept = fs::read_to_string(&path).unwrap_or_default();
                assert_eq!(kept, script, "{} is out of date: UPDATE=1 cargo test", path.display());
            }
        }
    }
}

/// The other names of `mlxk` have scripts of their own, since shells look for them by the name.
#[test]
fn the_names_of_mlx_knife_have_scripts_and_complete() {
    let env = Env::with_three();
    let update = std::env::var_os("UPDATE").is_some();
    let called = |name: &str, shell: &str, words: &[&str]| {
        let path = env.home().join(name);
        let _ = std::os::unix::fs::symlink(program_path("mlxk"), &path);
        let mut command = env.at_home(Command::new(&path));
        let index = words.len().to_string();
        command.env("COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        if !words.is_empty() {
            command.args(["--", name]).args(words);
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    for name in ["mlxk2", "mlxk-json", "mlx-run"] {
        for shell in SHELLS {
            let script = called(name, shell, &[]);
            let path = repository().join("completions").join(script_name(shell, name));
            if update {
                fs::write(&path, script).unwrap();
            } else {
                let kept = fs::read_to_string(&path).unwrap_or_default();
                assert_eq!(kept, script, "{} is out of date: UPDATE=1 cargo test", path.display());
            }
        }
    }
    assert_eq!(called("mlxk2", "bash", &["li"]), "list");
    assert_eq!(called("mlxk-json", "bash", &["show", "org/B"]), "org/Broken");
    assert_eq!(called("mlx-run", "bash", &["org/B"]), "org/Broken");
}

/// What `program` offers a shell for the last of `words`.
fn offers(env: &Env, program: &str, words: &[&str]) -> Vec<String> {
    let answer = env
        .run(program)
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .args(["--", program])
        .args(words)
        .ok();
    answer.lines().map(str::to_owned).collect()
}

#[test]
fn flags_and_models_are_offered() {
    let env = Env::with_three();
    assert_eq!(offers(&env, "mlxk-ls", &["--hea"]), ["--health"]);
    assert_eq!(offers(&env, "mlxk-show", &["org/"]), ["org/Broken", "org/Strange"]);
    assert_eq!(offers(&env, "mlxk-rm", &["good"]), ["mlx-community/Good-4bit"]);
    env.model("mine").write_workspace();
    assert_eq!(offers(&env, "mlxk-run", &["mi"]), ["mine"]);
    assert_eq!(offers(&env, "mlxk-health", &["./w"]), ["./ws/"]);
    assert_eq!(offers(&env, "mlxk-run", &["mine", "--typ"]), ["--typical-p"]);
    assert_eq!(offers(&env, "mlxk-serve", &["--top-n"]), ["--top-n-sigma"]);
    assert_eq!(offers(&env, "mlxk-ls", &["--sort", "na"]), ["name", "name:desc"]);
    let at = |revision: &str| format!("org/Broken@{revision}");
    assert_eq!(offers(&env, "mlxk-show", &["org/Broken@"]), [at("main"), at(COMMIT)]);
}

#[test]
fn commands_are_offered_and_answer_for_themselves() {
    let env = Env::with_three();
    assert_eq!(offers(&env, "mlxk", &["he"]), ["health", "help"]);
    assert_eq!(offers(&env, "mlxk", &["health", "org/B"]), ["org/Broken"]);
    assert_eq!(offers(&env, "mlxk", &["list", "--verb"]), ["--verbose"]);
    assert_eq!(offers(&env, "mlxk", &["serve"]), ["serve", "server"]);
    assert_eq!(offers(&env, "mlxk", &["help", "mo"]), ["model"]);
    let name = "models--org--\u{1b}[2J";
    fs::create_dir(env.hub().join(name)).unwrap();
    assert_eq!(offers(&env, "mlxk-show", &["org/"]), ["org/Broken", "org/Strange"]);
}

/// Zsh runs a file of `fpath` as the body of the function; already the first call must complete.
#[test]
fn zsh_completes_on_the_first_tab() {
    let env = Env::with_three();
    let script = "compdef() { : }; _describe() { print -l -- ${(P)3} }; \
                  fpath=($1 $fpath); autoload -Uz _mlxk-show; \
                  words=(mlxk-show org/); CURRENT=2; _mlxk-show";
    let completions = repository().join("completions");
    let bins = program_path("mlxk").parent().unwrap().to_owned();
    let zsh = Command::new("zsh")
        .args(["-fc", script, "zsh"])
        .arg(completions)
        .env("PATH", format!("{}:/usr/bin:/bin", bins.display()))
        .env("HF_HOME", env.home().join("hf"))
        .env_remove("MLXK_WORKSPACE_HOME")
        .output();
    match zsh {
        Ok(output) => {
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(
                text,
                "org/Broken\norg/Strange\n",
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => println!("zsh is not installed"),
        Err(e) => panic!("{e}"),
    }
}
