//! Flags of sampling, one for each field of the table of options.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use mlxk_core::{Error, Kind, Result};
use mlxk_processor::sampling::{FIELDS, Field, Form, OWN_FIELDS, Options};
use serde_json::{Map, Value, json};

/// Flags of sampling; with `OWN` also those whose fields APIs name in their own ways.
#[derive(Clone, Debug)]
pub struct SamplingFlags<const OWN: bool> {
    values: Vec<(&'static Field, Value)>,
}

impl<const OWN: bool> SamplingFlags<OWN> {
    fn fields() -> impl Iterator<Item = &'static Field> {
        FIELDS.iter().chain(if OWN { OWN_FIELDS } else { &[] })
    }

    /// Options that the flags state.
    ///
    /// # Errors
    /// If a value is out of its range.
    pub fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        for (field, value) in &self.values {
            let set = field.set(&mut options, value);
            set.map_err(|e| Error::new(Kind::Command, "", e.message))?;
        }
        Ok(options)
    }
}

impl<const OWN: bool> Args for SamplingFlags<OWN> {
    fn augment_args(command: Command) -> Command {
        let command = command.next_help_heading("Sampling");
        Self::fields().fold(command, |command, field| command.arg(flag(field)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const OWN: bool> FromArgMatches for SamplingFlags<OWN> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let value = |field: &'static Field| {
            let values = matches.get_many::<Value>(field.name)?.cloned();
            Some((field, joined(field.form, values.collect())))
        };
        Ok(SamplingFlags { values: Self::fields().filter_map(value).collect() })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Flag of a field. The flag of a list states one item, and so has its name in the singular.
fn flag(field: &'static Field) -> Arg {
    let name = match field.form.is_list() {
        true => field.name.trim_end_matches('s'),
        false => field.name,
    };
    let several = field.form.is_list() || field.form == Form::Biases;
    let more = if several { "; may be repeated" } else { "" };
    Arg::new(field.name)
        // Arguments live as long as the program.
        .long(&*name.replace('_', "-").leak())
        .value_name(field.placeholder)
        .help(field.text() + more)
        .action(if several { ArgAction::Append } else { ArgAction::Set })
        .allow_negative_numbers(field.form.is_signed())
        .value_parser(ValueParser::new(move |text: &str| parsed(field.form, text)))
}

/// JSON value of a flag's text.
fn parsed(form: Form, text: &str) -> std::result::Result<Value, String> {
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    let (value, expected) = match form {
        Form::Number { .. } => (number(text).map(Value::from), "not a number"),
        Form::Integer { .. } => {
            let whole = text.parse::<u64>().map(Value::from);
            (whole.or_else(|_| text.parse::<i64>().map(Value::from)).ok(), "not a whole number")
        }
        Form::Biases => {
            let pair = text.split_once('=').and_then(|(id, bias)| {
                Some(json!({id.trim().parse::<u32>().ok()?.to_string(): number(bias.trim())?}))
            });
            (pair, "not a token id and a number, as in 5=-1.5")
        }
        Form::Tokens => (text.parse::<u32>().ok().map(Value::from), "not a token id"),
        Form::Texts => (Some(Value::from(text)), "not a text"),
    };
    value.ok_or_else(|| expected.to_owned())
}

/// JSON value of a flag that is given once or several times.
fn joined(form: Form, mut values: Vec<Value>) -> Value {
    match form {
        Form::Biases => {
            let objects = values.into_iter().filter_map(|value| match value {
                Value::Object(biases) => Some(biases),
                _ => None,
            });
            Value::Object(objects.flatten().collect::<Map<_, _>>())
        }
        form if form.is_list() => values.into(),
        _ => values.pop().unwrap_or_default(),
    }
}
