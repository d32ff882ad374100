//! Work of filters, methods and operators, in a template's fuel.
//!
//! minijinja charges for values that are made and for the text that a filter is given. What else an
//! operation goes through is charged here before it begins, as is what it makes on the way.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Object, Value, ValueKind};
use minijinja::{ErrorKind, State};

use super::values::{Generator, MAX_DEPTH, Result, Type, View, type_of};
use crate::cancel::Cancel;

/// Name of the variable that holds a [`Brake`].
pub const BRAKE: &str = "__brake__";

/// Units of work that are worth one fuel: a value has one, and one more for each level above it.
const UNITS: u64 = 4;

/// Size of a part of a text that is split, in bytes: its place and its value.
const PART: usize = 64;

/// Bytes of text that are worth one unit.
const BYTES: u64 = 16;

/// Odd number whose products have evenly spread highest bits (2^64 over the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Filters and operators that go through no values, or charge for them.
const SIMPLE: [&str; 14] = [
    "__attribute__",
    "__compare__",
    "__is__",
    "__is_not__",
    "__item__",
    "__print__",
    "__variadic__",
    "attr",
    "count",
    "d",
    "default",
    "first",
    "last",
    "length",
];

/// Filters and operators that go through the items of a list, and no deeper.
const SHALLOW: [&str; 10] = [
    "__add__",
    "__iterable__",
    "__mul__",
    "__row__",
    "__slice__",
    "batch",
    "items",
    "list",
    "reverse",
    "slice",
];

/// Filters that compare items with each other.
const SORTING: [&str; 3] = ["dictsort", "groupby", "sort"];

/// Filters that take the path of an attribute.
const PATHS: [&str; 12] = [
    "groupby",
    "join",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "select",
    "selectattr",
    "sort",
    "sum",
    "unique",
];

/// Methods that go through values deeper than their items.
const DEEP_METHODS: [&str; 5] = ["count", "format", "format_map", "index", "join"];

/// Request to end a rendering, as a value of the template.
#[derive(Debug)]
pub struct Brake(pub Arc<Cancel>);

impl Object for Brake {
    fn render(self: &Arc<Self>, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }
}

/// Charges for a filter or operator before it goes through `values`, its arguments.
///
/// # Errors
/// If the fuel does not suffice.
pub fn charge(state: &State, name: &str, values: &[Value]) -> Result<()> {
    if SIMPLE.contains(&name) {
        return glance_at_brake(state);
    }
    heed_brake(state)?;
    let mut times = 1;
    if SORTING.contains(&name) {
        times += values[0].len().map_or(0, |count| u64::from((count + 1).ilog2()));
    }
    if PATHS.contains(&name) {
        let parts = values[1..].iter().filter_map(Value::as_str);
        times *= parts.map(|text| text.matches(['.', ',']).count() as u64).sum::<u64>() + 1;
    }
    let depth = if SHALLOW.contains(&name) { 1 } else { MAX_DEPTH };
    charge_values(state, values, depth, times)
}

/// Charges for a method before it goes through its value and `args`, and checks that there is fuel
/// for the parts of a text that it splits.
///
/// # Errors
/// If the fuel does not suffice.
pub fn charge_method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<()> {
    heed_brake(state)?;
    let depth = match name {
        "get" => return Ok(()),
        name if DEEP_METHODS.contains(&name) => MAX_DEPTH,
        _ => 1,
    };
    charge_values(state, args.iter().chain([value]), depth, 1)?;
    let text = value.as_str().unwrap_or_default();
    let parts = match (name, args.first().and_then(Value::as_str)) {
        ("splitlines", _) => text.matches(char::is_control).count(),
        ("split" | "rsplit", Some(by)) => text.matches(by).count(),
        ("split" | "rsplit", None) => {
            text.matches(|c: char| c.is_whitespace() || c.is_control()).count()
        }
        _ => 0,
    };
    afford(state, parts.saturating_mul(PART))
}

/// Charges for going through values to the bottom.
///
/// # Errors
/// If the fuel does not suffice.
pub fn charge_deep(state: &State, values: &[&Value]) -> Result<()> {
    glance_at_brake(state)?;
    charge_values(state, values.iter().copied(), MAX_DEPTH, 1)
}

/// Checks that there is fuel for `size` bytes of data.
///
/// # Errors
/// If the fuel does not suffice.
pub fn afford(state: &State, size: usize) -> Result<()> {
    match size as u64 / BYTES > left(state) {
        true => Err(ErrorKind::OutOfFuel.into()),
        false => Ok(()),
    }
}

/// Ends a rendering that is cancelled.
fn heed_brake(state: &State) -> Result<()> {
    let brake = state.lookup(BRAKE);
    let brake = brake.as_ref().and_then(|brake| brake.downcast_object_ref::<Brake>());
    match brake.is_some_and(|Brake(cancel)| cancel.is_requested()) {
        true => Err(ErrorKind::OutOfFuel.into()),
        false => Ok(()),
    }
}

/// Ends a rendering that is cancelled, in one of sixteen calls on average: to find the variable takes
/// as long as a small operation.
fn glance_at_brake(state: &State) -> Result<()> {
    match state.fuel_levels() {
        Some((_, left)) if left.wrapping_mul(SPREAD) >> 60 != 0 => Ok(()),
        _ => heed_brake(state),
    }
}

fn charge_values<'v>(
    state: &State,
    values: impl IntoIterator<Item = &'v Value>,
    depth: usize,
    times: u64,
) -> Result<()> {
    let mut count = Count { units: 0, most: left(state) / times.max(1) };
    for value in values {
        count.add(value, 0, depth)?;
    }
    state.consume_fuel(count.units.saturating_mul(times) / UNITS)
}

/// Units that are left.
fn left(state: &State) -> u64 {
    state.fuel_levels().map_or(u64::MAX, |(_, left)| left.saturating_mul(UNITS))
}

struct Count {
    units: u64,
    most: u64,
}

impl Count {
    /// Counts the units of a value, and of those in it down to a depth.
    fn add(&mut self, value: &Value, level: usize, depth: usize) -> Result<()> {
        let of = type_of(value);
        let text = value.as_str().map_or(0, |text| text.len() as u64 / BYTES);
        // A number or short text by itself is part of the instruction.
        let own = if level == 0 { 0 } else { 1 + level as u64 };
        self.units = self.units.saturating_add(own + text);
        if self.units > self.most {
            return Err(ErrorKind::OutOfFuel.into());
        }
        if level >= depth {
            return Ok(());
        }
        match of {
            Type::List | Type::Tuple => {
                for item in value.try_iter()? {
                    self.add(&item, level + 1, depth)?;
                }
            }
            Type::View => {
                let view = value.downcast_object_ref::<View>();
                for item in view.map_or(&[][..], |view| &view.items) {
                    self.add(item, level + 1, depth)?;
                }
            }
            Type::Object if value.downcast_object_ref::<Generator>().is_some() => {
                let generator = value.downcast_object_ref::<Generator>();
                for item in generator.into_iter().flat_map(Generator::rest) {
                    self.add(&item, level + 1, depth)?;
                }
            }
            Type::Dict | Type::Object if value.kind() == ValueKind::Map => {
                let pairs = value.as_object().and_then(DynObject::try_iter_pairs);
                for (name, value) in pairs.into_iter().flatten() {
                    self.add(&name, level + 1, depth)?;
                    self.add(&value, level + 1, depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
