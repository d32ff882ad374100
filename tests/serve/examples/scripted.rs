//! Serves a script for tests/page until standard input ends, and prints the server's address.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{self, Read};
use std::time::Duration;

use mlxk_processor::Event;
use mlxk_testengine::{Script, Served, settings, text};

fn main() {
    let thought =
        ["Let me see: ", "France, ", "so Paris."].map(|said| Event::Reasoning(said.into()));
    let said = ["The capital", " of France", " is Paris."].map(text);
    let script = Script::new()
        .with("thinks", thought.into_iter().chain(said))
        .with("long", vec![text("and so on "); 500])
        .pace(Duration::from_millis(30));
    let server = Served::start(&script, settings(), Duration::ZERO);
    println!("http://{}", server.address);
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    server.stop();
}
