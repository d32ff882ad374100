//! Environment of chat templates: the functions, filters and tests of Jinja 3.1 in Python, with the
//! settings of transformers.

use std::sync::{Arc, Mutex};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Object, ObjectRepr, Rest, Value, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, State};

use super::arguments::{Arguments, required};
use super::filters::{self, Filter};
use super::fuel::{charge, charge_deep, charge_method};
use super::markup::escape;
use super::methods;
use super::number_filters;
use super::operators;
use super::predicates;
use super::repr::text;
use super::sequences;
use super::values::{Of, Result, Type, View, failed, index, items, pairs, string, type_of};

/// Largest number of items of a range; that of Jinja's sandbox.
const MAX_RANGE: i64 = 100_000;

/// Marker of errors that a template raises itself, by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("refused by the chat template")]
pub struct Refusal;

/// Operator of two values, as a filter.
type Operator = fn(&Value, &Value) -> Result<Value>;

const OPERATORS: [(&str, Operator); 9] = [
    ("__add__", operators::add),
    ("__sub__", operators::subtract),
    ("__mul__", operators::multiply),
    ("__div__", operators::divide),
    ("__floordiv__", operators::floor_divide),
    ("__mod__", operators::modulo),
    ("__pow__", operators::power),
    ("__item__", methods::item),
    ("__attribute__", |value, name| methods::attribute(value, string(name)?)),
];

/// Environment with the settings of transformers, without limits.
pub fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::empty();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(|out, state, value| {
        charge_deep(state, &[value])?;
        let escapes = !matches!(state.auto_escape(), AutoEscape::None);
        Ok(out.write_str(&if escapes { escape(value) } else { text(value) })?)
    });
    for (name, operator) in OPERATORS {
        environment.add_filter(name, move |state: &State, a: &Value, b: &Value| {
            charge(state, name, &[a.clone(), b.clone()])?;
            operator(a, b)
        });
    }
    environment.add_filter("__neg__", operators::negate);
    environment.add_filter("__pos__", operators::plus);
    environment.add_filter("__slice__", slice);
    environment.add_filter("__compare__", |state: &State, first: &Value, rest: Rest<Value>| {
        operators::comparisons(state, first, &rest)
    });
    let call = |state: &mut State, value: &Value, name: &str, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        charge_method(state, value, name, &args)?;
        methods::call(state, value, name, &args)
    };
    environment.add_filter("__method__", call);
    for (name, filter) in filters::all().chain(number_filters::all()).chain(sequences::all()) {
        add_filter(&mut environment, name, filter);
    }
    for (name, wanted) in [("__is__", true), ("__is_not__", false)] {
        let test =
            move |state: &mut State, value: &Value, name: &str, args: Rest<ValueOrKwargs>| {
                let args = Arguments::new(&args.into_values());
                predicates::is(state, name, value, args).map(|result| result == wanted)
            };
        environment.add_filter(name, test);
    }
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function("range", range);
    environment.add_function("namespace", namespace);
    environment.add_function("cycler", cycler);
    environment.add_function("joiner", joiner);
    environment.add_global("dict", Value::from_object(Dict));
    Ok(environment)
}

fn add_filter(environment: &mut Environment, name: &'static str, filter: Filter) {
    environment.add_filter(
        name,
        move |state: &mut State, value: &Value, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            charge(state, name, &[std::slice::from_ref(value), &args[..]].concat())?;
            filter(state, value, Arguments::new(&args))
        },
    );
}

/// Slice of a value by its start, stop and step; undefined if a constant cannot be sliced.
fn slice(state: &State, value: &Value, args: Rest<Value>) -> Result<Value> {
    charge(state, "__slice__", std::slice::from_ref(value))?;
    let [start, stop, step, rest @ ..] = &args[..] else {
        return Err(failed("a slice wants three bounds"));
    };
    let constant = rest.first().is_some_and(Value::is_true);
    match operators::slice(value, [start, stop, step]) {
        Err(_) if constant && !value.is_undefined() => Ok(Value::UNDEFINED),
        sliced => sliced,
    }
}

fn raise_exception(message: &Value) -> Result<Value> {
    Err(failed(text(message)).with_source(Refusal))
}

fn strftime_now(format: &str) -> Result<String> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(failed)
}

