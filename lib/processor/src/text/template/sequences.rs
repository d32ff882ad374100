//! Filters of Jinja for lists, dicts and iterators.

use std::cmp::Ordering;

use minijinja::State;
use minijinja::value::{Value, ValueKind};

use super::arguments::{Arguments, flag, required};
use super::compare::{compare, equal, hashable, sorted};
use super::filters::Filter;
use super::fuel::charge;
use super::methods;
use super::operators::{add, item};
use super::predicates;
use super::repr::text;
use super::values::{
    Generator, Group, Result, Type, failed, index, items, pairs, string, tuple, type_name, type_of,
    within_items, within_size,
};

/// Filters by name.
const FILTERS: [(&str, Filter); 25] = [
    ("batch", batch),
    ("dictsort", dict_sort),
    ("first", first),
    ("groupby", group_by),
    ("items", dict_items),
    ("join", join),
    ("last", last),
    ("list", list),
    ("map", map),
    ("max", max),
    ("min", min),
    ("random", random),
    ("reject", reject),
    ("rejectattr", reject_attribute),
    ("reverse", reverse),
    ("select", select),
    ("selectattr", select_attribute),
    ("slice", slice),
    ("sort", sort),
    ("sum", sum),
    ("unique", unique),
    ("__iterable__", iterable),
    ("__row__", row),
    ("__rows__", rows),
    ("__variadic__", variadic),
];

/// All filters with their names.
pub fn all() -> impl Iterator<Item = (&'static str, Filter)> {
    FILTERS.into_iter()
}

/// Value that a loop runs over.
fn iterable(_: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    let of = type_of(value);
    let wrong = match of {
        Type::None | Type::Bool | Type::Int | Type::Float => true,
        Type::Object => !matches!(value.kind(), ValueKind::Iterable),
        _ => false,
    };
    match of {
        _ if wrong => Err(failed(format!("{} is not iterable", type_name(value)))),
        // A loop knows its length, so that an iterator is consumed before it.
        Type::Object => items(value).map(Value::from),
        _ => Ok(value.clone()),
    }
}

/// Value that is unpacked: the characters of a string, or the names of a dict, become a list.
fn row(_: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    match type_of(value) {
        Type::Str | Type::Dict | Type::Undefined => items(value).map(Value::from),
        _ => Ok(value.clone()),
    }
}

fn rows(state: &mut State, value: &Value, _: Arguments) -> Result<Value> {
    let value = iterable(state, value, Arguments::default())?;
    let all = items(&value)?;
    all.iter().map(|item| row(state, item, Arguments::default())).collect()
}

/// Calls a macro with `varargs` and `kwargs`: the names of its parameters come first.
fn variadic(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let Arguments { mut given, named } = args;
    let rest = given.split_off(1.min(given.len()));
    let names = items(&given.pop().unwrap_or_default())?;
    let (given, more) = rest.split_at(names.len().min(rest.len()));
    let is_parameter = |name: &str| names.iter().any(|known| known.as_str() == Some(name));
    let (mut known, other): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|(name, _)| is_parameter(name) || name == "caller");
    known.push(("varargs".into(), tuple(more.to_vec())));
    known.push(("kwargs".into(), Value::from_pairs(other)));
    let args = Arguments { given: given.to_vec(), named: known }.into_values();
    value.call(state, &args)
}

/// Getter of Jinja's `attribute`: names and numbers between dots.
#[derive(Default)]
struct Getter {
    path: Vec<Value>,
    default: Option<Value>,
    /// True if strings are compared without their case.
    fold: bool,
}

impl Getter {
    fn new(attribute: Option<&Value>, default: Option<Value>, fold: bool) -> Getter {
        let part = |part: &str| match part.parse::<i64>() {
            Ok(number) if part.bytes().all(|b| b.is_ascii_digit()) => Value::from(number),
            _ => Value::from(part),
        };
        let path = match attribute.filter(|attribute| !attribute.is_none()) {
            None => Vec::new(),
            Some(attribute) => match attribute.as_str() {
                Some(text) => text.split('.').map(part).collect(),
                None => vec![attribute.clone()],
            },
        };
        Getter { path, default: default.filter(|default| !default.is_none()), fold }
    }

    fn get(&self, item: &Value) -> Result<Value> {
        let mut value = item.clone();
        for part in &self.path {
            value = methods::item(&value, part)?;
            if let (true, Some(default)) = (value.is_undefined(), &self.default) {
                value = default.clone();
            }
        }
        match value.as_str() {
            Some(text) if self.fold => Ok(Value::from(text.to_lowercase())),
            _ => Ok(value),
        }
    }

