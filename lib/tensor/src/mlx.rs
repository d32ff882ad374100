//! The few things about MLX that mlx-rs leaves to its user: the device, memory that is not copied, errors.

use std::ffi::c_void;
use std::ops::Range;

use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::{Array, Device, DeviceType, Dtype, Stream};
use mlxk_core::{Error, Kind};

/// Whether models run on the CPU here: MLX itself chooses, and takes a GPU if it can.
pub fn on_cpu() -> mlxk_core::Result<bool> {
    let kind = Device::try_default().and_then(|device| device.get_type()).map_err(failed)?;
    Ok(matches!(kind, DeviceType::Cpu))
}

/// MLX's error as one of the suite's.
pub fn failed(error: Exception) -> Error {
    Error::new(Kind::Execution, "", format!("MLX: {}", error.what())).caused_by(error)
}

/// Memory that an [`Array`] may look at in place.
///
/// # Safety
/// `address` stays valid and unmoved until the value is dropped, holds the promised number of
/// bytes, and may be written to by MLX, which reuses the buffers of arrays nobody else holds.
pub unsafe trait Memory: Send + 'static {
    /// The first byte.
    fn address(&self) -> *mut c_void;
}

/// An array over `memory`, which lives as long as the array. The GPU copies what it cannot map.
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

/// `x` as a scalar of the type of `like`, which it then does not widen.
pub fn number(x: f32, like: &Array) -> Result<Array> {
    Array::from_f32(x).as_dtype(like.dtype())
}

/// `x[:, :, range, :]`.
pub fn rows(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device((.., .., range), Stream::thread_local_or_default())
}

/// `x[range]`.
pub fn entries(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device(range, Stream::thread_local_or_default())
}

/// `x[:, range]`.
pub fn columns(x: &Array, range: Range<i32>) -> Result<Array> {
    x.try_index_device((.., range), Stream::thread_local_or_default())
}

/// `x[:, :, range, :] = new`, in place if nobody else holds `x`.
pub fn set_rows(x: &mut Array, range: Range<i32>, new: &Array) -> Result<()> {
    x.try_index_mut_device((.., .., range), new, Stream::thread_local_or_default())
}

/// Numbers around zero, the same for each `seed`: those of MLX need Apple's clock to link.
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
