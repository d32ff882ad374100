//! Rank of this process among those that share a model: flags, and MLX's environment variables.

use std::env::{self, VarError};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use mlxk_core::{Error, Kind, Result};
use mlxk_engine::distributed::RankConfig;
use mlxk_models::checkpoint::part::Split;
use serde_json::Value;

/// Flags of a model that several processes hold.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Several processes")]
pub struct DistributedFlags {
    /// Run one model together with other processes, on this or other machines
    #[arg(long, conflicts_with = "ttl")]
    distributed: bool,
    /// File with the addresses of all ranks, in MLX's format; default: MLX_HOSTFILE
    #[arg(long, value_name = "FILE", requires = "distributed")]
    hostfile: Option<PathBuf>,
    /// Rank of this process, counted from 0; default: MLX_RANK
    #[arg(long, value_name = "N", requires = "distributed")]
    rank: Option<usize>,
    /// How to split the model, tensor or pipeline; chosen by the server if absent
    #[arg(long, value_name = "HOW", requires = "distributed", value_parser = split)]
    split: Option<Split>,
}

fn split(text: &str) -> std::result::Result<Split, String> {
    let known = Split::ALL.iter().find(|(_, name)| *name == text);
    known.map(|(split, _)| *split).ok_or_else(|| "tensor or pipeline".to_owned())
}

impl DistributedFlags {
    /// Way to split the model, if one was named.
    pub fn split(&self) -> Option<Split> {
        self.split
    }

    /// Configuration of this process as one of several ranks; `None` without `--distributed`. Sets
    /// MLX's environment variables, and so must be called before other threads run.
    ///
    /// # Errors
    /// If the rank or the addresses of the other ranks are missing or invalid.
    pub fn rank_config(&self) -> Result<Option<RankConfig>> {
        if !self.distributed {
            return Ok(None);
        }
        let rank = match (self.rank, variable("MLX_RANK")?) {
            (Some(rank), _) => rank,
            (None, Some(text)) => text.parse().map_err(|_| wrong("MLX_RANK", "not a number"))?,
            (None, None) => {
                return Err(
                    wrong("--distributed", "the rank is missing").hint("--rank N, or MLX_RANK")
                );
            }
        };
        let (size, first, backend) = self.others()?;
        if rank >= size {
            let why = format!("there are {size} ranks, counted from 0, not {rank}");
            return Err(wrong("--rank", &why));
        }
        // SAFETY: no other thread reads the environment yet: this is asked before there are any.
        unsafe { env::set_var("MLX_RANK", rank.to_string()) };
        let on_cpu = mlxk_tensor::mlx::on_cpu()?;
        Ok(Some(RankConfig { rank, size, first, backend, on_cpu }))
    }

    /// Number of ranks, address of rank 0, and MLX's backend.
    fn others(&self) -> Result<(usize, SocketAddr, &'static str)> {
        if let (None, Some(devices)) = (&self.hostfile, variable("MLX_IBV_DEVICES")?) {
            let hosts = list(Path::new(&devices))?;
            let first = variable("MLX_JACCL_COORDINATOR")?.unwrap_or_default();
            return Ok((hosts.len(), address("MLX_JACCL_COORDINATOR", &first)?, "jaccl"));
        }
        let told = variable("MLX_HOSTFILE")?.map(PathBuf::from);
        let file = self.hostfile.clone().or(told).ok_or_else(|| {
            wrong("--distributed", "the addresses of the ranks are missing")
                .hint("--hostfile FILE, or MLX_HOSTFILE")
        })?;
        let hosts = list(&file)?;
        let first = hosts.first().and_then(|host| host.get(0)).and_then(Value::as_str);
        let shown = file.display().to_string();
        let first = address(&shown, first.unwrap_or_default())?;
        // SAFETY: as above.
        unsafe { env::set_var("MLX_HOSTFILE", &file) };
        Ok((hosts.len(), first, "ring"))
    }
}

fn variable(name: &str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(e) => Err(wrong(name, &e.to_string())),
    }
}

/// Addresses of each rank in a host file, which lists two or more.
fn list(path: &Path) -> Result<Vec<Value>> {
    let subject = path.display().to_string();
    let text = fs::read(path).map_err(|e| Error::io(path, e))?;
    let hosts: Option<Vec<Value>> = serde_json::from_slice(&text).ok();
    let hosts = hosts.filter(|hosts| hosts.len() > 1 && hosts.iter().all(Value::is_array));
    hosts.ok_or_else(|| {
        wrong(&subject, "not a list of two or more ranks")
            .hint(r#"it is like [["10.0.0.1:5000"], ["10.0.0.2:5000"]]"#)
    })
}

fn address(subject: &str, text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        wrong(subject, &format!("not the address of rank 0: {text:?}"))
            .hint("an address is like 10.0.0.1:5000")
    })
}

fn wrong(subject: &str, why: &str) -> Error {
    Error::new(Kind::Command, subject, why)
}
