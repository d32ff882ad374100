//! Where the keys or the values of tokens lie, with room behind them for more.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::{concatenate, dequantize, quantize, zeros_dtype};

use crate::array::elements;
use crate::mlx;

/// How keys and values are quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packing {
    /// Bits of an element.
    pub bits: i32,
    /// Elements of a head that share a scale.
    pub group_size: i32,
    /// How long a text is when it begins.
    pub start: i32,
}

/// Keys or values: an array [1, heads, room, head size], or codes, scales and biases.
#[derive(Clone)]
pub struct Buffer(Vec<Array>, Option<Packing>);

impl Buffer {
    /// Those of `x` [1, heads, n, head size].
    pub fn of(x: &Array, packing: Option<Packing>) -> Result<Buffer> {
        let mut buffer = Buffer(vec![x.clone()], None);
        if let Some(packing) = packing {
            buffer.pack(packing)?;
        }
        Ok(buffer)
    }

    /// Its arrays.
    pub fn arrays(&self) -> &[Array] {
        &self.0
    }

    /// The same, to be replaced.
    pub fn arrays_mut(&mut self) -> &mut [Array] {
        &mut self.0
    }

    /// Quantises what is not yet.
    pub fn pack(&mut self, packing: Packing) -> Result<()> {
        let Packing { bits, group_size, .. } = packing;
        if self.1.is_some() {
            return Ok(());
        }
        if let [x] = self.0.as_slice() {
            if x.dim(-1) % group_size != 0 {
                let size = x.dim(-1);
                let why = format!("heads of {size} cannot be quantised in groups of {group_size}");
                return Err(Exception::custom(why));
            }
            let (codes, scales, biases) = quantize(x, group_size, bits)?;
            *self = Buffer(vec![codes, scales, biases], Some(packing));
        }
        Ok(())
    }

    /// Tokens that there is room for.
    pub fn room(&self) -> i32 {
        self.0[0].dim(-2)
    }

    /// The array with all its room.
    pub fn all(&self) -> Result<Array> {
        self.unpacked(self.0.clone())
    }

    /// Those of the tokens in `range`.
    pub fn rows(&self, range: Range<i32>) -> Result<Array> {
        let rows = self.0.iter().map(|array| mlx::rows(array, range.clone()));
        self.unpacked(rows.collect::<Result<_>>()?)
    }

    /// Puts `new`, of the same form, in the place of the tokens in `range`.
    pub fn set_rows(&mut self, range: Range<i32>, new: &Buffer) -> Result<()> {
        self.0.iter_mut().zip(&new.0).try_for_each(|(a, new)| mlx::set_rows(a, range.clone(), new))
    }

    /// Writes `new` at the token `first`, in place; neither is quantised.
    ///
    /// # Safety
    /// Nobody else may read or write the elements of this one.
    pub unsafe fn write_rows(&self, first: usize, new: &Buffer) -> Result<()> {
        let (to, new) = (&self.0[0], &new.0[0]);
        let (there, rows) = (elements(to)?.len(), elements(new)?);
        // SAFETY: it was evaluated just now.
        let data = unsafe { mlx_sys::mlx_array_data_float32(to.as_ptr()) }.cast_mut();
        let [head, own] = [to, new].map(|array| (array.dim(2) * array.dim(3)) as usize);
        let start = first * to.dim(3) as usize;
        for (n, rows) in rows.chunks_exact(own).enumerate() {
            assert!(n * head + start + own <= there);
            // SAFETY: the elements are there, and nobody else's, as the caller promises.
            unsafe { data.add(n * head + start).copy_from_nonoverlapping(rows.as_ptr(), own) };
        }
        Ok(())
    }

    /// Some parts of it, with room for `added` more tokens.
    pub fn grown(&self, parts: &[Range<i32>], added: i32) -> Result<Buffer> {
        let grown = |array: &Array| {
            let mut shape = array.shape().to_vec();
            shape[2] = added;
            let parts = parts.iter().filter(|part| !part.is_empty());
            let mut parts: Vec<Array> =
                parts.map(|part| mlx::rows(array, part.clone())).collect::<Result<_>>()?;
            parts.push(zeros_dtype(&shape, array.dtype())?);
            concatenate(&parts, 2)
        };
        Ok(Buffer(self.0.iter().map(grown).collect::<Result<_>>()?, self.1))
    }

    fn unpacked(&self, arrays: Vec<Array>) -> Result<Array> {
        match (arrays.as_slice(), self.1) {
            ([codes, scales, biases], Some(Packing { bits, group_size, .. })) => {
                dequantize(codes, scales, biases, group_size, bits)
            }
            (arrays, _) => Ok(arrays[0].clone()),
        }
    }
}
