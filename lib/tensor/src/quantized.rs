//! MLX's operations on quantised weights in every mode; mlx-rs exposes affine mode only.

use std::ffi::{CStr, c_int};
use std::ptr;

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Stream};
use mlxk_core::quantization::{Mode, QuantSpec};

use crate::weight::Quantized;

/// Linear layer `x W.T`: `x` [.., ins] to [.., outs].
pub fn linear(w: &Quantized, x: &Array) -> Result<Array> {
    matmul(w, x, true)
}

/// Matrix product `x W.T` if `transposed`, else `x W`. Leading axes of `w` are batch axes.
pub fn matmul(w: &Quantized, x: &Array, transposed: bool) -> Result<Array> {
    call("quantized_matmul", |result, stream| {
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

/// Linear layer with a weight chosen for each row: `x` [.., 1, ins] and `ids` [..] to [.., 1,
/// outs]. `sorted` promises that `ids` ascend, which is faster for many rows; the result is wrong
/// if they do not.
pub fn gather_matmul(w: &Quantized, x: &Array, ids: &Array, sorted: bool) -> Result<Array> {
    call("gather_qmm", |result, stream| {
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

/// Embedding lookup: rows `ids` [..] of the weights, as [.., ins].
pub fn embedding(w: &Quantized, ids: &Array) -> Result<Array> {
    let [weight, scales] = [&w.weight, &w.scales].map(|all| all.take_axis(ids, 0));
    let biases = w.biases.as_ref().map(|all| all.take_axis(ids, 0)).transpose()?;
    let (bits, group_size) = (w.bits as usize, w.group_size as usize);
    dequantize(&weight?, &scales?, biases.as_ref(), QuantSpec { mode: w.mode, bits, group_size })
}

/// Dequantised weights [.., ins] of codes [.., ins * bits / 32], scales and biases [.., ins /
/// group_size].
pub fn dequantize(
    weight: &Array,
    scales: &Array,
    biases: Option<&Array>,
    form: QuantSpec,
) -> Result<Array> {
    call("dequantize", |result, stream| {
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

/// Quantises weights [.., ins] in a mode without biases: codes [.., ins * bits / 32] and scales
/// [.., ins / group_size].
pub fn quantize(weights: &Array, form: QuantSpec) -> Result<[Array; 2]> {
    // SAFETY: the call has no preconditions; `Vector` frees the vector.
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
        call("quantize", |result, _| {
            // SAFETY: as above.
            unsafe { mlx_sys::mlx_vector_array_get(result, vector.0, index) }
        })
    };
    Ok([part(0)?, part(1)?])
}

/// Vector of arrays, owned.
struct Vector(mlx_sys::mlx_vector_array);

impl Drop for Vector {
    fn drop(&mut self) {
        // SAFETY: nobody else frees it.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

/// Result of an MLX C operation, which writes it to the given handle. Errors if the operation
/// returns another status than 0; `name` names it in the message.
pub fn call(
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

/// C handle of an array; a null handle for `None`.
fn handle(array: Option<&Array>) -> mlx_sys::mlx_array {
    array.map_or(mlx_sys::mlx_array { ctx: ptr::null_mut() }, Array::as_ptr)
}

/// Optional integer of the C API, present.
fn some(value: i32) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int { value, has_value: true }
}

/// Name of a mode in the C API.
fn mode_name(mode: Mode) -> &'static CStr {
    match mode {
        Mode::Affine => c"affine",
        Mode::Mxfp4 => c"mxfp4",
        Mode::Nvfp4 => c"nvfp4",
        Mode::Mxfp8 => c"mxfp8",
    }
}
