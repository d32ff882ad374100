//! MLX's products with quantised weights in every packing; mlx-rs knows the affine one alone.

use std::ffi::{CStr, c_int};
use std::ptr;

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Stream};
use mlxk_core::quantization::{Mode, QuantSpec};

use crate::weight::Quantized;

/// `x W.T`.
pub fn product(w: &Quantized, x: &Array) -> Result<Array> {
    times(w, x, true)
}

/// `x W.T` if `transposed`, else `x W`; of several matrices each is multiplied with its own.
pub fn times(w: &Quantized, x: &Array, transposed: bool) -> Result<Array> {
    called("quantized_matmul", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe {
            mlx_sys::mlx_quantized_matmul(
                result,
                x.as_ptr(),
                w.weight.as_ptr(),
                w.scales.as_ptr(),
                handle(w.biases.as_ref()),
                transposed,
                some(w.group_size),
                some(w.bits),
                mode_name(w.mode).as_ptr(),
                stream,
            )
        }
    })
}

/// `x W.T` with the matrix of each row: `x` [.., 1, ins] and `ids` [..] to [.., 1, outs]. It is
/// faster for many rows if these are `sorted` by `ids`, and wrong if that is not true.
pub fn gathered(w: &Quantized, x: &Array, ids: &Array, sorted: bool) -> Result<Array> {
    called("gather_qmm", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe {
            mlx_sys::mlx_gather_qmm(
                result,
                x.as_ptr(),
                w.weight.as_ptr(),
                w.scales.as_ptr(),
                handle(w.biases.as_ref()),
                handle(None),
                ids.as_ptr(),
                true,
                some(w.group_size),
                some(w.bits),
                mode_name(w.mode).as_ptr(),
                sorted,
                stream,
            )
        }
    })
}

/// The rows `ids` [..] of the weights, as [.., ins].
pub fn rows(w: &Quantized, ids: &Array) -> Result<Array> {
    let [weight, scales] = [&w.weight, &w.scales].map(|all| all.take_axis(ids, 0));
    let biases = w.biases.as_ref().map(|all| all.take_axis(ids, 0)).transpose()?;
    let (bits, group_size) = (w.bits as usize, w.group_size as usize);
    unpack(&weight?, &scales?, biases.as_ref(), QuantSpec { mode: w.mode, bits, group_size })
}

/// The weights that codes stand for.
pub fn unpack(
    weight: &Array,
    scales: &Array,
    biases: Option<&Array>,
    form: QuantSpec,
) -> Result<Array> {
    called("dequantize", |result, stream| {
        // SAFETY: all handles live as long as the call.
        unsafe {
            mlx_sys::mlx_dequantize(
                result,
                weight.as_ptr(),
                scales.as_ptr(),
                handle(biases),
                some(form.group_size as i32),
                some(form.bits as i32),
                mode_name(form.mode).as_ptr(),
                handle(None),
                mlx_sys::mlx_optional_dtype { value: 0, has_value: false },
                stream,
            )
        }
    })
}

/// Codes [.., ins * bits / 32] and scales [.., ins / group_size] of weights [.., ins], in a packing
/// that has no biases.
pub fn pack(weights: &Array, form: QuantSpec) -> Result<[Array; 2]> {
    // SAFETY: nothing is asked of the caller; the vector is freed by its owner here.
    let mut vector = Vector(unsafe { mlx_sys::mlx_vector_array_new() });
    let stream = Stream::thread_local_or_default();
    let (bits, group_size) = (some(form.bits as i32), some(form.group_size as i32));
    let mode = mode_name(form.mode).as_ptr();
    // SAFETY: all handles live as long as the call.
    let status = unsafe {
        let (weights, stream) = (weights.as_ptr(), stream.as_ptr());
        mlx_sys::mlx_quantize(&mut vector.0, weights, group_size, bits, mode, handle(None), stream)
    };
    if status != 0 {
        return Err(Exception::custom("quantize failed"));
    }
    let part = |index| {
        called("quantize", |result, _| {
            // SAFETY: as above.
            unsafe { mlx_sys::mlx_vector_array_get(result, vector.0, index) }
        })
    };
    Ok([part(0)?, part(1)?])
}

/// A list of arrays that MLX made.
struct Vector(mlx_sys::mlx_vector_array);

impl Drop for Vector {
    fn drop(&mut self) {
        // SAFETY: nobody else frees it.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

/// Runs one of MLX's operations, which returns 0 or has failed.
pub fn called(
    name: &str,
    operation: impl FnOnce(*mut mlx_sys::mlx_array, mlx_sys::mlx_stream) -> c_int,
) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    let mut result = handle(None);
    match operation(&mut result, stream.as_ptr()) {
        // SAFETY: the operation has made the handle a new array, which nobody else holds.
        0 => Ok(unsafe { Array::from_ptr(result) }),
        _ => Err(Exception::custom(format!("{name} failed"))),
    }
}

fn handle(array: Option<&Array>) -> mlx_sys::mlx_array {
    array.map_or(mlx_sys::mlx_array { ctx: ptr::null_mut() }, Array::as_ptr)
}

fn some(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int { value, has_value: true }
}

fn mode_name(mode: Mode) -> &'static CStr {
    match mode {
        Mode::Affine => c"affine",
        Mode::Mxfp4 => c"mxfp4",
        Mode::Nvfp4 => c"nvfp4",
        Mode::Mxfp8 => c"mxfp8",
    }
}
