//! mlxk-testhub - a model Hub on this machine, by hand
//!
//! `mlxk-testhub DIR` serves every DIR/ORG/NAME as the repository ORG/NAME and prints the line to
//! set HF_ENDPOINT with. HF_TOKEN=hf_owner may write. Faults are added with
//! `curl -d '{"path": "model.safetensors", "fault": {"cut": {"after": 1000}}}' \
//! -H content-type:application/json $HF_ENDPOINT/_hub/faults`; what was asked is at `/_hub/requests`.

use std::path::{Path, PathBuf};
use std::{fs, io, thread};

use clap::Parser;
use mlxk_testhub::{Hub, Repo};

/// Serve repositories as the Hub does
#[derive(Parser)]
struct Args {
    /// The folder with the repositories, ORG/NAME each
    folder: Option<PathBuf>,
    /// The port of the API
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep large files in Xet storage
    #[arg(long)]
    xet: bool,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let hub = Hub::start_at(args.port);
    for organization in args.folder.iter().flat_map(fs::read_dir).flatten() {
        let organization = organization?;
        for repo in fs::read_dir(organization.path())? {
            let repo = repo?.path();
            let name = repo
                .strip_prefix(organization.path().parent().unwrap_or(Path::new("")))
                .unwrap_or(&repo);
            let kept = hub.repo(&name.to_string_lossy());
            add(&kept, &repo, &repo)?;
            if args.xet {
                kept.keep_in_xet();
            }
        }
    }
    println!("export HF_ENDPOINT={}", hub.endpoint());
    loop {
        thread::park();
    }
}

fn add(repo: &Repo<'_>, root: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let disk = entry?.path();
        if disk.is_dir() {
            add(repo, root, &disk)?;
        } else if let Ok(path) = disk.strip_prefix(root) {
            repo.file_on_disk(&path.to_string_lossy(), &disk);
        }
    }
    Ok(())
}
