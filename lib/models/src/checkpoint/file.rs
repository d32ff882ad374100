//! Weight files mapped into memory.

use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};
use mlxk_core::{Error, Kind, Result, regular_file, tensors};

use super::tensor::{self, Bytes, Tensor};

/// Maps a file privately. Errors if it cannot be opened or mapped.
pub fn map(path: &Path) -> Result<MmapMut> {
    let file = regular_file::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the mapping is private, so nothing here changes the file; a file that someone else
    // cuts short while a model runs ends the process, as it does every program that maps files.
    unsafe { MmapOptions::new().no_reserve_swap().map_copy(&file) }.map_err(|e| Error::io(path, e))
}

/// Tensor of a mapped file, by its header. Errors if the file is shorter, or MLX lacks the type.
pub fn place(tensor: &tensors::Tensor, file: &Arc<MmapMut>, path: &Path) -> Result<Tensor> {
    let range = tensor.range.start as usize..tensor.range.end as usize;
    let refused = |why: String| {
        Error::new(
            Kind::InvalidModel,
            path.display().to_string(),
            format!("{}: {why}", tensor.name),
        )
    };
    if range.end > file.len() {
        return Err(refused("the file was cut short".into()));
    }
    let dtype = tensor::in_memory(tensor.dtype)
        .ok_or_else(|| refused(format!("elements of type {} cannot run", tensor.dtype)))?;
    Ok(Tensor::stored(dtype, tensor.shape.clone(), Bytes::within(file, range)))
}
