//! A copy of a workspace with a rebuilt index.

use std::path::Path;

use super::remake::Remake;
use crate::error::Result;
use crate::progress::Progress;
use crate::record::Record;
use crate::store::Places;
use crate::tensors::{self, INDEX};

/// Creates the workspace `target` with the files of `source` and a rebuilt index of the weights.
///
/// `source`, `target` and `places` are as for [`Remake::begin`], `check` is as for
/// [`Remake::finish`]. An error of `progress` stops the work.
///
/// # Errors
/// See these functions; also if the source cannot be copied or changes meanwhile, a weight file is
/// broken, or the disk has no room. No file is left behind.
pub fn repair_index(
    source: &Path,
    target: &Path,
    check: bool,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let remake = Remake::begin(source, target, "repair-index", places)?;
    let items = remake.items(&|path| path != Path::new(INDEX))?;
    remake.check_room(&items, 0)?;
    remake.copy(&items, progress)?;
    let shards = tensors::rebuild_index(remake.path())?;
    Ok(remake.finish(check)?.with("shards", shards).with("message", message(shards)))
}

fn message(shards: usize) -> String {
    match shards {
        0 | 1 => "A model in one file needs no index".to_owned(),
        shards => format!("The index of {shards} files was made anew"),
    }
}
