//! Embeddings by another server, or by one model for all names, as mlx-knife has both.

use std::path::PathBuf;

use clap::Args;
use mlxk_core::{
    Error, Inspected, Kind, Origin, Places, Record, Result, describe, inspect, resolve,
};
use mlxk_serve::{EmbedBackend, EmbedOnly};

use super::key;

/// Number of digits of a content hash in a fingerprint.
const DIGITS: usize = 8;

/// Flags of embeddings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Embeddings")]
pub struct EmbedFlags {
    /// Let the server at this URL answer requests to /v1/embeddings
    #[arg(long, value_name = "URL")]
    embed_backend: Option<String>,
    /// Send that server the key in this file
    #[arg(long, value_name = "FILE", requires = "embed_backend")]
    embed_backend_key_file: Option<PathBuf>,
    /// Answer requests to /v1/embeddings with the one model, whatever model they name
    #[arg(long, conflicts_with = "embed_backend")]
    embed_only: bool,
    /// Run models on the CPU, although there is a GPU
    #[arg(long)]
    cpu: bool,
}

impl EmbedFlags {
    /// The server that answers requests for embeddings.
    ///
    /// # Errors
    /// If it has no valid URL, or its key cannot be read.
    pub(crate) fn backend(&self) -> Result<Option<EmbedBackend>> {
        let Some(url) = &self.embed_backend else { return Ok(None) };
        let key = self.embed_backend_key_file.as_deref().map(key::first).transpose()?;
        EmbedBackend::new(url, key).map(Some)
    }

    /// The one model that answers requests for embeddings, which is that of `models`.
    ///
    /// # Errors
    /// If there is not exactly one, or it is no embedding model.
    pub(crate) fn only(&self, models: &[String], places: &Places) -> Result<Option<EmbedOnly>> {
        if !self.embed_only {
            return Ok(None);
        }
        let [model] = models else {
            let message = "it serves exactly one model";
            return Err(Error::new(Kind::Command, "--embed-only", message).hint("name it: MODEL"));
        };
        let found =
            resolve::resolve(&Record::default().with("name", model.as_str()).spec()?, places)?;
        let Inspected { facts, health, plan } = inspect(&found)?;
        mlxk_engine::admit_embedder(&facts, &health, &plan, false)?;
        let record = describe::model(&Inspected { facts, health, plan }, None);
        let hash = record.str("content_hash").or(record.str("hash")).map(str::to_owned);
        let identity = match found.origin {
            Origin::Cache { .. } => found.name.clone(),
            Origin::Workspace => {
                let folder = found.path.file_name().unwrap_or_default().to_string_lossy();
                record.str("origin").map_or_else(|| folder.into_owned(), str::to_owned)
            }
        };
        let digits = hash.map(|hash| {
            hash.trim_start_matches("sha256:").chars().take(DIGITS).collect::<String>()
        });
        let fingerprint = format!("{}.{}", digits.as_deref().unwrap_or("nohash"), device()?);
        Ok(Some(EmbedOnly { model: mlxk_engine::id(&found), identity, fingerprint }))
    }

    /// The URL of the server that answers requests for embeddings.
    pub(crate) fn backend_url(&self) -> Option<&str> {
        self.embed_backend.as_deref()
    }

    /// True if one model answers requests for embeddings, whatever model they name.
    pub(crate) fn is_only(&self) -> bool {
        self.embed_only
    }

    /// Lets MLX compute on the CPU if that is asked for.
    ///
    /// # Errors
    /// If MLX has no such device.
    pub(crate) fn choose_device(&self) -> Result<()> {
        if self.cpu { mlxk_tensor::mlx::use_cpu() } else { Ok(()) }
    }

    /// The port to listen on if none is given.
    pub(crate) fn default_port(&self) -> u16 {
        if self.embed_only { 8002 } else { 8000 }
    }
}

/// The device that computes, as mlx-knife calls it.
///
/// # Errors
/// If MLX fails.
pub(crate) fn device() -> Result<&'static str> {
    Ok(if mlxk_tensor::mlx::on_cpu()? { "cpu" } else { "gpu" })
}
