//! How fast models move and are verified, beside curl, sha256sum and the Hub's own client.
//!
//! The Hub is one on this machine. TMPDIR names the disk.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mlxk_testhub::Hub;
use tempfile::TempDir;

use crate::env::Env;
use crate::{Run, median, peers, record};

const REPO: &str = "org/Model";
/// Bytes of each of the two files.
const SIZE: usize = 512 << 20;
const RUNS: usize = 3;

/// The argument that makes this program the Hub for its measurements. That is another process,
/// since a child counts the memory of its parent as its own.
const SERVE: &str = "be-the-hub";

/// Measures a transfer and a verification.
pub fn run(_: &Env) {
    let folder = tempfile::tempdir().unwrap();
    for nth in 0..2 {
        weights(&folder.path().join(format!("model-{nth}.safetensors")), nth);
    }
    let mut hub = Command::new(std::env::current_exe().unwrap());
    hub.arg(SERVE).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hub = hub.spawn().unwrap();
    let mut endpoint = String::new();
    BufReader::new(hub.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    pull(folder.path(), endpoint.trim());
    verify(folder.path(), endpoint.trim());
    drop(hub.stdin.take());
    hub.wait().unwrap();
}

/// Is the Hub, if that is what the arguments say, until standard input ends.
pub fn serve() -> bool {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next().filter(|arg| arg == SERVE).and_then(|_| args.next()) else {
        return false;
    };
    let hub = Hub::start();
    for name in ["model-0.safetensors", "model-1.safetensors"] {
        hub.repo(REPO).file_on_disk(name, &Path::new(&folder).join(name));
    }
    hub.repo(REPO).file("config.json", "{}");
    println!("{}", hub.endpoint());
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    true
}

fn pull(folder: &Path, hub: &str) {
    let curl = r#"curl -sSfL -o a "$0"/model-0.safetensors -o b "$0"/model-1.safetensors"#;
    let check = "sync -d a b && sha256sum a b";
    let url = format!("{hub}/{REPO}/resolve/main");
    let mut rows = vec![
        row("mlxk-pull", env!("CARGO_BIN_EXE_mlxk-pull"), &[REPO]),
        row("curl -o", "sh", &["-c", curl, &url]),
        row("curl -o, and sync", "sh", &["-c", &format!("{curl} && sync -d a b"), &url]),
        row("curl -o, sync and sha256sum", "sh", &["-c", &format!("{curl} && {check}"), &url]),
    ];
    rows.extend(peers("hf").iter().map(|hf| row(&version(hf), hf, &["download", REPO])));
    compare(
        "1 GiB in two files from a Hub on this machine",
        &rows,
        || {
            let home = TempDir::new_in(folder).unwrap();
            (home.path().to_owned(), Some(home))
        },
        hub,
    );
}

fn verify(folder: &Path, hub: &str) {
    let home = folder.join("home");
    fs::create_dir(&home).unwrap();
    let pull = env!("CARGO_BIN_EXE_mlxk-pull");
    crate::measure(at(&home, hub, Command::new(pull).arg(REPO)));
    // The model is none that could run, but none of its files is bad.
    let ours = concat!(
        env!("CARGO_BIN_EXE_mlxk-health"),
        " --verify org/Model | grep -qF '\"bad_files\":[]'"
    );
    let each = "for file in hf/hub/models--*/snapshots/*/*; do sha256sum $file; done";
    let all =
        "printf '%s\\n' hf/hub/models--*/snapshots/*/* | xargs -P \"$(nproc)\" -n 1 sha256sum";
    let mut rows = vec![
        row("mlxk-health --verify", "sh", &["-c", ours]),
        row("sha256sum, a file at a time", "sh", &["-c", each]),
        row("sha256sum, a process for each core", "sh", &["-c", all]),
    ];
    rows.extend(peers("hf").iter().map(|hf| row(&version(hf), hf, &["cache", "verify", REPO])));
    compare("1 GiB in two files verified", &rows, || (home.clone(), None), hub);
}

/// A program with what it is called here.
struct Row(String, PathBuf, Vec<String>);

fn row(name: &str, program: impl AsRef<Path>, args: &[&str]) -> Row {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Row(name.to_owned(), program.as_ref().to_owned(), args)
}

/// `hf` with its version.
fn version(hf: &Path) -> String {
    let output = Command::new(hf).arg("version").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("hf {}", said.split_whitespace().last().unwrap_or_default())
}

/// Runs the programs in turn, each in a home that `home` gives it.
fn compare(title: &str, rows: &[Row], home: impl Fn() -> (PathBuf, Option<TempDir>), hub: &str) {
    println!("{title:<44} {:>10} {:>9}", "MB/s", "peak MB");
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); rows.len()];
    // The first round warms up and does not count.
    for round in 0..=RUNS {
        for (Row(_, program, args), runs) in rows.iter().zip(&mut runs) {
            let (path, _kept) = home();
            let run = crate::measure(at(&path, hub, Command::new(program).args(args)));
            if round > 0 {
                runs.push(run);
            }
        }
    }
    for (Row(name, ..), runs) in rows.iter().zip(runs) {
        let rate = median(runs.iter().map(|run| 2e-6 * SIZE as f64 / run.wall.as_secs_f64()));
        let peak = median(runs.iter().map(|run| run.peak_bytes as f64 / 1e6));
        println!("{name:<44} {rate:>10.0} {peak:>9.1}");
        record(title, name, rate, "MB/s");
        record("peak memory", name, peak, "MB");
    }
}

fn at<'a>(home: &Path, hub: &str, command: &'a mut Command) -> &'a mut Command {
    command
        .env("HF_HOME", home.join("hf"))
        .env("HF_ENDPOINT", hub)
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env_remove("HF_HUB_CACHE")
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// A file of bytes that no file system can make smaller.
fn weights(path: &Path, seed: u64) {
    let mut file = fs::File::create(path).unwrap();
    let mut state = seed;
    let mut block = vec![0; 1 << 20];
    for _ in 0..SIZE / block.len() {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}
