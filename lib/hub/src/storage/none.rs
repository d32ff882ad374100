//! Stands for Xet storage in a build without it: there is none.

use mlxk_core::Result;

use crate::client::Hub;
use crate::event::Listener;
use crate::listing::RemoteFile;
use crate::part::Part;
use crate::refusal::Attempt;

/// The storage of no model.
pub enum Storage {}

impl Storage {
    /// None.
    pub fn open(_: &Hub, _: &str, _: &str, _: Listener) -> Result<Option<Storage>> {
        Ok(None)
    }

    /// Cannot be asked.
    pub fn fetch(
        &self,
        _: &RemoteFile,
        _: &Part,
        _: usize,
        _: &dyn Fn(u64) -> Result<()>,
    ) -> Attempt<()> {
        match *self {}
    }
}
