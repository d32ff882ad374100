//! Helpers around mlx-rs: the default device, arrays over foreign memory, slices, errors.

use std::ffi::c_void;
use std::ops::Range;

use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::{Array, Device, DeviceType, Dtype, Stream};
use mlxk_core::{Error, Kind};

/// True if MLX's default device is the CPU, which is so where MLX has no GPU backend or no GPU.
pub fn on_cpu() -> mlxk_core::Result<bool> {
    let kind = Device::try_default().and_then(|device| device.get_type()).map_err(failed)?;
    Ok(matches!(kind, DeviceType::Cpu))
}

/// Makes the CPU the default device, although there may be a GPU.
///
/// # Errors
/// If MLX fails.
pub fn use_cpu() -> mlxk_core::Result<()> {
    Device::set_default(&Device::cpu());
    on_cpu().map(drop)
}

/// Converts an MLX exception to an error of kind [`Kind::Execution`], with the exception as cause.
pub fn failed(error: Exception) -> Error {
    Error::new(Kind::Execution, "", format!("MLX: {}", error.what())).caused_by(error)
}

/// Memory that an [`Array`] may use in place.
///
/// # Safety
/// [`Memory::address`] must stay valid and unmoved until the value is dropped, hold the promised
/// number of bytes, and be writable by MLX, which reuses the buffers of arrays that have no other
/// owner.
pub unsafe trait Memory: Send + 'static {
    /// Address of the first byte.
    fn address(&self) -> *mut c_void;
}

/// Array over `memory`, which is dropped with the array. MLX copies memory that its device cannot
/// map.
///
/// # Safety
/// `memory` must hold `shape.product()` elements of `dtype`, aligned to their size.
pub unsafe fn over<M: Memory>(memory: M, shape: &[i32], dtype: Dtype) -> Array {
    extern "C" fn release<M>(payload: *mut c_void) {
        // SAFETY: `payload` is the box leaked below, and MLX calls this once.
        drop(unsafe { Box::from_raw(payload.cast::<M>()) });
    }
    let payload = Box::new(memory);
    let data = payload.address();
    // SAFETY: the memory is as large and as aligned as the caller promises, outlives the array by
    // way of the payload, and the handle returned is a new one that `Array` owns.
    unsafe {
        Array::from_ptr(mlx_sys::mlx_array_new_data_managed_payload(
            data,
            shape.as_ptr(),
            shape.len() as i32,
            dtype.into(),
            Box::into_raw(payload).cast(),
            Some(release::<M>),
        ))
    }
}

/// Scalar `x` of the type of `like`, so that arithmetic with `like` keeps that type.
pub fn number(x: f32, like: &Array) -> Result<Array> {
    Array::from_f32(x).as_dtype(like.dtype())
}

/// Slice of the third axis, `x[:, :, range, :]`.
pub fn rows(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device((.., .., range), Stream::thread_local_or_default())
}

/// Slice of the first axis, `x[range]`.
pub fn entries(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device(range, Stream::thread_local_or_default())
}

/// Slice of the second axis, `x[:, range]`.
pub fn columns(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device((.., range), Stream::thread_local_or_default())
}

/// Assignment to the third axis, `x[:, :, range, :] = new`; in place if `x` has no other owner.
pub fn set_rows(x: &mut Array, range: Range<i32>, new: &Array) -> Result<()> {
    x.try_index_mut_device((.., .., range), new, Stream::thread_local_or_default())
}

/// Pseudo-random numbers around zero that depend on `seed` alone. MLX's own random functions are
/// not used because they need a clock of Apple's to link.
#[cfg(test)]
pub fn noise(shape: &[i32], seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut next = || uniform() + uniform() + uniform();
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Array::from_slice(&numbers, shape)
}
