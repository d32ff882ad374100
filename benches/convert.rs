//! Packing a model of 32-bit floats into 4 bits, beside mlx-lm's `convert`, and importing a GGUF file.
//!
//! Peak memory is what the system counts as resident, with the pages of mapped files among it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::Env;
use crate::{Run, command, import, measure, median, mlx_lm, record, widen};

const RUNS: usize = 5;

/// Measures the model that `MLXK_TEST_MODEL` names, and prints a line for each program.
pub fn run(env: &Env) {
    let folder = tempfile::tempdir().unwrap();
    let [first, wide, target] = ["packed", "wide", "target"].map(|name| folder.path().join(name));
    let ours = Path::new(env!("CARGO_BIN_EXE_mlxk-convert"));
    let gguf = import(env, &first);
    widen(env, &first, &wide, &["--dequantize"]);
    let mut programs = vec![("mlxk-convert", own(env, ours, [&wide, &target]))];
    programs.extend(mlx_lm().map(|python| {
        let theirs = peers(env, &python, [&wide, &target]);
        ("mlx_lm convert", theirs)
    }));
    compare("SmolLM2-135M, f32 to 4 bits", "convert", programs, &target);
    println!();
    let mut program = command(env, ours);
    program.args([&gguf, &target]);
    compare("SmolLM2-135M, GGUF", "import", vec![("mlxk-convert FILE.gguf", program)], &target);
}

/// Runs the programs in turn, which write `target`, and prints a line for each.
fn compare(title: &str, what: &str, mut programs: Vec<(&str, Command)>, target: &Path) {
    println!("{title:<44} {:>10} {:>9}", "wall ms", "peak MB");
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); programs.len()];
    for _ in 0..RUNS {
        for ((_, program), runs) in programs.iter_mut().zip(&mut runs) {
            runs.push(measure(program));
            fs::remove_dir_all(target).unwrap();
        }
    }
    for ((name, _), runs) in programs.iter().zip(&runs) {
        let wall = median(runs.iter().map(|run| run.wall.as_secs_f64() * 1e3));
        let peak = median(runs.iter().map(|run| run.peak_bytes as f64 / 1e6));
        println!("{name:<44} {wall:>10.1} {peak:>9.1}");
        record(&format!("{what}, wall"), name, wall, "ms");
        record(&format!("{what}, peak memory"), name, peak, "MB");
    }
}

fn own(env: &Env, program: &Path, paths: [&PathBuf; 2]) -> Command {
    let mut command = command(env, program);
    command.args(paths).args(["--quantize", "4"]);
    command
}

fn peers(env: &Env, python: &Path, [source, target]: [&PathBuf; 2]) -> Command {
    let mut command = command(env, python);
    command.args(["-m", "mlx_lm", "convert", "--hf-path"]).arg(source);
    command.arg("--mlx-path").arg(target);
    command.args(["-q", "--q-bits", "4", "--q-group-size", "64"]);
    command
}
