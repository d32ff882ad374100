//! Buffer of the keys or the values of tokens, with room behind them for more.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::{concatenate, dequantize, quantize, zeros_dtype};

use crate::array::elements;
use crate::mlx;

/// Quantisation of keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packing {
    /// Bits of an element: 2, 3, 4, 5, 6 or 8.
    pub bits: i32,
    /// Elements of a head that share a scale: 32, 64 or 128.
    pub group_size: i32,
    /// Length of a sequence, in tokens, from which on it is quantised.
    pub start: i32,
}

/// Shape of the keys or the values of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vectors {
    heads: u64,
    /// Elements of a head.
    size: u64,
    /// Bytes of an element that is not quantised, and of a scale.
    float: u64,
}

impl Vectors {
    /// Bytes of a token.
    pub fn bytes(&self, packing: Option<Packing>) -> u64 {
        let Vectors { heads, size, float } = *self;
        heads
            * match packing {
                None => size * float,
                Some(Packing { bits, group_size, .. }) => {
                    size * bits as u64 / 8 + size / group_size as u64 * 2 * float
                }
            }
    }
}

/// Keys or values: an array [1, heads, room, head size], or codes, scales and biases.
#[derive(Clone)]
pub struct Buffer(Vec<Array>, Option<Packing>);

impl Buffer {
    /// Buffer of the keys or values `x` [1, heads, n, head size], without room for more.
    pub fn of(x: &Array, packing: Option<Packing>) -> Result<Buffer> {
        let mut buffer = Buffer(vec![x.clone()], None);
        if let Some(packing) = packing {
            buffer.pack(packing)?;
        }
        Ok(buffer)
    }

    /// Arrays of the buffer.
    pub fn arrays(&self) -> &[Array] {
        &self.0
    }

    /// Arrays of the buffer, to be replaced.
    pub fn arrays_mut(&mut self) -> &mut [Array] {
        &mut self.0
    }

    /// Quantises the buffer, if it is not quantised yet.
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

    /// Shape of a token.
    pub fn vectors(&self) -> Vectors {
        let size = match self.1 {
            None => self.0[0].dim(-1),
            Some(Packing { bits, .. }) => self.0[0].dim(-1) * 32 / bits,
        };
        let float = self.0[self.0.len() - 1].item_size() as u64;
        Vectors { heads: self.0[0].dim(1) as u64, size: size as u64, float }
    }

    /// Number of tokens that there is room for.
    pub fn room(&self) -> i32 {
        self.0[0].dim(-2)
    }

    /// Keys or values [1, heads, room, head size].
    pub fn all(&self) -> Result<Array> {
        self.unpacked(self.0.clone())
    }

    /// Keys or values of the tokens in `range`.
    pub fn rows(&self, range: Range<i32>) -> Result<Array> {
        let rows = self.0.iter().map(|array| mlx::rows(array, range.clone()));
        self.unpacked(rows.collect::<Result<_>>()?)
    }

    /// Puts `new`, quantised alike, in the place of the tokens in `range`.
    pub fn set_rows(&mut self, range: Range<i32>, new: &Buffer) -> Result<()> {
        self.0.iter_mut().zip(&new.0).try_for_each(|(a, new)| mlx::set_rows(a, range.clone(), new))
    }

    /// Writes `new` at the token `first`, in place; neither is quantised.
    ///
    /// # Safety
    /// Nobody else may read or write the elements of this buffer.
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

    /// Buffer of the tokens in `parts`, with room for `added` more.
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
