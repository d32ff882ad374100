//! Flags of connections and of limits to what models take.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::{ArgAction, Args};
use mlxk_core::{Error, Kind, Result};
use mlxk_engine::Bounds;
use mlxk_engine::CacheOptions;
use mlxk_processor::request::{Options, Preset};

use crate::sampling::SamplingFlags;

/// Flags of connections.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct ListenFlags {
    /// Listen on this address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Listen on this port; 0 is any free port; default: 8000, with --embed-only 8002
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Listen on this Unix socket, and on no address
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "port"])]
    pub(crate) socket: Option<PathBuf>,
    /// Require a key from this file, one per line; default: MLXK_API_KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Answer requests that call the server by this host name; may be repeated
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    allow_host: Vec<String>,
    /// Allow web pages of this origin, such as https://example.org; may be repeated
    #[arg(long, value_name = "ORIGIN", action = ArgAction::Append)]
    allow_origin: Vec<String>,
    /// Maximum size of a request body, but for audio
    #[arg(long, value_name = "SIZE", default_value = "16MB")]
    pub(crate) max_body: Size,
    /// Maximum size of an audio file
    #[arg(long, value_name = "SIZE", default_value = "25MB")]
    pub(crate) max_audio: Size,
    /// Ignore fields of requests that are not supported, instead of refusing them
    #[arg(long)]
    pub(crate) ignore_unknown: bool,
    /// Seconds that running requests may continue after the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    grace: u64,
}

impl ListenFlags {
    /// Port to listen on, `default` if none is given.
    pub(crate) fn port(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }

    /// Time for which running requests may continue after the server receives a signal to stop.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }

    /// Host names by which requests may call a server on loopback.
    ///
    /// # Errors
    /// If one is not a plain name.
    pub(crate) fn hosts(&self) -> Result<Vec<String>> {
        let host = |name: &String| match name.is_empty() || name.contains([':', '/', '*', '@']) {
            false => Ok(name.trim_end_matches('.').to_owned()),
            true => {
                let message = format!("not a host name: {name}");
                Err(Error::new(Kind::Command, "--allow-host", message)
                    .hint("a host name is like box.lan, without a scheme, a port or a path"))
            }
        };
        self.allow_host.iter().map(host).collect()
    }

    /// Origins of web pages that may send requests (CORS).
    ///
    /// # Errors
    /// If one is not a valid origin.
    pub(crate) fn origins(&self) -> Result<Vec<HeaderValue>> {
        let origin = |text: &String| {
            let plain = text.split_once("://").is_some_and(|(_, host)| !host.contains(['/', '*']));
            let value = HeaderValue::from_str(text).ok().filter(|_| plain);
            value.ok_or_else(|| {
                Error::new(Kind::Command, "--allow-origin", format!("not an origin: {text}"))
                    .hint("an origin is like https://example.org, without a path")
            })
        };
        self.allow_origin.iter().map(origin).collect()
    }
}

/// Flags of limits to what models take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Models and memory")]
pub struct LimitFlags {
    /// Number of requests of a model that are answered at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch: usize,
    /// Maximum number of waiting requests; further ones get status 429
    #[arg(long, value_name = "N", default_value_t = 128)]
    queue: u64,
    /// Memory for all models and caches; default: four fifths of the free memory
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Memory for the caches of completed sequences, whose prefixes can be reused
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    prefix_cache: Size,
    /// Unload a model that had no request for this many seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Maximum number of tokens of answers whose requests do not set one
    #[arg(long, value_name = "N", env = "MLXK2_MAX_TOKENS", hide_env = true)]
    max_tokens: Option<u64>,
    #[command(flatten)]
    sampling: SamplingFlags<false>,
}

impl LimitFlags {
    /// Bounds of the engine.
    ///
    /// # Errors
    /// If a value is invalid.
    pub(crate) fn bounds(&self) -> Result<Bounds> {
        if self.batch == 0 || self.queue == 0 {
            let message = "--batch and --queue are whole numbers from 1";
            return Err(Error::new(Kind::Command, "", message));
        }
        if self.memory.is_some_and(|size| size.0 == 0) {
            return Err(Error::new(Kind::Command, "", "--memory must be greater than 0"));
        }
        let options = Options { max_tokens: self.max_tokens, ..self.sampling.options()? };
        options.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        let free = || mlxk_engine::free_memory().map_or(u64::MAX, |free| free / 5 * 4);
        let memory = self.memory.map_or_else(free, |size| size.0);
        // The prefix cache must leave memory for models.
        let prefix_bytes = self.prefix_cache.0.min(memory / 4);
        Ok(Bounds {
            batch: self.batch,
            queue: self.queue,
            memory: memory.saturating_sub(prefix_bytes),
            ttl: self.ttl.map(Duration::from_secs),
            cache: CacheOptions { prefix_bytes, ..CacheOptions::default() },
            preset: Preset { options, ..Preset::default() },
        })
    }
}

/// Number of bytes, written as `512MB`, `8GB` or `1000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Size, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "K" | "KB" => 1e3 as u64,
            "M" | "MB" => 1e6 as u64,
            "G" | "GB" => 1e9 as u64,
            "T" | "TB" => 1e12 as u64,
            _ => return Err("a size is like 512MB or 8GB".to_owned()),
        };
        let count: Option<f64> = digits.trim().parse().ok();
        match count.filter(|count| (0.0..1e15).contains(count)) {
            Some(count) => Ok(Size((count * unit as f64) as u64)),
            None => Err("a size is like 512MB or 8GB".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_none() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(size("8GB"), Ok(8_000_000_000));
        assert_eq!(size("1.5mb"), Ok(1_500_000));
        assert_eq!(size("1000"), Ok(1000));
        for wrong in ["", "GB", "-1GB", "1XB", "1e400"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
