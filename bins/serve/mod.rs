//! Run of a server: sockets, keys, logs, models, signals.

mod allocator;
mod distributed;
mod embed;
mod flags;
mod key;
mod listen;
mod log;
mod socket_file;

use std::io::{self, Write};
use std::process;
use std::time::Duration;

use mlxk_cli::exit::Exit;
use mlxk_cli::{Form, Output, interrupt, program};
use mlxk_core::{Error, Kind, Places, Record, Result};
use mlxk_engine::Local;
use mlxk_engine::distributed::Watch;
use mlxk_serve::{App, Level, Settings, Times};
use serde_json::{Value, json};

pub use distributed::DistributedFlags;
pub use embed::EmbedFlags;
pub use flags::{LimitFlags, ListenFlags};
pub use log::LogFlags;

/// Maximum number of open connections.
const CONNECTIONS: usize = 1024;

/// Timeouts for clients to send requests and read responses.
const TIMES: Times = Times {
    head: Duration::from_secs(30),
    body: Duration::from_secs(60),
    write: Duration::from_secs(30),
};

/// Serves the models of `places` until a signal arrives; `models` are loaded at the start. A rank
/// other than the first holds its part of the one model until the first rank ends.
///
/// # Errors
/// If a model cannot be loaded, a socket cannot be opened, or another rank has ended.
pub fn serve(
    models: &[String],
    listen: &ListenFlags,
    limits: &LimitFlags,
    distributed: &DistributedFlags,
    (embed, log): (&EmbedFlags, &LogFlags),
    places: Places,
    out: &mut Output,
) -> Result<()> {
    program::ignore_sigpipe();
    allocator::configure();
    embed.choose_device()?;
    let config = distributed.rank_config()?;
    let only = match (&config, models) {
        (Some(config), [model]) => Some((config, model)),
        (Some(_), _) => return Err(one_model()),
        (None, _) => None,
    };
    let tell = log.log();
    let said = |message: String| tell.say(Level::Info, message);
    let bounds = limits.bounds()?;
    if let Some((config, model)) = only.filter(|(config, _)| config.rank > 0) {
        let followed = mlxk_engine::follow(places, bounds.memory, model, config, &mut |part| {
            said(format!("rank {} has {}", config.rank, part.describe()));
            announce(&[], models, None, Some(config.rank), embed, out)
        });
        return followed.map_err(|e| -> Error { leave(&e, out) });
    }
    let keys = key::keys(listen.api_key_file.as_deref())?;
    let embed_backend = embed.backend()?;
    let embed_only = embed.only(models, &places)?;
    let open = listen::open(listen, embed.default_port())?;
    if !open.here && keys.is_empty() {
        return Err(Error::new(
            Kind::Command,
            "",
            "other machines can connect, and there is no key",
        )
        .hint("set --api-key-file FILE or MLXK_API_KEY, or listen on --host 127.0.0.1"));
    }
    let settings = Settings {
        keys,
        loopback: open.loopback,
        hosts: listen.hosts()?,
        origins: listen.origins()?,
        lenient: listen.ignore_unknown,
        max_body: listen.max_body.0 as usize,
        max_audio: listen.max_audio.0 as usize,
        trim: allocator::trim,
        max_connections: CONNECTIONS,
        max_tokens: bounds.preset.options.max_tokens,
        times: TIMES,
        embed_backend,
        embed_only,
        log: tell.clone(),
    };
    let most = settings.max_tokens;
    let (engine, ranks) = match only {
        None => (Local::start(places, bounds, models)?, None),
        Some((config, model)) => {
            let wish = (config, distributed.split());
            let (engine, ranks) = Local::lead(places, bounds, model, wish, &said)?;
            (engine, Some(ranks))
        }
    };
    let app = App::new(engine, settings);
    let watch = interrupt::watch();
    announce(&open.addresses, models, most, only.map(|(config, _)| config.rank), embed, out)?;
    for address in &open.addresses {
        said(format!("listening on {address}"));
    }
    let lost = || ranks.as_ref().and_then(Watch::lost);
    let stopped = || watch.caught() || lost().is_some();
    let served = mlxk_serve::run(&app, open.sockets, listen.grace(), &stopped);
    drop(open.file);
    let served = lost().map_or(served, Err);
    ranks.iter().for_each(Watch::end);
    said("stopped".to_owned());
    // From here on the signal ends the program, as its parent expects.
    drop(watch);
    match ranks {
        Some(_) => served.map_err(|e| -> Error { leave(&e, out) }),
        None => served,
    }
}

/// Ends the process of a rank with `error`, without MLX's cleanup, which may free twice the data in
/// transit to a rank that has ended.
fn leave(error: &Error, out: &mut Output) -> ! {
    // The exit status reports it too.
    let _ = out.error(error);
    let _ = io::stdout().flush();
    // SAFETY: this ends the process, and runs nothing of it.
    unsafe { libc::_exit(Exit::from(error) as i32) }
}

fn one_model() -> Error {
    let message = "several processes run exactly one model";
    Error::new(Kind::Command, "--distributed", message).hint("give --model MODEL exactly once")
}

/// Writes the record of a server that is ready: its addresses, models and limits.
fn announce(
    addresses: &[String],
    models: &[String],
    most: Option<u64>,
    rank: Option<usize>,
    embed: &EmbedFlags,
    out: &mut Output,
) -> Result<()> {
    let address = addresses.first().and_then(|address| address.strip_prefix("http://"));
    let (host, port) = address.and_then(|address| address.rsplit_once(':')).unzip();
    let mut told = json!({
        "addresses": addresses,
        "host": host,
        "port": port.and_then(|port| port.parse::<u16>().ok()),
        "pid": process::id(),
        "model": models.first(),
        "models": models,
        "max_tokens": most,
        "embed_backend": embed.backend_url(),
    });
    let command = if embed.is_only() { "embed-serve" } else { "serve" };
    if embed.is_only() {
        told["device"] = embed::device()?.into();
    }
    if let Some(rank) = rank {
        told["rank"] = rank.into();
    }
    match (out.form, told) {
        (Form::Human, _) => Ok(()),
        (Form::Ndjson, Value::Object(fields)) => out.lines([&Record::from(fields)]),
        (_, data) => out.text(&format!(
            "{}\n",
            json!({"status": "starting", "command": command, "data": data, "error": null})
        )),
    }
}