    fn keyed(&self, all: Vec<Value>) -> Result<Vec<(Value, Value)>> {
        all.into_iter().map(|item| Ok((self.get(&item)?, item))).collect()
    }
}

fn batch(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [count, fill] = args.bind(["linecount", "fill_with"])?;
    let count = required(count)?;
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    for item in items(value)? {
        if equal(&Value::from(line.len()), &count) {
            lines.push(Value::from(std::mem::take(&mut line)));
        }
        line.push(item);
    }
    if !line.is_empty() {
        if let Some(fill) = fill.filter(|fill| !fill.is_none()) {
            let count = usize::try_from(index(&count)?).unwrap_or(0);
            line.resize(within_items(count)?.max(line.len()), fill);
        }
        lines.push(Value::from(line));
    }
    Ok(Generator::value(lines))
}

fn slice(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [count, fill] = args.bind(["slices", "fill_with"])?;
    let all = items(value)?;
    let count = within_items(usize::try_from(index(&required(count)?)?).unwrap_or(0))?;
    if count == 0 {
        return Err(failed("a list is cut into no slices"));
    }
    let (size, longer) = (all.len() / count, all.len() % count);
    let fill = fill.filter(|fill| !fill.is_none());
    let mut start = 0;
    let cut = (0..count).map(|number| {
        let end = start + size + usize::from(number < longer);
        let mut part = all[start..end].to_vec();
        start = end;
        if number >= longer {
            part.extend(fill.clone());
        }
        Value::from(part)
    });
    Ok(Generator::value(cut.collect()))
}

fn dict_sort(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [case, by, reverse] = args.bind(["case_sensitive", "by", "reverse"])?;
    let by = by.as_ref().map_or(Ok("key"), string)?;
    let at = match by {
        "key" => 0,
        "value" => 1,
        _ => return Err(failed("`by` is neither key nor value")),
    };
    let pairs = pairs(value)?.into_iter().map(|(key, value)| tuple(vec![key, value]));
    let getter = Getter { path: vec![Value::from(at)], default: None, fold: !flag(case) };
    sorted(getter.keyed(pairs.collect())?, flag(reverse)).map(Value::from)
}

fn first(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    match type_of(value) {
        // The items after the first are left to the iterator.
        Type::Object if value.kind() == ValueKind::Iterable => {
            Ok(value.try_iter()?.next().unwrap_or_default())
        }
        _ => Ok(items(value)?.into_iter().next().unwrap_or_default()),
    }
}

fn last(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    match type_of(value) {
        Type::Object => Err(failed("an iterator has no last item")),
        Type::Str | Type::List | Type::Tuple => {
            Ok(item(value, &Value::from(-1))?.unwrap_or_default())
        }
        _ => Ok(items(value)?.pop().unwrap_or_default()),
    }
}

