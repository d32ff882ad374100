//! Conversations on a terminal: a real one, as a person has it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};

use crate::run::tiny::Tiny;

/// What a terminal may take, in milliseconds.
const PATIENCE: u64 = 30_000;

/// A conversation with a tiny model that says `Good day.` to all of it.
struct Chat {
    tiny: Tiny,
}

impl Chat {
    fn new() -> Chat {
        let tiny = Tiny::new();
        tiny.template(&format!("{}{{# {{{{ messages }}}} <think> #}}", tiny.prompt));
        tiny.says(&["Good", " ", "day", "."]);
        Chat { tiny }
    }

    /// A model that says no end of words.
    fn endless() -> Chat {
        let tiny = Tiny::new();
        tiny.template(&tiny.prompt);
        tiny.config("max_position_embeddings", json!(1_000_000));
        Chat { tiny }
    }

    /// Runs the program on a terminal, after `setting` in a shell.
    fn start_with(&self, setting: &str, args: &[&str]) -> PtySession {
        let program = crate::env::program_path("mlxk-run");
        let mut command = self.tiny.env.at_home(Command::new("sh"));
        command.env("TERM", "xterm");
        command.arg("-c").arg(format!("{setting}; exec \"$0\" \"$@\"")).arg(program);
        command.args(["tiny", "--temperature", "0"]).args(args);
        let mut chat = spawn_command(command, Some(PATIENCE)).unwrap();
        chat.exp_string("Ctrl-D quits").unwrap();
        chat.exp_string("> ").unwrap();
        chat
    }

    fn start(&self) -> PtySession {
        self.start_with(":", &[])
    }

    fn history(&self) -> PathBuf {
        self.tiny.env.home().join(".local/state/mlxk/history")
    }

    /// The messages that are stored by `/save`.
    fn saved(&self, chat: &mut PtySession) -> Value {
        let file = self.tiny.env.home().join("saved");
        chat.send_line(&format!("/save {}", file.display())).unwrap();
        chat.exp_string("messages in").unwrap();
        let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        record["messages"].clone()
    }
}

/// Says something, and waits for the line below the answer.
fn say(chat: &mut PtySession, text: &str) -> String {
    chat.send_line(text).unwrap();
    chat.exp_string("Good day.\r\n").unwrap();
    let status = chat.exp_string("in the context]").unwrap();
    chat.exp_string("> ").unwrap();
    status
}

fn leave(mut chat: PtySession) {
    chat.send_control('d').unwrap();
    chat.exp_eof().unwrap();
    let end = format!("{:?}", chat.process().wait().unwrap());
    assert!(end.starts_with("Exited(") && end.ends_with(", 0)"), "{end}");
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn answer() -> Value {
    json!({"role": "assistant", "content": "Good day."})
}

#[test]
fn a_line_is_answered_and_the_status_told() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    let status = say(&mut terminal, "Hi");
    assert!(
        status.contains("5 tokens, ") && status.contains(" tok/s; 26 of 2048 tokens"),
        "{status}"
    );
    say(&mut terminal, "Ho");
    assert_eq!(chat.saved(&mut terminal), json!([user("Hi"), answer(), user("Ho"), answer()]));
    leave(terminal);
}

#[test]
fn lines_are_edited_remembered_and_kept_for_this_user_alone() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    // Ctrl-A goes to the beginning, Ctrl-F on by one, Ctrl-K takes the rest of a line.
    terminal.send("ello? and so on").unwrap();
    terminal.send_control('a').unwrap();
    say(&mut terminal, "H");
    terminal.send("\x1b[A").unwrap(); // up
    terminal.send("\x7f\x7f").unwrap(); // backspace
    say(&mut terminal, "!");
    say(&mut terminal, " a secret");
    let said = chat.saved(&mut terminal);
    assert_eq!(said[0], user("Hello? and so on"));
    assert_eq!(said[2], user("Hello? and so !"));
    leave(terminal);
    let history = fs::read_to_string(chat.history()).unwrap();
    assert!(history.contains("Hello? and so !\n") && !history.contains("secret"), "{history}");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(chat.history()), 0o600);
    assert_eq!(mode(chat.history().parent().unwrap().to_owned()), 0o700);
    let mut terminal = chat.start();
    terminal.send("\x1b[A\x1b[A").unwrap(); // the line before /save
    say(&mut terminal, "");
    assert_eq!(chat.saved(&mut terminal)[0], user("Hello? and so !"));
    leave(terminal);
}

#[test]
fn a_text_may_have_several_lines() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    terminal.send_line("\"\"\"one").unwrap();
    terminal.send_line("").unwrap();
    say(&mut terminal, "two\"\"\"");
    terminal.send_line("three\\").unwrap();
    say(&mut terminal, "four");
    let said = chat.saved(&mut terminal);
    assert_eq!((&said[0], &said[2]), (&user("one\n\ntwo"), &user("three\nfour")));
    leave(terminal);
}

