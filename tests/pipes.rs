//! Programs in pipes: closed early, fed while they run, and free of what they do not need.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::env::{Env, program_path};

/// The programs that manage models, with arguments that make them print.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("mlxk-ls", &["--all"]),
    ("mlxk-show", &["m"]),
    ("mlxk-health", &[]),
    ("mlxk-rm", &["--dry-run", "m"]),
    ("mlxk", &["list", "--all"]),
];

const SIGPIPE: i32 = 13;

#[test]
fn a_reader_that_goes_away_ends_a_program_silently() {
    let env = Env::new();
    env.model("org/m").write();
    for (program, args) in PROGRAMS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = env
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(SIGPIPE), "{program}: {:?}", output.status);
        assert_eq!(output.stderr, b"", "{program}");
    }
}

#[test]
fn a_record_is_answered_before_the_next_one_comes() {
    let env = Env::new();
    env.model("org/m").write();
    let mut child =
        env.command("mlxk-health").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        stdin.write_all(b"org/m\n").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("\"health\":\"healthy\""), "{answer}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told() {
    let env = Env::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut child = env
        .command("mlxk-ls")
        .args(["--human"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let last = stderr.lines().last();
    assert_eq!(last, Some("mlxk-ls: standard output: No space left on device (os error 28)"));
}

/// Whoever lists models should not wait for a library that runs them to load.
#[test]
fn programs_that_manage_link_nothing_that_runs() {
    for (program, _) in PROGRAMS {
        let bytes = std::fs::read(program_path(program)).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds("libmlx.") && !holds("mlx_array_new"), "{program} links MLX");
    }
}

/// Who cannot ask for the address of a host reaches none. (Where MLX is part of the program it
/// brings that along for machines that work together, and mlxk-serve has it for --embed-backend.)
#[test]
fn programs_that_work_offline_cannot_look_up_a_host() {
    let runs: &[&str] = match cfg!(target_os = "linux") {
        true => &["mlxk-convert", "mlxk-embed", "mlxk-run"],
        false => &[],
    };
    let manage = PROGRAMS.map(|(program, _)| program);
    for program in manage.iter().chain(runs) {
        let bytes = std::fs::read(program_path(program)).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("sigaction") && !holds("getaddrinfo"), "{program}");
    }
}
