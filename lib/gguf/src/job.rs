//! How the bytes of a tensor are made from those of the file.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use mlxk_core::Float;
use rayon::prelude::*;

use crate::affine::{self, GROUP, Part};
use crate::architecture::Map;
use crate::dequant::dequantize;
use crate::dtype::Type;
use crate::read::Tensor;

/// Bytes that are made at a time.
const PART: usize = 4 << 20;

/// A tensor to be made.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// What it is made of: rows one after another.
    pub pieces: Vec<Piece<'a>>,
    /// In which order the rows of all pieces come.
    pub joined: Option<Vec<usize>>,
    /// In which order the columns come.
    pub columns: Option<Vec<usize>>,
    map: Map,
    made: Made,
    number: f32,
}

/// Rows of a tensor of the file.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Its shape, as it is taken.
    pub shape: Vec<usize>,
    tensor: Tensor<'a>,
    order: Option<Vec<usize>>,
    turned: bool,
}

/// What is made.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// Numbers of the type they have.
    Kept,
    /// Numbers of another type.
    Cast(Float),
    /// A part of a packed matrix.
    Part(Part),
    /// A number that the metadata has.
    Number(Float),
}

impl<'a> Piece<'a> {
    /// All rows of `tensor`, with its last two axes changed if it is `turned`.
    pub fn new(tensor: Tensor<'a>, turned: bool) -> Result<Piece<'a>, String> {
        let mut shape = tensor.shape.clone();
        if turned {
            let axes = shape.len();
            if axes < 2 {
                return Err("a vector cannot be turned".into());
            }
            shape.swap(axes - 1, axes - 2);
        }
        Ok(Piece { tensor, order: None, turned, shape })
    }

    /// The same with other rows.
    pub fn with(&self, order: Option<Vec<usize>>) -> Piece<'a> {
        Piece { order, ..self.clone() }
    }

    /// How many rows are taken; those of a vector are its elements.
    pub fn rows(&self) -> usize {
        let all = || self.shape.iter().product::<usize>() / self.width();
        self.order.as_ref().map_or_else(all, Vec::len)
    }

    /// The length of a row.
    pub fn width(&self) -> usize {
        match self.shape[..] {
            [] | [_] => 1,
            [.., last] => last,
        }
    }

    /// The numbers of a turned tensor, in its new order.
    fn turned(&self) -> Option<Vec<f32>> {
        let [.., columns, rows] = self.shape[..] else { return None };
        if !self.turned {
            return None;
        }
        let count = self.tensor.shape.iter().product();
        let mut all = vec![0.0; count];
        dequantize(self.tensor.dtype, self.tensor.data, &mut all);
        let mut out = Vec::with_capacity(count);
        for matrix in all.chunks_exact(rows * columns) {
            for column in 0..columns {
                out.extend((0..rows).map(|row| matrix[row * columns + column]));
            }
        }
        Some(out)
    }
}

impl<'a> Job<'a> {
    /// What is made of `pieces`. Errors if their rows differ in length.
    pub fn new(pieces: Vec<Piece<'a>>, map: Map) -> Result<Job<'a>, String> {
        let uneven = pieces.windows(2).any(|pair| pair[0].width() != pair[1].width());
        if uneven {
            return Err("its parts have rows of different lengths".into());
        }
        Ok(Job { pieces, joined: None, columns: None, map, made: Made::Kept, number: 0.0 })
    }

    /// A single number.
    pub fn number(number: f32, float: Float) -> Job<'a> {
        let made = Made::Number(float);
        Job { pieces: Vec::new(), joined: None, columns: None, map: Map::Same, made, number }
    }

