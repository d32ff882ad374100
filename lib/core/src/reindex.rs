//! A workspace as a copy of another one, with an index that is right.

use std::path::Path;

use crate::error::Result;
use crate::record::Record;
use crate::store::Places;
use crate::store::remake::Remake;
use crate::tensors::{self, INDEX};
use crate::progress::Progress;

/// Makes the workspace `target` out of `source`: the same files, and a new index of its weights.
///
/// Places are as in [`Remake::begin`], `check` as in [`Remake::finish`]. `progress` counts bytes,
/// and can end it.
///
/// # Errors
/// As those; if the source cannot be copied or changes meanwhile, a weight file is broken, or the
/// disk has no room. Then nothing is left behind.
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
