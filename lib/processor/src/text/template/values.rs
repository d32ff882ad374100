//! Python's view of a template's values: types, items and sizes.

use std::sync::{Arc, Mutex};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error as Fault, ErrorKind};

/// Largest depth of nested lists that are compared or written.
pub const MAX_DEPTH: usize = 300;

/// Largest size of a text or list that one operation makes, in bytes.
const MAX_SIZE: usize = 16 << 20;

pub type Result<T> = std::result::Result<T, Fault>;

/// Type of a value in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Undefined,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    /// Range, or the keys, values or items of a dict: a [`View`].
    View,
    /// Anything else: iterators, functions, macros, namespaces, loops.
    Object,
}

/// Number; a bool is an integer.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    pub fn float(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

/// Kind of a [`View`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Keys,
    Values,
    Items,
    /// Range with its start, stop and step.
    Range(i64, i64, i64),
}

/// Iterable with a length: what `range` and the methods `keys`, `values` and `items` give.
#[derive(Debug)]
pub struct View {
    pub of: Of,
    pub items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// Generator of Python: an iterator that gives each of its items once, and has no length.
#[derive(Debug)]
pub struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Generator {
    pub fn value(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items.into_iter())))
    }

    /// Items that are still to come.
    pub fn rest(&self) -> Vec<Value> {
        self.0.lock().map_or_else(|_| Vec::new(), |items| items.as_slice().to_vec())
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let this = Arc::clone(self);
        let next = move || this.0.lock().ok().and_then(|mut items| items.next());
        Enumerator::Iter(Box::new(std::iter::from_fn(next)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// Group of the filter `groupby`: a pair with names.
#[derive(Debug)]
pub struct Group(pub [Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some("grouper") => Some(self.0[0].clone()),
            Some("list") => Some(self.0[1].clone()),
            _ => self.0.get(key.as_usize()?).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Error of an operation.
pub fn failed(e: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorKind::InvalidOperation, e.to_string())
}

pub fn type_of(value: &Value) -> Type {
    let named = |name: &str| value.as_object().is_some_and(|o| o.type_name().ends_with(name));
    match value.kind() {
        ValueKind::Undefined => Type::Undefined,
        ValueKind::None => Type::None,
        ValueKind::Bool => Type::Bool,
        ValueKind::Number if value.is_integer() => Type::Int,
        ValueKind::Number => Type::Float,
        ValueKind::String => Type::Str,
        ValueKind::Seq if value.is_tuple() || is::<Group>(value) => Type::Tuple,
        ValueKind::Seq => Type::List,
        ValueKind::Map if ["Namespace", "Loop", "Macro"].iter().any(|name| named(name)) => {
            Type::Object
        }
        ValueKind::Map => Type::Dict,
        _ if is::<View>(value) => Type::View,
        _ => Type::Object,
    }
}

/// True if a value is an object of the type `T`.
pub fn is<T: 'static>(value: &Value) -> bool {
    value.downcast_object_ref::<T>().is_some()
}

/// Name of a value's type, for errors.
pub fn type_name(value: &Value) -> &'static str {
    match type_of(value) {
        Type::Undefined => "undefined",
        Type::None => "none",
        Type::Bool => "bool",
        Type::Int => "int",
        Type::Float => "float",
        Type::Str => "str",
        Type::List => "list",
        Type::Tuple => "tuple",
        Type::Dict => "dict",
        Type::View => "view",
        Type::Object => "object",
    }
}

pub fn number(value: &Value) -> Option<Number> {
    match type_of(value) {
        Type::Bool => Some(Number::Int(value.is_true().into())),
        Type::Int => i128::try_from(value.clone()).ok().map(Number::Int),
        Type::Float => f64::try_from(value.clone()).ok().map(Number::Float),
        _ => None,
    }
}

/// Integer, as an index takes it.
///
/// # Errors
/// If the value is no integer.
pub fn index(value: &Value) -> Result<i64> {
    match number(value) {
        Some(Number::Int(int)) => Ok(int.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
        _ => Err(failed(format!("{} is no integer", type_name(value)))),
    }
}

/// Characters of a string.
///
/// # Errors
/// If the value is no string.
pub fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| failed(format!("{} is no string", type_name(value))))
}

/// Items that iteration gives.
///
/// # Errors
/// If the value cannot be iterated.
pub fn items(value: &Value) -> Result<Vec<Value>> {
    match type_of(value) {
        Type::None => Err(failed("none is not iterable")),
        Type::Object if !matches!(value.kind(), ValueKind::Iterable) => {
            Err(failed(format!("{} is not iterable", type_name(value))))
        }
        _ => value.try_iter()?.checked().collect(),
    }
}

/// Number of items or characters; none if the value has no length.
pub fn length(value: &Value) -> Option<usize> {
    match type_of(value) {
        Type::Undefined => Some(0),
        Type::Str | Type::List | Type::Tuple | Type::Dict | Type::View => value.len(),
        _ => None,
    }
}

/// Pairs of a dict.
///
/// # Errors
/// If the value is no dict.
pub fn pairs(value: &Value) -> Result<Vec<(Value, Value)>> {
    match (type_of(value), value.as_object().and_then(DynObject::try_iter_pairs)) {
        (Type::Dict, Some(pairs)) => Ok(pairs.collect()),
        _ => Err(failed(format!("{} is no dict", type_name(value)))),
    }
}

pub fn tuple(items: Vec<Value>) -> Value {
    Value::from(Tuple::from(items))
}

/// The string `new`, marked as safe if `safe`.
pub fn marked(new: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(new) } else { Value::from(new) }
}

/// Refuses a text that is too large to be made.
///
/// # Errors
/// If the size exceeds 16 MB.
pub fn within_size(size: usize) -> Result<usize> {
    match size <= MAX_SIZE {
        true => Ok(size),
        false => Err(ErrorKind::OutOfFuel.into()),
    }
}

/// Refuses a list that is too large to be made.
///
/// # Errors
/// If its items take more than 16 MB.
pub fn within_items(count: usize) -> Result<usize> {
    within_size(count.saturating_mul(size_of::<Value>())).map(|_| count)
}
