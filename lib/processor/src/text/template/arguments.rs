//! Arguments of a call in a template, bound to the names of Python's parameters.

use minijinja::value::{Kwargs, Value};

use super::values::{Result, failed, index};

/// Arguments of a call.
#[derive(Debug, Default)]
pub struct Arguments {
    pub given: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Arguments {
    /// Arguments as minijinja passes them: the last one may hold the named ones.
    pub fn new(values: &[Value]) -> Arguments {
        let mut given = values.to_vec();
        let mut named = Vec::new();
        if let Some(last) = given.pop_if(|last| last.is_kwargs())
            && let Ok(kwargs) = Kwargs::try_from(last)
        {
            let value = |name: &str| (name.to_owned(), kwargs.get(name).unwrap_or_default());
            named = kwargs.args().map(value).collect();
        }
        Arguments { given, named }
    }

    /// Values in the order of the parameters `names`; a name that is empty cannot be given.
    ///
    /// # Errors
    /// If there are too many, or some with other names.
    pub fn bind<const N: usize>(self, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.given.len() > N {
            return Err(failed(format!(
                "{} arguments, but at most {N} are taken",
                self.given.len()
            )));
        }
        for (place, value) in bound.iter_mut().zip(self.given) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let at = names.iter().position(|known| **known == *name);
            match at.map(|at| &mut bound[at]) {
                Some(place @ None) => *place = Some(value),
                _ => return Err(failed(format!("unexpected argument `{name}`"))),
            }
        }
        Ok(bound)
    }

    /// Values as minijinja takes them.
    pub fn into_values(self) -> Vec<Value> {
        let Arguments { mut given, named } = self;
        if !named.is_empty() {
            given.push(named.into_iter().collect::<Kwargs>().into());
        }
        given
    }
}

/// Argument that must be given.
///
/// # Errors
/// If it is not.
pub fn required(argument: Option<Value>) -> Result<Value> {
    argument.ok_or_else(|| failed("an argument is missing"))
}

/// Truth of an argument, `false` if it is not given.
pub fn flag(argument: Option<Value>) -> bool {
    argument.is_some_and(|value| value.is_true())
}

/// Integer argument, or its default.
///
/// # Errors
/// If the argument is no integer.
pub fn integer(argument: Option<Value>, default: i64) -> Result<i64> {
    argument.map_or(Ok(default), |value| index(&value))
}

/// Start and stop of a part, within a length.
///
/// # Errors
/// If one of them is no index.
pub fn span(start: Option<Value>, stop: Option<Value>, length: usize) -> Result<(usize, usize)> {
    let place = |at: Option<Value>, default: usize| match at.filter(|at| !at.is_none()) {
        None => Ok(default),
        Some(at) => index(&at).map(|at| {
            let at = if at < 0 { at.saturating_add(length as i64).max(0) } else { at };
            usize::try_from(at).unwrap_or(usize::MAX)
        }),
    };
    let (start, stop) = (place(start, 0)?, place(stop, length)?.min(length));
    Ok((start, stop))
}
