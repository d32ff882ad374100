//! How the elements of a tensor move from their place in GGUF to that in MLX.

use crate::model::Model;

/// Where each of a number of rows comes from; the number is that of all rows.
pub type Rows = fn(&Model, usize) -> Result<Vec<usize>, String>;

/// A name in GGUF, its name in MLX, and how the elements move.
///
/// A name that holds the field too (`ssm_a`, `exp_probs_b.bias`) goes before one that leaves it open.
/// Several names in MLX, with `|` between them, are those of parts that GGUF keeps in one tensor.
#[derive(Clone, Copy)]
pub struct Name(pub &'static str, pub &'static str, pub How);

/// What is done to elements on the way.
#[derive(Clone, Copy)]
pub struct How {
    /// What each number becomes.
    pub map: Map,
    /// What the shape becomes.
    pub shape: Shape,
    /// In which order the rows come.
    pub rows: Option<Rows>,
    /// In which order the columns come.
    pub columns: Option<Rows>,
    /// True if the last two axes change places.
    pub turned: bool,
    /// Which part of a tensor it is, if MLX keeps several in one.
    pub part: Option<usize>,
    /// In which order the rows of all parts come; the first part says so.
    pub joined: Option<Rows>,
    /// The rows of each of the parts that GGUF keeps in one tensor; without them, halves of a group.
    pub split: Option<fn(&Model) -> Vec<usize>>,
}

/// What a number becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Itself.
    Same,
    /// One less: norms that MLX adds one to.
    Less,
    /// The logarithm of its opposite: decays of state spaces.
    Log,
}

/// What a shape becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Itself.
    Same,
    /// One dimension.
    Flat,
    /// Without axes of length one at the end.
    Narrow,
    /// A single row.
    Row,
    /// One more axis of length one, as MLX has channels of convolutions.
    Conv,
}

/// As it is.
pub const AS: How = How {
    map: Map::Same,
    shape: Shape::Same,
    rows: None,
    columns: None,
    turned: false,
    part: None,
    joined: None,
    split: None,
};
/// The rows of rotary pairs are taken apart.
pub const PAIRS: How = AS.rows(pairs);
/// One less.
pub const LESS: How = How { map: Map::Less, ..AS };
/// A vector, whatever its shape was.
pub const FLAT: How = How { shape: Shape::Flat, ..AS };
/// The decays of a state space.
pub const LOG: How = How { map: Map::Log, ..AS };
/// A convolution.
pub const CONV: How = How { shape: Shape::Conv, ..AS };

impl How {
    /// With the rows in an order.
    pub const fn rows(self, rows: Rows) -> How {
        How { rows: Some(rows), ..self }
    }

    /// With the columns in an order.
    pub const fn columns(self, columns: Rows) -> How {
        How { columns: Some(columns), ..self }
    }

    /// As a vector.
    pub const fn flat(self) -> How {
        How { shape: Shape::Flat, ..self }
    }

    /// Without axes of length one at the end.
    pub const fn narrow(self) -> How {
        How { shape: Shape::Narrow, ..self }
    }

    /// As a single row.
    pub const fn row(self) -> How {
        How { shape: Shape::Row, ..self }
    }

    /// With the last two axes changed.
    pub const fn turned(self) -> How {
        How { turned: true, ..self }
    }

    /// As a part of a tensor.
    pub const fn part(self, part: usize) -> How {
        How { part: Some(part), ..self }
    }

    /// As the first part of a tensor whose rows come in an order.
    pub const fn joined(self, joined: Rows) -> How {
        How { part: Some(0), joined: Some(joined), ..self }
    }

    /// Taken apart into so many rows each.
    pub const fn split(self, split: fn(&Model) -> Vec<usize>) -> How {
        How { split: Some(split), ..self }
    }
}

impl Shape {
    /// What the shape `from` becomes.
    pub fn of(self, from: &[usize]) -> Vec<usize> {
        let all = || from.iter().product();
        match self {
            Shape::Same => from.to_vec(),
            Shape::Flat => vec![all()],
            Shape::Row => vec![1, all()],
            Shape::Conv => [from, &[1]].concat(),
            Shape::Narrow => {
                let ones = from.iter().rev().take_while(|length| **length == 1).count();
                from[..(from.len() - ones).max(1)].to_vec()
            }
        }
    }
}

impl Map {
    /// What `x` becomes.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Map::Same => x,
            Map::Less => x - 1.0,
            Map::Log => (-x).ln(),
        }
    }
}

/// The rows of heads as halves, where a file keeps the two of each rotary pair together.
fn pairs(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let head = model.head;
    if !rows.is_multiple_of(head) {
        return Err(format!("{rows} rows are no whole heads of {head}"));
    }
    Ok((0..rows).map(|row| interleaved(row, head)).collect())
}

/// Where the row `row` of the usual order, halves of a head one after the other, stands in a file
/// that keeps the two of each rotary pair together. `head` is the rows of a head.
fn interleaved(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let half = head / 2;
    start + within % half * 2 + within / half
}

/// Rows of `groups` that each have some of every part, from where the parts lie one after another.
/// `sizes` are the rows of each part in a group.
pub fn dealt(groups: usize, sizes: &[usize], rows: usize) -> Result<Vec<usize>, String> {
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
    fn pairs_are_taken_apart() {
        let order: Vec<_> = (0..12).map(|row| interleaved(row, 6)).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn groups_get_some_of_every_part() {
        // Two groups of two rows a, one row b: a0 a1 a2 a3 b0 b1.
        assert_eq!(dealt(2, &[2, 1], 6).unwrap(), [0, 1, 4, 2, 3, 5]);
        assert!(dealt(2, &[2, 1], 7).is_err());
    }
}
