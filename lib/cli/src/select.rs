//! Filters and sort orders of a listing of models.

mod grammar;

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use mlxk_core::Record;
use serde_json::Value;

/// A model of a listing: its record, and further properties that filters and orders use.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Record that `mlxk-ls` writes.
    pub record: Record,
    /// Revision of a cached model: the name of its snapshot.
    pub revision: Option<String>,
    /// Time of the last modification.
    pub modified: Option<SystemTime>,
    /// Time when a file of the model was last read.
    pub accessed: Option<SystemTime>,
    /// Branches and tags that point to the revision.
    pub refs: Vec<String>,
    /// Bits per weight of a quantised model.
    pub bits: Option<u64>,
}

/// A condition on a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Comparison of a quantity, in bytes or bits.
    Number(Quantity, Op, u64),
    /// Comparison of the age of an event.
    Age(Event, Op, Duration),
    /// Attribute that is equal to the word (true) or differs from it (false).
    Word(Attribute, bool, String),
}

/// The quantities of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // named like the keys
pub enum Quantity {
    Size,
    Bits,
}

/// Events that have a time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // named like the keys
pub enum Event {
    Accessed,
    Modified,
}

/// Attributes of a model whose values are words.
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
    /// True if `model` fulfils the condition at time `now`. A comparison with an absent quantity or
    /// time is false: an unquantised model has no bits to compare.
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
                // A time in the future has age 0.
                let age = event.of(model).map(|t| now.duration_since(t).unwrap_or(Duration::ZERO));
                age.is_some_and(|age| op.holds(age, *wanted))
            }
            Filter::Word(attribute, equal, word) => attribute.has(model, word) == *equal,
        }
    }
}

impl Filter {
    /// True if the condition needs access times.
    pub fn asks_access(&self) -> bool {
        matches!(self, Filter::Age(Event::Accessed, ..))
    }

    /// True if the condition needs branches and tags.
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
    /// Sorts `models`; the sort is stable.
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

    /// True if the order needs access times.
    pub fn asks_access(self) -> bool {
        self.key == SortKey::Moment(Event::Accessed)
    }
}
