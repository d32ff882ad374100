//! Pieces of a file from Xet storage, through the library that speaks its protocol.
//!
//! It brings only what its own cache does not have, and checks every chunk; the digest of the whole
//! file is compared here all the same. Where it fails, plain HTTP brings the piece.

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use ureq::http::{HeaderMap, HeaderValue};
use xet::xet_session::{XetConfig, XetDownloadStreamGroup, XetFileInfo, XetSessionBuilder};

use crate::client::Hub;
use crate::event::Listener;
use crate::listing::RemoteFile;
use crate::part::Part;
use crate::refusal::{Attempt, Failure};

/// The storage of one model.
pub struct Storage {
    group: XetDownloadStreamGroup,
}

/// What the Hub says of the storage.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    cas_url: String,
    access_token: String,
    exp: u64,
}

impl Storage {
    /// The storage of the model `id` at `commit`; none if it is not wanted.
    pub fn open(hub: &Hub, id: &str, commit: &str, told: Listener) -> Result<Option<Storage>> {
        if !hub.remote().xet {
            return Ok(None);
        }
        let url = hub.api(&format!("models/{id}/xet-read-token/{commit}"));
        let (access, _): (Access, _) = hub.get(&url, told)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &hub.remote().token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.secret()));
            let value = value.map_err(|_| failed("the token is not one for a header"))?;
            headers.insert("authorization", value);
        }
        let mut config = XetConfig::new();
        config.telemetry.enabled = false;
        let group = XetSessionBuilder::new_with_config(config).build().and_then(|session| {
            session
                .new_download_stream_group()?
                .with_endpoint(access.cas_url)
                .with_token_info(access.access_token, access.exp)
                .with_token_refresh_url(url, headers)
                .build_blocking()
        });
        Ok(Some(Storage { group: group.map_err(|e| failed(&e.to_string()))? }))
    }

    /// Fetches what is missing of piece `i`; `moved` hears how many bytes came, and can end it.
    pub fn fetch(
        &self,
        file: &RemoteFile,
        part: &Part,
        i: usize,
        moved: &dyn Fn(u64) -> Result<()>,
    ) -> Attempt<()> {
        let Some(hash) = &file.xet_hash else {
            return Err(failed("the file is not in it").into());
        };
        let (start, length) = part.span(i);
        let range = start + part.done(i)..start + length;
        let info = XetFileInfo { hash: hash.clone(), file_size: Some(file.size), sha256: None };
        let lost = |e: xet::XetError| Failure::from(failed(&e.to_string()));
        let mut stream = self.group.download_stream_blocking(info, Some(range)).map_err(lost)?;
        while let Some(bytes) = stream.blocking_next().map_err(lost)? {
            if bytes.len() as u64 > length - part.done(i) {
                return Err(failed("more comes than was asked for").into());
            }
            part.append(i, &bytes)?;
            moved(bytes.len() as u64)?;
        }
        match part.done(i) == length {
            true => Ok(()),
            false => Err(failed("less comes than was asked for").into()),
        }
    }
}

fn failed(why: &str) -> Error {
    Error::new(Kind::DownloadFailed, "", format!("Xet storage: {why}"))
}
