//! Communication between the ranks of distributed inference, by MLX's collectives. A process
//! belongs to one group, which MLX holds.

use std::ffi::CString;
use std::ptr;

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Stream, with_stream};
use mlxk_core::{Error, Kind};

use crate::mlx;
use crate::quantized::call;

/// Null handle, which stands for the group of [`join`].
const GROUP: mlx_sys::mlx_distributed_group =
    mlx_sys::mlx_distributed_group { ctx: ptr::null_mut() };

/// Joins the group of `size` ranks as `rank`, and waits until all have joined. MLX reads the
/// addresses of the ranks from environment variables of its own. Errors if MLX reports another rank
/// or size.
pub fn join(backend: &str, rank: usize, size: usize) -> mlxk_core::Result<()> {
    let failed = |why: String| Error::new(Kind::Execution, "", why);
    let name = CString::new(backend).map_err(|e| failed(e.to_string()))?;
    let joined = joined(&name).map_err(mlx::failed)?;
    match joined == (rank, size) {
        true => Ok(()),
        false => {
            let (there, of) = joined;
            Err(failed(format!("MLX says rank {there} of {of}, this is rank {rank} of {size}")))
        }
    }
}

/// Rank and size of the group that MLX made.
fn joined(backend: &CString) -> Result<(usize, usize)> {
    // SAFETY: the call has no preconditions; the group is freed below.
    let mut group = unsafe { mlx_sys::mlx_distributed_group_new() };
    // SAFETY: the name lives as long as the call.
    let status = unsafe { mlx_sys::mlx_distributed_init(&mut group, true, backend.as_ptr()) };
    if status != 0 {
        return Err(Exception::custom(format!("the group of {backend:?} was not made")));
    }
    // SAFETY: the group was made, and nobody else holds this handle.
    unsafe {
        let rank = mlx_sys::mlx_distributed_group_rank(group);
        let size = mlx_sys::mlx_distributed_group_size(group);
        mlx_sys::mlx_distributed_group_free(group);
        Ok((rank as usize, size as usize))
    }
}

/// Sum of `x` over all ranks.
pub fn all_sum(x: &Array) -> Result<Array> {
    between("all_sum", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe { mlx_sys::mlx_distributed_all_sum(result, x.as_ptr(), GROUP, stream) }
    })
}

/// Sends `x` to the neighbouring rank `rank`; the transfer happens when the result is evaluated.
pub fn send(x: &Array, rank: usize) -> Result<Array> {
    between("send", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe { mlx_sys::mlx_distributed_send(result, x.as_ptr(), rank as i32, GROUP, stream) }
    })
}

/// Receives an array of the shape and type of `x` from the neighbouring rank `rank`.
pub fn receive_like(x: &Array, rank: usize) -> Result<Array> {
    between("recv", |result, stream| {
        let (x, rank) = (x.as_ptr(), rank as i32);
        // SAFETY: all handles live as long as the call.
        unsafe { mlx_sys::mlx_distributed_recv_like(result, x, rank, GROUP, stream) }
    })
}

/// Runs a collective, on macOS on the CPU stream, which is the only one that supports it there.
fn between(
    name: &str,
    operation: impl FnOnce(*mut mlx_sys::mlx_array, mlx_sys::mlx_stream) -> i32,
) -> Result<Array> {
    match cfg!(target_os = "macos") {
        true => with_stream(&Stream::cpu(), || call(name, operation)),
        false => call(name, operation),
    }
}