#[test]
fn commands_change_the_conversation() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    let mut obeyed = |command: &str, told: &str| {
        terminal.send_line(command).unwrap();
        terminal.exp_string(told).unwrap();
        terminal.exp_string("> ").unwrap();
    };
    obeyed("/help", "set the system prompt");
    obeyed("/system Be brief.", "[system prompt set]");
    obeyed("/system", "Be brief.\r\n");
    obeyed("/set temperature 0.5", "[temperature is 0.5]");
    obeyed("/set temperature 0", "[temperature is 0]");
    obeyed("/set", "temperature           0\r\n");
    obeyed("/set heat 1", "heat is not an option");
    obeyed("/set top_p 7", "`top_p` is not a number from 0 to 1");
    obeyed("/nothing", "/nothing is not a command");
    obeyed("/undo", "there are no messages");
    obeyed("/load nowhere", "nowhere: ");
    say(&mut terminal, "One");
    say(&mut terminal, "Two");
    let system = json!({"role": "system", "content": "Be brief."});
    let all = json!([system, user("One"), answer(), user("Two"), answer()]);
    assert_eq!(chat.saved(&mut terminal), all);
    say(&mut terminal, "/retry");
    assert_eq!(chat.saved(&mut terminal), all);
    terminal.send_line("/undo").unwrap();
    terminal.exp_string("[the last message was deleted]").unwrap();
    assert_eq!(chat.saved(&mut terminal), json!([system, user("One"), answer()]));
    let file = chat.tiny.env.home().join("talk");
    fs::write(&file, json!({"messages": all}).to_string()).unwrap();
    terminal.send_line("/reset").unwrap();
    terminal.exp_string("[all messages deleted]").unwrap();
    assert_eq!(chat.saved(&mut terminal), json!([system]));
    terminal.send_line(&format!("/load {}", file.display())).unwrap();
    terminal.exp_string("[4 messages from").unwrap();
    assert_eq!(chat.saved(&mut terminal), all);
    terminal.send_line("/quit").unwrap();
    terminal.exp_eof().unwrap();
}

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let chat = Chat::endless();
    let mut terminal = chat.start();
    for question in ["One", "Two"] {
        terminal.send_line(question).unwrap();
        terminal.exp_string("w317 w16 w239").unwrap();
        terminal.send_control('c').unwrap();
        terminal.exp_string("interrupted; ").unwrap();
        terminal.exp_string("> ").unwrap();
    }
    terminal.send("half a line").unwrap();
    terminal.send_control('c').unwrap();
    terminal.exp_string("[Ctrl-D quits]").unwrap();
    let history = fs::read_to_string(chat.history()).unwrap();
    assert!(history.contains("One\nTwo\n"), "what was typed is kept at once: {history}");
    assert_eq!(chat.saved(&mut terminal).as_array().unwrap().len(), 4);
    leave(terminal);
}

#[test]
fn ctrl_c_pressed_again_and_again_does_not_end_the_conversation() {
    let chat = Chat::endless();
    let mut terminal = chat.start();
    for question in ["One", "Two", "Three"] {
        terminal.send_line(question).unwrap();
        terminal.exp_string("w317 w16 w239").unwrap();
        terminal.send("\x03\x03\x03\x03").unwrap();
        terminal.flush().unwrap();
        terminal.exp_string("interrupted; ").unwrap();
        terminal.exp_string("> ").unwrap();
    }
    leave(terminal);
}

#[test]
fn an_option_is_set_and_taken_back() {
    let chat = Chat::new();
    let mut terminal = chat.start_with(":", &["--stop", "no such"]);
    terminal.send_line("/set stop day").unwrap();
    terminal.exp_string("[stop is day]").unwrap();
    terminal.send_line("/set seed 7").unwrap();
    terminal.exp_string("[seed is 7]").unwrap();
    terminal.send_line("Hi").unwrap();
    let shown = terminal.exp_string("in the context]").unwrap();
    assert!(shown.contains("Good") && !shown.contains("day."), "{shown}");
    terminal.send_line("/set stop").unwrap();
    terminal.exp_string("[stop is reset]").unwrap();
    say(&mut terminal, "Hi");
    terminal.send_line("/set").unwrap();
    let shown = terminal.exp_string("reasoning ").unwrap();
    assert!(shown.contains("[\"no such\"]") && shown.contains(" 7\r\n"), "{shown}");
    terminal.send_line("/save ~/at home").unwrap();
    terminal.exp_string("messages in ~/at home").unwrap();
    assert!(chat.tiny.env.home().join("at home").exists());
    leave(terminal);
}

#[test]
fn what_is_typed_during_an_answer_is_the_next_line_and_no_part_of_the_answer() {
    let chat = Chat::endless();
    let mut terminal = chat.start_with(":", &["--max-tokens", "1000"]);
    terminal.send_line("One").unwrap();
    terminal.exp_string("w317 w16 w239").unwrap();
    terminal.send_line("/system zzz").unwrap();
    let shown = terminal.exp_string(", cut; ").unwrap();
    assert!(!shown.contains("zzz"), "{shown}");
    terminal.exp_string("[system prompt set]").unwrap();
    assert_eq!(chat.saved(&mut terminal)[0]["content"], "zzz");
    leave(terminal);
}

