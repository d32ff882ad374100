//! Transforms of a tensor's elements between its layout in GGUF and that in MLX.

use crate::model::Model;

/// Order of rows or columns: the source index of each. The number given is that of all of them.
pub type Order = fn(&Model, usize) -> Result<Vec<usize>, String>;

/// Tensor name in GGUF, name in MLX, and the transform between the two.
///
/// A GGUF name with a field (`ssm_dt.bias`) takes precedence over one that leaves the field open.
/// Several MLX names, separated by `|`, are tensors that GGUF keeps as parts of one.
#[derive(Clone, Copy)]
pub struct Name(pub &'static str, pub &'static str, pub Transform);

/// Transform of a tensor's elements and shape.
#[derive(Clone, Copy)]
pub struct Transform {
    /// Function applied to each element.
    pub map: Elementwise,
    /// Change of the shape.
    pub shape: Reshape,
    /// Order of the rows.
    pub rows: Option<Order>,
    /// Order of the columns.
    pub columns: Option<Order>,
    /// True if the last two axes are swapped.
    pub transposed: bool,
    /// Index of this part, if MLX keeps several GGUF tensors in one.
    pub part: Option<usize>,
    /// Order of the rows of all parts together; set on the first part.
    pub merged: Option<Order>,
    /// Rows of each MLX tensor that GGUF keeps in one; without it, each has an equal share of every
    /// expert.
    pub split: Option<fn(&Model) -> Vec<usize>>,
}

/// Function applied to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elementwise {
    /// x
    Identity,
    /// x - 1, for norms to whose weights MLX adds one.
    MinusOne,
    /// ln(-x), for decays of state spaces (`A_log`).
    LogNegated,
}

/// Change of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reshape {
    /// No change.
    Keep,
    /// One dimension.
    Flat,
    /// Removal of trailing dimensions of length one.
    Squeeze,
    /// A matrix of one row.
    Row,
    /// A trailing dimension of length one, the channel axis of MLX's depthwise convolutions.
    Channel,
}

/// Identity transform.
pub const SAME: Transform = Transform {
    map: Elementwise::Identity,
    shape: Reshape::Keep,
    rows: None,
    columns: None,
    transposed: false,
    part: None,
    merged: None,
    split: None,
};
/// Rows of heads from interleaved rotary pairs to halves.
pub const PAIRS: Transform = SAME.rows(deinterleaved);
/// Elements minus one.
pub const MINUS_ONE: Transform = Transform { map: Elementwise::MinusOne, ..SAME };
/// Vector of all elements.
pub const FLAT: Transform = Transform { shape: Reshape::Flat, ..SAME };
/// Logarithm of the negated elements.
pub const LOG: Transform = Transform { map: Elementwise::LogNegated, ..SAME };
/// Weight of a depthwise convolution.
pub const CONV: Transform = Transform { shape: Reshape::Channel, ..SAME };

impl Transform {
    /// Transform that also reorders rows.
    pub const fn rows(self, rows: Order) -> Transform {
        Transform { rows: Some(rows), ..self }
    }

    /// Transform that also reorders columns.
    pub const fn columns(self, columns: Order) -> Transform {
        Transform { columns: Some(columns), ..self }
    }

    /// Transform into a vector.
    pub const fn flat(self) -> Transform {
        Transform { shape: Reshape::Flat, ..self }
    }

    /// Transform that also removes trailing dimensions of length one.
    pub const fn squeezed(self) -> Transform {
        Transform { shape: Reshape::Squeeze, ..self }
    }

    /// Transform into a matrix of one row.
    pub const fn row(self) -> Transform {
        Transform { shape: Reshape::Row, ..self }
    }

    /// Transform that also swaps the last two axes.
    pub const fn transposed(self) -> Transform {
        Transform { transposed: true, ..self }
    }

    /// Transform into part number `part` of a tensor.
    pub const fn part(self, part: usize) -> Transform {
        Transform { part: Some(part), ..self }
    }

    /// Transform into the first part of a tensor whose rows are then reordered by `order`.
    pub const fn merged(self, order: Order) -> Transform {
        Transform { part: Some(0), merged: Some(order), ..self }
    }

    /// Transform into several tensors, with the numbers of rows that `split` gives.
    pub const fn split(self, split: fn(&Model) -> Vec<usize>) -> Transform {
        Transform { split: Some(split), ..self }
    }
}

impl Reshape {
    /// The new shape of a tensor of the shape `from`.
    pub fn apply(self, from: &[usize]) -> Vec<usize> {
        let all = || from.iter().product();
        match self {
            Reshape::Keep => from.to_vec(),
            Reshape::Flat => vec![all()],
            Reshape::Row => vec![1, all()],
            Reshape::Channel => [from, &[1]].concat(),
            Reshape::Squeeze => {
                let ones = from.iter().rev().take_while(|length| **length == 1).count();
                from[..(from.len() - ones).max(1)].to_vec()
            }
        }
    }
}

impl Elementwise {
    /// The function's value at `x`.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Elementwise::Identity => x,
            Elementwise::MinusOne => x - 1.0,
            Elementwise::LogNegated => (-x).ln(),
        }
    }
}

/// Order of rows that turns interleaved rotary pairs into halves, head by head.
fn deinterleaved(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let head = model.head;
    if !rows.is_multiple_of(head) {
        return Err(format!("{rows} rows are no whole heads of {head}"));
    }
    Ok((0..rows).map(|row| interleaved_row(row, head)).collect())
}

/// Row of a file with interleaved rotary pairs that is row `row` in the layout of halves; a head
/// has `head` rows.
fn interleaved_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let half = head / 2;
    start + within % half * 2 + within / half
}

/// Order of rows that collects, for each of `groups` groups, its rows of every part, where the file
/// has the parts one after another; `sizes` are the rows of each part in a group.
pub fn grouped(groups: usize, sizes: &[usize], rows: usize) -> Result<Vec<usize>, String> {
    let group: usize = sizes.iter().sum();
    if group.checked_mul(groups) != Some(rows) {
        return Err(format!("{rows} rows are not {groups} times {sizes:?}"));
    }
    let mut order = Vec::with_capacity(rows);
    for g in 0..groups {
        let mut start = 0;
        for size in sizes {
            order.extend((0..*size).map(|row| start + g * size + row));
            start += size * groups;
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_pairs_are_deinterleaved() {
        let order: Vec<_> = (0..12).map(|row| interleaved_row(row, 6)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn groups_collect_their_rows_of_every_part() {
        // Two groups of two rows a and one row b: a0 a1 a2 a3 b0 b1.
        assert_eq!(grouped(2, &[2, 1], 6).unwrap(), [0, 1, 4, 2, 3, 5]);
        assert!(grouped(2, &[2, 1], 7).is_err());
    }
}
