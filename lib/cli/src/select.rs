//! Which models of a listing, and in which order.

mod grammar;

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use mlxk_core::Record;
use serde_json::Value;

/// A model of a listing: its record, and what can be asked of it besides.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What `mlxk-ls` says of it.
    pub record: Record,
    /// When it was last changed.
    pub modified: Option<SystemTime>,
    /// When a file of it was last read.
    pub accessed: Option<SystemTime>,
    /// The branches and tags that point to it.
    pub refs: Vec<String>,
    /// Bits a weight, if it is quantised.
    pub bits: Option<u64>,
}

/// A condition on a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// A quantity: bytes or bits.
    Number(Quantity, Op, u64),
    /// How long ago something was.
    Age(Event, Op, Duration),
    /// A word that the model has, or (false) has not.
    Word(Attribute, bool, String),
}

/// The quantities of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // named like the keys
pub enum Quantity {
    Size,
    Bits,
}

/// The moments of a model's life.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // named like the keys
pub enum Event {
    Accessed,
    Modified,
}

/// The attributes of a model that are words.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // named like the keys
pub enum Attribute {
    Type,
    Framework,
    Health,
    Capability,
    Runnable,
    Refs,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the symbols are in `Filter::from_str`
pub enum Op {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Op {
    fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Op::Equal => left == right,
            Op::Unequal => left != right,
            Op::Less => left < right,
            Op::AtMost => left <= right,
            Op::More => left > right,
            Op::AtLeast => left >= right,
        }
    }
}

impl Filter {
    /// Whether `model` fulfils the condition at the time `now`. What it does not have, it is not:
    /// a model without quantisation has no bits to compare.
    pub fn accepts(&self, model: &Entry, now: SystemTime) -> bool {
        match self {
            Filter::Number(quantity, op, wanted) => {
                let value = match quantity {
                    Quantity::Size => model.record.get("size_bytes").and_then(Value::as_u64),
                    Quantity::Bits => model.bits,
                };
                value.is_some_and(|value| op.holds(value, *wanted))
            }
            Filter::Age(event, op, wanted) => {
                // What lies in the future is as new as can be.
                let age = event.of(model).map(|t| now.duration_since(t).unwrap_or(Duration::ZERO));
                age.is_some_and(|age| op.holds(age, *wanted))
            }
            Filter::Word(attribute, equal, word) => attribute.has(model, word) == *equal,
        }
    }
}

impl Filter {
    /// Whether the condition is on when models were read.
    pub fn asks_access(&self) -> bool {
        matches!(self, Filter::Age(Event::Accessed, ..))
    }

    /// Whether the condition is on branches and tags.
    pub fn asks_refs(&self) -> bool {
        matches!(self, Filter::Word(Attribute::Refs, ..))
    }
}

impl Event {
    fn of(self, model: &Entry) -> Option<SystemTime> {
        match self {
            Event::Accessed => model.accessed,
            Event::Modified => model.modified,
        }
    }
}

impl Attribute {
    fn has(self, model: &Entry, word: &str) -> bool {
        let is =
            |key: &str| model.record.str(key).is_some_and(|value| value.eq_ignore_ascii_case(word));
        match self {
            Attribute::Type => is("model_type"),
            Attribute::Framework => is("framework"),
            Attribute::Health => is("health"),
            Attribute::Refs => model.refs.iter().any(|name| name == word),
            Attribute::Runnable => {
                let runnable = model.record.get("runtime_compatible") == Some(&Value::Bool(true));
                runnable == (word == "yes")
            }
            Attribute::Capability => match model.record.get("capabilities") {
                Some(Value::Array(all)) => all.iter().any(|capability| capability == word),
                _ => false,
            },
        }
    }
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sort {
    key: SortKey,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SortKey {
    Name,
    Size,
    Moment(Event),
}

impl Sort {
    /// Brings `models` into the order; equal ones keep theirs.
    pub fn apply(self, models: &mut [Entry]) {
        fn by<K: Ord>(models: &mut [Entry], down: bool, key: impl Fn(&Entry) -> K) {
            match down {
                true => models.sort_by_key(|model| Reverse(key(model))),
                false => models.sort_by_key(key),
            }
        }
        match self.key {
            SortKey::Name => {
                by(models, self.descending, |m| m.record.str("name").map(str::to_owned))
            }
            SortKey::Size => {
                by(models, self.descending, |m| m.record.get("size_bytes").and_then(Value::as_u64))
            }
            SortKey::Moment(event) => by(models, self.descending, |m| event.of(m)),
        }
    }

    /// Whether the order depends on when models were read.
    pub fn asks_access(self) -> bool {
        self.key == SortKey::Moment(Event::Accessed)
    }
}