    /// The same with another outcome.
    pub fn made(self, made: Made) -> Job<'a> {
        Job { made, ..self }
    }

    /// The name of the first tensor that it is made of.
    pub fn name(&self) -> &'a str {
        self.pieces.first().map_or("", |piece| piece.tensor.name)
    }

    /// The rows of all pieces.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::rows).sum()
    }

    /// The length of a row.
    pub fn width(&self) -> usize {
        self.pieces.first().map_or(1, Piece::width)
    }

    /// The type that all pieces have, if they agree.
    pub fn dtype(&self) -> Option<Type> {
        let first = self.pieces.first()?.tensor.dtype;
        self.pieces.iter().all(|piece| piece.tensor.dtype == first).then_some(first)
    }

    /// Whether a piece consists of blocks.
    pub fn is_packed(&self) -> bool {
        self.pieces.iter().any(|piece| !piece.tensor.dtype.is_float())
    }

    /// Whether columns move in whole blocks of `dtype`, if they move.
    pub fn is_blockwise(&self, dtype: Type) -> bool {
        let whole = |block: &[usize]| {
            let first = block[0];
            first.is_multiple_of(dtype.block())
                && block.iter().enumerate().all(|(i, column)| *column == first + i)
        };
        self.columns.as_ref().is_none_or(|columns| columns.chunks(dtype.block()).all(whole))
    }

    /// All rows, in ranges that take little memory each; as one where they are not apart in the file.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.rows();
        let whole = rows == 0 || self.pieces.iter().any(|piece| piece.turned);
        let each = if whole { rows.max(1) } else { (PART / self.row()).max(1) };
        (0..rows.max(1)).step_by(each).map(move |start| start..rows.min(start + each))
    }

    /// The bytes of these rows.
    ///
    /// # Errors
    /// A phrase, if a number does not fit its type.
    pub fn bytes(&self, rows: Range<usize>) -> Result<Cow<'a, [u8]>, String> {
        if let Made::Number(float) = self.made {
            let mut out = vec![0; float.bytes()];
            cast(&[self.number], float, &mut out)?;
            return Ok(out.into());
        }
        let size = self.row();
        if let (Made::Kept, [piece], None, None) =
            (self.made, &self.pieces[..], &self.joined, &self.columns)
            && piece.order.is_none()
        {
            return Ok(Cow::Borrowed(&piece.tensor.data[rows.start * size..rows.end * size]));
        }
        let turned: Vec<_> = self.pieces.iter().map(Piece::turned).collect();
        let mut out = vec![0; rows.len() * size];
        out.par_chunks_mut(size).enumerate().with_min_len(32).try_for_each(|(row, out)| {
            let (piece, row) = self.source(rows.start + row);
            match &turned[piece] {
                Some(numbers) => {
                    let width = self.width();
                    self.numbers(numbers[row * width..][..width].to_vec(), out)
                }
                None => self.fill(&self.pieces[piece], row, out),
            }
        })?;
        Ok(out.into())
    }

    /// The piece that a row comes from, and which of its rows it is.
    fn source(&self, row: usize) -> (usize, usize) {
        let mut row = self.joined.as_ref().map_or(row, |order| order[row]);
        for (number, piece) in self.pieces.iter().enumerate() {
            match row.checked_sub(piece.rows()) {
                Some(rest) => row = rest,
                None => return (number, piece.order.as_ref().map_or(row, |order| order[row])),
            }
        }
        unreachable!("an order is one of the rows there are")
    }

    /// The bytes of a row as it is written.
    fn row(&self) -> usize {
        let width = self.width();
        let dtype = self.pieces[0].tensor.dtype;
        match self.made {
            Made::Kept => width * dtype.bytes(),
            Made::Cast(float) | Made::Number(float) => width * float.bytes(),
            Made::Part(Part::Codes) => width * affine::bits(dtype).unwrap_or(4) / 8,
            Made::Part(_) if dtype == Type::MXFP4 => width / GROUP,
            Made::Part(_) => width / GROUP * 2,
        }
    }

    fn fill(&self, piece: &Piece, row: usize, out: &mut [u8]) -> Result<(), String> {
        let (dtype, width) = (piece.tensor.dtype, self.width());
        let size = width / dtype.block() * dtype.bytes();
        let from = &piece.tensor.data[row * size..][..size];
        match self.made {
            Made::Cast(_) | Made::Number(_) => {
                let mut numbers = vec![0.0; width];
                dequantize(dtype, from, &mut numbers);
                self.numbers(numbers, out)?;
            }
            Made::Kept => out.copy_from_slice(&self.blocks(dtype, from)),
            Made::Part(part) => affine::repack(dtype, part, &self.blocks(dtype, from), out)?,
        }
        Ok(())
    }

    /// The blocks of a row with its columns in order.
    fn blocks<'b>(&self, dtype: Type, row: &'b [u8]) -> Cow<'b, [u8]> {
        let Some(columns) = &self.columns else { return Cow::Borrowed(row) };
        let block =
            |columns: &[usize]| &row[columns[0] / dtype.block() * dtype.bytes()..][..dtype.bytes()];
        columns.chunks(dtype.block()).map(block).collect::<Vec<_>>().concat().into()
    }

    /// Writes the numbers of a row, mapped and with columns in order.
    fn numbers(&self, mut numbers: Vec<f32>, out: &mut [u8]) -> Result<(), String> {
        if let Some(columns) = &self.columns {
            numbers = columns.iter().map(|column| numbers[*column]).collect();
        }
        numbers.iter_mut().for_each(|x| *x = self.map.apply(*x));
        match self.made {
            Made::Cast(float) => cast(&numbers, float, out),
            _ => Ok(()),
        }
    }
}

fn cast(numbers: &[f32], float: Float, out: &mut [u8]) -> Result<(), String> {
    let pairs = numbers.iter().zip(out.chunks_exact_mut(float.bytes()));
    match float {
        Float::F32 => pairs.for_each(|(x, out)| out.copy_from_slice(&x.to_le_bytes())),
        Float::BF16 => {
            pairs.for_each(|(x, out)| out.copy_from_slice(&bf16::from_f32(*x).to_le_bytes()));
        }
        Float::F16 => {
            for (x, out) in pairs {
                let half = f16::from_f32(*x);
                if half.is_infinite() && x.is_finite() {
                    return Err(format!("{x} does not fit f16, but bf16 and f32"));
                }
                out.copy_from_slice(&half.to_le_bytes());
            }
        }
    }
    Ok(())
}
