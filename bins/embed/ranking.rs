//! The best of any number of records, by their scores.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use mlxk_cli::output::terminal_width;
use mlxk_cli::table::{Column, render};
use mlxk_cli::{Form, Output};
use mlxk_core::{Error, Record, Result};
use serde_json::{Value, json};

use super::encoding::number;
use super::input::FIELDS;

/// The best records so far. Memory is that of as many as are wanted.
pub struct Ranking {
    top: usize,
    threshold: Option<f32>,
    /// The worst is first.
    best: BinaryHeap<Reverse<Ranked>>,
    seen: usize,
}

/// A record with its score.
struct Ranked {
    score: f32,
    /// Number of records before it; the earlier of two with the same score is the better one.
    number: usize,
    record: Record,
}

impl Ranking {
    /// Ranking of the `top` best records whose scores are not below `threshold`.
    pub fn new(top: usize, threshold: Option<f32>) -> Ranking {
        Ranking { top, threshold, best: BinaryHeap::new(), seen: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If the score is not finite.
    pub fn add(&mut self, score: f32, record: Record) -> Result<()> {
        if !score.is_finite() {
            return Err(Error::validation("the score is not finite"));
        }
        let number = self.seen;
        self.seen += 1;
        if self.threshold.is_some_and(|least| score < least) {
            return Ok(());
        }
        let ranked = Ranked { score, number, record };
        if self.best.len() < self.top {
            self.best.push(Reverse(ranked));
        } else if let Some(mut worst) = self.best.peek_mut().filter(|worst| ranked > worst.0) {
            *worst = Reverse(ranked);
        }
        Ok(())
    }

    /// Writes the records, best first, with their scores. The run fails if there
    /// are none. Text for people shows the field `field` of each.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(self, field: Option<&str>, out: &mut Output) -> Result<()> {
        if self.best.is_empty() {
            out.deny();
        }
        // Sorted in reverse of the reversed order: best first.
        let ranked = self.best.into_sorted_vec();
        let records = ranked
            .into_iter()
            .map(|Reverse(Ranked { score, record, .. })| record.with("score", number(score)));
        match out.form {
            Form::Ndjson => out.lines(&records.collect::<Vec<_>>()),
            Form::Json => {
                out.envelope(json!({"records": records.map(Value::from).collect::<Vec<_>>()}))
            }
            Form::Human => {
                let rows: Vec<_> = records.map(|record| row(&record, field)).collect();
                match rows.is_empty() {
                    true => Ok(()),
                    false => out.prose(&render(&COLUMNS, &rows, terminal_width())),
                }
            }
        }
    }
}

const COLUMNS: [Column; 2] = [
    Column { title: "Score", least: None, rank: None },
    Column { title: "Text", least: Some(20), rank: None },
];

/// Cells of a record: its score and its text, in one line.
fn row(record: &Record, field: Option<&str>) -> Vec<String> {
    let score = record.get("score").and_then(Value::as_f64).unwrap_or_default();
    let text = match field {
        Some(field) => record.str(field),
        None => FIELDS.iter().find_map(|field| record.str(field)),
    };
    let words: Vec<&str> = text.unwrap_or_default().split_whitespace().collect();
    vec![format!("{score:.4}"), words.join(" ")]
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.number.cmp(&self.number))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
