//! Serves the models `claude` and `codex` for tests/coding-agents until standard input ends, and
//! prints the server's address. Each calls the tools of its agent to read and edit the file that is
//! the argument.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{self, Read};
use std::time::Duration;

use mlxk_processor::Event;
use mlxk_serve::{Log, Settings};
use mlxk_testengine::{Script, Served, settings, text, tool_call};
use serde_json::{Value, json};

fn main() {
    let file = std::env::args().nth(1).unwrap();
    let call =
        |id: &str, name: &str, arguments: Value| vec![tool_call(id, name, &arguments.to_string())];
    let last = vec![Event::Reasoning("Done, then.".into()), text("The typo"), text(" is fixed.")];
    let edit = json!({"file_path": file, "old_string": "wrld", "new_string": "world"});
    let claude = vec![
        call("call_1", "Read", json!({"file_path": file})),
        call("call_2", "Edit", edit),
        last.clone(),
    ];
    let patch = format!(
        "*** Begin Patch\n*** Update File: {file}\n@@\n-hello wrld\n+hello world\n*** End Patch"
    );
    let codex = vec![
        call("call_1", "exec_command", json!({"cmd": format!("cat {file}")})),
        call(
            "call_2",
            "exec_command",
            json!({"cmd": format!("apply_patch <<'EOF'\n{patch}\nEOF")}),
        ),
        last,
    ];
    let script = Script::new().with_turns("claude", claude).with_turns("codex", codex);
    let log = Log::new(|entry| eprintln!("{} {}", entry.level.name(), entry.message));
    let settings = Settings { max_body: 16 << 20, log, ..settings() };
    let server = Served::start(&script, settings, Duration::ZERO);
    println!("http://{}", server.address);
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    server.stop();
}