fn range(state: &State, args: Rest<ValueOrKwargs>) -> Result<Value> {
    let [first, second, third] = Arguments::new(&args.into_values()).bind(["", "", ""])?;
    let first = index(&required(first)?)?;
    let (start, stop) = match second {
        None => (0, first),
        Some(stop) => (first, index(&stop)?),
    };
    let step = third.map_or(Ok(1), |step| index(&step))?;
    if step == 0 {
        return Err(failed("a range has the step 0"));
    }
    let inside = |at: &i64| if step > 0 { *at < stop } else { *at > stop };
    let numbers = std::iter::successors(Some(start), |at| at.checked_add(step)).take_while(inside);
    let all: Vec<Value> = numbers.take(MAX_RANGE as usize + 1).map(Value::from).collect();
    if all.len() > MAX_RANGE as usize {
        return Err(failed(format!("a range has at most {MAX_RANGE} numbers")));
    }
    let range = Value::from_object(View { of: Of::Range(start, stop, step), items: all });
    charge(state, "list", std::slice::from_ref(&range))?;
    Ok(range)
}

/// Pairs that `dict` takes: those of a dict or of a list of pairs, and the named arguments.
fn entries(args: Arguments) -> Result<Vec<(Value, Value)>> {
    let Arguments { given, named } = args;
    let mut entries = match &given[..] {
        [] => Vec::new(),
        [one] if type_of(one) == Type::Dict => pairs(one)?,
        [list] => {
            let pair = |item: &Value| match <[Value; 2]>::try_from(items(item)?) {
                Ok([key, value]) => Ok((key, value)),
                Err(_) => Err(failed("not a list of pairs")),
            };
            items(list)?.iter().map(pair).collect::<Result<_>>()?
        }
        _ => return Err(failed("more than one dict")),
    };
    entries.extend(named.into_iter().map(|(name, value)| (Value::from(name), value)));
    Ok(entries)
}

fn namespace(args: Rest<ValueOrKwargs>) -> Result<Value> {
    let entries = entries(Arguments::new(&args.into_values()))?;
    if entries.iter().any(|(name, _)| name.as_str().is_some_and(|name| name.starts_with('_'))) {
        return Err(failed("the name of an attribute begins with an underscore"));
    }
    let defaults = [Value::from_pairs(entries)];
    minijinja::value::from_args(&defaults)
        .and_then(|(entries,)| minijinja::functions::namespace(entries))
}

/// The function `dict`, which has the method `fromkeys`.
#[derive(Debug)]
struct Dict;

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        Ok(Value::from_pairs(entries(Arguments::new(args))?))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value> {
        if method != "fromkeys" {
            return Err(failed(format!("dict has no method `{method}`")));
        }
        let [keys, value] = Arguments::new(args).bind(["", ""])?;
        let value = value.unwrap_or_else(|| Value::from(()));
        let keys = items(&required(keys)?)?;
        Ok(Value::from_pairs(keys.into_iter().map(|key| (key, value.clone()))))
    }
}

/// Values that follow each other in a circle.
#[derive(Debug)]
struct Cycler {
    values: Vec<Value>,
    at: Mutex<usize>,
}

fn cycler(args: Rest<Value>) -> Result<Value> {
    match args.is_empty() {
        true => Err(failed("a cycler wants values")),
        false => Ok(Value::from_object(Cycler { values: args.0, at: Mutex::new(0) })),
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = *self.at.lock().ok()?;
        (key.as_str()? == "current").then(|| self.values[at].clone())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value> {
        let mut at = self.at.lock().map_err(failed)?;
        let now = *at;
        *at = match method {
            "next" => (now + 1) % self.values.len(),
            "reset" => 0,
            _ => return Err(failed(format!("a cycler has no method `{method}`"))),
        };
        Ok(if method == "next" { self.values[now].clone() } else { Value::from(()) })
    }
}

/// Text that is empty at the first call.
#[derive(Debug)]
struct Joiner {
    between: Value,
    used: Mutex<bool>,
}

fn joiner(between: Option<Value>) -> Value {
    let between = between.unwrap_or_else(|| Value::from(", "));
    Value::from_object(Joiner { between, used: Mutex::new(false) })
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value> {
        let mut used = self.used.lock().map_err(failed)?;
        Ok(if std::mem::replace(&mut *used, true) { self.between.clone() } else { Value::from("") })
    }
}
