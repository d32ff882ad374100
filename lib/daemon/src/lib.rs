//! What `mlxk-serve` does besides its arguments: sockets, keys, logs, and how it ends.
//!
//! Only programs use this crate: it prints, as mlxk-cli does.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod flags;
mod key;
mod listen;
mod log;
mod sweep;

use std::process;

use mlxk_cli::{Form, Output, interrupt, program};
use mlxk_core::{Error, Kind, Places, Record, Result};
use mlxk_engine::Local;
use mlxk_serve::{App, Level, Settings};
use serde_json::{Value, json};

pub use flags::{ListenFlags, WorkFlags};
pub use log::LogFlags;

/// Serves the models of `places`, those that are named from the start, until a signal ends it.
///
/// # Errors
/// If a model cannot be loaded, or nobody can connect.
pub fn serve(
    models: &[String],
    listen: &ListenFlags,
    work: &WorkFlags,
    log: &LogFlags,
    places: Places,
    out: &mut Output,
) -> Result<()> {
    program::ignore_sigpipe();
    let keys = key::keys(listen.api_key_file.as_deref())?;
    let open = listen::open(listen)?;
    if !open.here && keys.is_empty() {
        return Err(Error::new(Kind::Command, "", "others may connect, and anyone may ask").hint(
            "--api-key-file FILE or MLXK_API_KEY tells who may; --host 127.0.0.1 keeps it here",
        ));
    }
    let bounds = work.bounds()?;
    let settings = Settings {
        keys,
        loopback: open.loopback,
        origins: listen.origins()?,
        lenient: listen.ignore_unknown,
        max_body: listen.max_body.0 as usize,
        log: log.log(),
    };
    let (tell, most) = (settings.log.clone(), bounds.preset.options.max_tokens);
    let engine = Local::start(places, bounds, models)?;
    let app = App::new(engine, settings);
    let watch = interrupt::watch();
    announce(&open.addresses, models, most, out)?;
    for address in &open.addresses {
        tell.say(Level::Info, format!("listening on {address}"));
    }
    let served = mlxk_serve::run(&app, open.sockets, listen.grace(), &|| watch.caught());
    drop(open.file);
    tell.say(Level::Info, "stopped");
    // From here on the signal ends the program, as its parent expects.
    drop(watch);
    served
}

/// Tells programs that wait for it where the server is.
fn announce(
    addresses: &[String],
    models: &[String],
    most: Option<u64>,
    out: &mut Output,
) -> Result<()> {
    let told = json!({
        "addresses": addresses,
        "pid": process::id(),
        "models": models,
        "max_tokens": most,
    });
    match (out.form, told) {
        (Form::Human, _) => Ok(()),
        (Form::Ndjson, Value::Object(fields)) => out.lines([&Record::from(fields)]),
        (_, data) => out.text(&format!(
            "{}\n",
            json!({"status": "starting", "command": "serve", "data": data, "error": null})
        )),
    }
}