fn group_by(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [attribute, default, case] = args.bind(["attribute", "default", "case_sensitive"])?;
    let attribute = required(attribute)?;
    let fold = !flag(case);
    let folded = Getter::new(Some(&attribute), default.clone(), fold);
    let exact = Getter::new(Some(&attribute), default, false);
    let all = sorted(folded.keyed(items(value)?)?, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in folded.keyed(all)? {
        match groups.last_mut() {
            Some((last, members)) if equal(last, &key) => members.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let group = |(_, members): (Value, Vec<Value>)| {
        let grouper = exact.get(&members[0])?;
        Ok(Value::from_object(Group([grouper, Value::from(members)])))
    };
    groups.into_iter().map(group).collect()
}

fn dict_items(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let pairs = if value.is_undefined() { Vec::new() } else { pairs(value)? };
    Ok(Generator::value(pairs.into_iter().map(|(key, value)| tuple(vec![key, value])).collect()))
}

fn join(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [between, attribute] = args.bind(["d", "attribute"])?;
    let between = between.map_or(String::new(), |between| text(&between));
    let getter = Getter::new(attribute.as_ref(), None, false);
    let parts = items(value)?;
    let parts =
        parts.iter().map(|item| Ok(text(&getter.get(item)?))).collect::<Result<Vec<_>>>()?;
    within_size(parts.iter().map(|part| part.len() + between.len()).sum())?;
    Ok(Value::from(parts.join(&between)))
}

fn list(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    items(value).map(Value::from)
}

fn map(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let Arguments { mut given, named } = args;
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    if given.is_empty() {
        let [attribute, default] = Arguments { given, named }.bind(["attribute", "default"])?;
        let getter = Getter::new(Some(&required(attribute)?), default, false);
        let got = items(value)?.iter().map(|item| getter.get(item)).collect::<Result<_>>()?;
        return Ok(Generator::value(got));
    }
    let rest = given.split_off(1);
    let name = given.pop().unwrap_or_default();
    let name = string(&name)?;
    let mut args = Arguments { given: rest, named }.into_values();
    args.insert(0, Value::UNDEFINED);
    let mut made = Vec::new();
    for item in items(value)? {
        args[0] = item;
        made.push(state.apply_filter(name, &args)?);
    }
    Ok(Generator::value(made))
}

/// Items for which a test of the item, or of its attribute, has the result `wanted`.
fn chosen(
    state: &mut State,
    value: &Value,
    args: Arguments,
    (wanted, by_attribute): (bool, bool),
) -> Result<Value> {
    let Arguments { mut given, named } = args;
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    given.reverse();
    let getter = match by_attribute {
        true if given.is_empty() => return Err(failed("the name of an attribute is missing")),
        true => Getter::new(given.pop().as_ref(), None, false),
        false => Getter::default(),
    };
    let test = given.pop();
    given.reverse();
    let mut kept = Vec::new();
    for item in items(value)? {
        let got = getter.get(&item)?;
        let result = match &test {
            None => got.is_true(),
            Some(test) => {
                let args = Arguments { given: given.clone(), named: named.clone() };
                predicates::is(state, string(test)?, &got, args)?
            }
        };
        if result == wanted {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}

fn select(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    chosen(state, value, args, (true, false))
}

fn reject(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    chosen(state, value, args, (false, false))
}

fn select_attribute(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    chosen(state, value, args, (true, true))
}

fn reject_attribute(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    chosen(state, value, args, (false, true))
}

fn extreme(value: &Value, args: Arguments, wanted: Ordering) -> Result<Value> {
    let [case, attribute] = args.bind(["case_sensitive", "attribute"])?;
    let getter = Getter::new(attribute.as_ref(), None, !flag(case));
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in getter.keyed(items(value)?)? {
        match &best {
            Some((top, _)) if compare(&key, top)? != Some(wanted) => {}
            _ => best = Some((key, item)),
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn max(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    extreme(value, args, Ordering::Greater)
}

fn min(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    extreme(value, args, Ordering::Less)
}

fn random(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    let all = match type_of(value) {
        Type::Str | Type::List | Type::Tuple | Type::View => items(value)?,
        _ => return Err(failed(format!("{} has no items to choose from", type_name(value)))),
    };
    let draw = getrandom::u64().map_err(failed)?;
    Ok(all.get(draw as usize % all.len().max(1)).cloned().unwrap_or_default())
}

fn reverse(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [] = args.bind([])?;
    match value.as_str() {
        Some(text) => Ok(Value::from(text.chars().rev().collect::<String>())),
        None => {
            let mut all = items(value)?;
            all.reverse();
            let iterator = type_of(value) == Type::Object;
            Ok(if iterator { Value::from(all) } else { Generator::value(all) })
        }
    }
}

fn sort(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [reverse, case, attribute] = args.bind(["reverse", "case_sensitive", "attribute"])?;
    let fold = !flag(case);
    let attributes: Vec<Option<Value>> = match attribute.as_ref().and_then(Value::as_str) {
        Some(text) => text.split(',').map(|part| Some(Value::from(part))).collect(),
        None => vec![attribute],
    };
    let getters: Vec<_> =
        attributes.iter().map(|attribute| Getter::new(attribute.as_ref(), None, fold)).collect();
    let keyed = |item: Value| {
        let keys = getters.iter().map(|getter| getter.get(&item)).collect::<Result<Vec<_>>>()?;
        Ok((Value::from(keys), item))
    };
    let keyed = items(value)?.into_iter().map(keyed).collect::<Result<_>>()?;
    sorted(keyed, flag(reverse)).map(Value::from)
}

fn sum(state: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [attribute, start] = args.bind(["attribute", "start"])?;
    charge(state, "sum", std::slice::from_ref(value))?;
    let getter = Getter::new(attribute.as_ref(), None, false);
    let mut total = start.unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(failed("strings have no sum"));
    }
    for item in items(value)? {
        charge(state, "__add__", std::slice::from_ref(&total))?;
        total = add(&total, &getter.get(&item)?)?;
    }
    Ok(total)
}

fn unique(_: &mut State, value: &Value, args: Arguments) -> Result<Value> {
    let [case, attribute] = args.bind(["case_sensitive", "attribute"])?;
    let getter = Getter::new(attribute.as_ref(), None, !flag(case));
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for (key, item) in getter.keyed(items(value)?)? {
        if !hashable(&key) {
            return Err(failed(format!("{} cannot be compared with others", type_name(&key))));
        }
        if seen.insert(key) {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}