#[test]
fn a_terminal_without_colours_or_of_no_kind_gets_plain_text() {
    let chat = Chat::new();
    chat.tiny.says(&["<think>", "Hm", "</think>", "Good", " ", "day", "."]);
    let reasoned = |setting: &str| {
        let mut terminal = chat.start_with(setting, &[]);
        terminal.send_line("Hi").unwrap();
        let before = terminal.exp_string("Good day.\r\n").unwrap();
        terminal.exp_string("in the context]").unwrap();
        before + &terminal.exp_string("> ").unwrap()
    };
    assert!(reasoned(":").contains("\x1b[2mHm\x1b[22m\r\n\r\n"));
    let plain = reasoned("export NO_COLOR=1");
    assert!(
        plain.contains("[Reasoning]\r\nHm\r\n\r\n[Answer]\r\n") && !plain.contains("\x1b[2m"),
        "{plain}"
    );
    let dumb = reasoned("export TERM=dumb");
    assert!(dumb.contains("[Reasoning]\r\nHm\r\n") && !dumb.contains('\x1b'), "{dumb}");
}

#[test]
fn a_narrow_terminal_works_too() {
    let chat = Chat::new();
    let mut terminal = chat.start_with("stty cols 20 rows 5", &[]);
    say(&mut terminal, "A line that is longer than the terminal is wide, by far");
    let said = chat.saved(&mut terminal);
    assert_eq!(said[0], user("A line that is longer than the terminal is wide, by far"));
    leave(terminal);
}

#[test]
fn lines_that_are_sent_at_once_are_answered_one_after_another() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    terminal.send("One\rTwo\r/system zzz\rThree\r").unwrap();
    terminal.flush().unwrap();
    for _ in 0..3 {
        terminal.exp_string("in the context]").unwrap();
    }
    let said = chat.saved(&mut terminal);
    let users: Vec<_> = said.as_array().unwrap().iter().filter(|m| m["role"] == "user").collect();
    assert_eq!(users, [&user("One"), &user("Two"), &user("Three")]);
    leave(terminal);
}

#[test]
fn lines_that_were_sent_before_the_model_was_loaded_are_answered() {
    let chat = Chat::new();
    let program = crate::env::program_path("mlxk-run");
    let mut command = chat.tiny.env.at_home(Command::new(program));
    command.env("TERM", "xterm").args(["tiny", "--temperature", "0"]);
    let mut terminal = spawn_command(command, Some(PATIENCE)).unwrap();
    terminal.send("One\nTwo\n").unwrap();
    terminal.flush().unwrap();
    for _ in 0..2 {
        terminal.exp_string("Good day.\r\n").unwrap();
    }
    leave(terminal);
}

#[test]
fn pasted_lines_are_one_message() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    terminal.send("\x1b[200~One\rTwo\r\rThree\x1b[201~").unwrap();
    say(&mut terminal, "!");
    assert_eq!(chat.saved(&mut terminal)[0], user("One\nTwo\n\nThree!"));
    leave(terminal);
}

/// Sends bytes, which need not be UTF-8.
fn send_bytes(terminal: &PtySession, bytes: &[u8]) {
    terminal.process().get_file_handle().unwrap().write_all(bytes).unwrap();
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_do_not_end_the_conversation() {
    let chat = Chat::new();
    let mut terminal = chat.start();
    for line in [&b"caf\xe9\r"[..], b"caf\xe9 au lait\xff\xc3\xa9\r"] {
        send_bytes(&terminal, line);
        terminal.exp_string("in the context]").unwrap();
    }
    let said = chat.saved(&mut terminal);
    assert_eq!(said[0], user("caf\u{fffd}"));
    assert_eq!(said[2], user("caf\u{fffd} au lait\u{fffd}é"));
    leave(terminal);
    let mut dumb = chat.start_with("export TERM=dumb", &[]);
    send_bytes(&dumb, b"caf\xe9\n");
    dumb.exp_string("[not UTF-8: the line was deleted]").unwrap();
    dumb.send_line("Hi").unwrap();
    dumb.exp_string("in the context]").unwrap();
    dumb.send_control('d').unwrap();
    dumb.exp_eof().unwrap();
}

#[test]
fn lines_typed_before_ctrl_c_are_kept() {
    let chat = Chat::endless();
    let mut terminal = chat.start();
    terminal.send_line("One").unwrap();
    terminal.exp_string("w317 w16 w239").unwrap();
    terminal.send_line("/system zzz").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.send_control('c').unwrap();
    terminal.exp_string("interrupted; ").unwrap();
    terminal.exp_string("[system prompt set]").unwrap();
    leave(terminal);
}
