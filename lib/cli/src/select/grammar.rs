//! Syntax of filters and sort orders: that of `hf cache ls`, with additional keys.
//!
//! A filter is `KEY OP VALUE`: `size>1GB`, `accessed>7d` (more than 7 days ago), `type=chat`.

use std::str::FromStr;
use std::time::Duration;

use mlxk_core::{Error, Kind, Result};

use super::{Attribute, Event, Filter, Op, Quantity, Sort, SortKey};

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Filter> {
        let start =
            text.find(['=', '!', '<', '>']).ok_or_else(|| invalid("no comparison operator"))?;
        let (key, rest) = text.split_at(start);
        let operators = [
            ("==", Op::Equal),
            ("!=", Op::Unequal),
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("=", Op::Equal),
            ("<", Op::Less),
            (">", Op::More),
        ];
        let (value, op) = operators
            .iter()
            .find_map(|(symbol, op)| Some((rest.strip_prefix(symbol)?.trim(), *op)))
            .ok_or_else(|| invalid("`!` alone compares nothing"))?;
        let word = |attribute| match op {
            _ if value.is_empty() => Err(invalid("no value")),
            Op::Equal => Ok(Filter::Word(attribute, true, value.to_owned())),
            Op::Unequal => Ok(Filter::Word(attribute, false, value.to_owned())),
            _ => Err(invalid("words are compared with = or !=")),
        };
        match key.trim() {
            "size" => Ok(Filter::Number(Quantity::Size, op, bytes(value)?)),
            "bits" => Ok(Filter::Number(Quantity::Bits, op, whole(value)?)),
            "accessed" => Ok(Filter::Age(Event::Accessed, op, age(value)?)),
            "modified" => Ok(Filter::Age(Event::Modified, op, age(value)?)),
            "type" => word(Attribute::Type),
            "framework" => word(Attribute::Framework),
            "health" => word(Attribute::Health),
            "capability" => word(Attribute::Capability),
            "refs" => word(Attribute::Refs),
            "runnable" if ["yes", "no"].contains(&value) => word(Attribute::Runnable),
            "runnable" => Err(invalid("runnable is yes or no")),
            _ => Err(invalid(
                "the keys are accessed, bits, capability, framework, health, modified, refs, \
                 runnable, size, type",
            )),
        }
    }
}

/// Parses a size into bytes: `1GB`, `1.5g`, `300 MiB`, `17`. Units with an `i` are binary, all
/// others are decimal.
fn bytes(text: &str) -> Result<u64> {
    let text = text.to_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let units = [("", 1.0), ("k", 1e3), ("m", 1e6), ("g", 1e9), ("t", 1e12), ("p", 1e15)];
    let binary = ["ki", "mi", "gi", "ti", "pi"];
    let binary = binary.iter().zip(1..).map(|(unit, power)| (*unit, 1024f64.powi(power)));
    amount(text, &units.into_iter().chain(binary).collect::<Vec<_>>()).map(|n| n as u64)
}

/// Parses an age: `90s`, `5m`, `12h`, `7d`, `2w`, `3mo`, `1y`.
fn age(text: &str) -> Result<Duration> {
    const DAY: f64 = 86400.0;
    let units = [
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("d", DAY),
        ("w", 7.0 * DAY),
        ("mo", 30.0 * DAY),
        ("y", 365.0 * DAY),
    ];
    let seconds = amount(&text.to_lowercase(), &units)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid("too long ago"))
}

fn whole(text: &str) -> Result<u64> {
    text.parse().map_err(|_| invalid("not a whole number"))
}

/// Parses a number followed by one of `units`.
fn amount(text: &str, units: &[(&str, f64)]) -> Result<f64> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit.trim());
    match (number.parse::<f64>(), factor) {
        (Ok(number), Some((_, factor))) => Ok(number * factor),
        (Err(_), _) => Err(invalid("not a number")),
        (_, None) => {
            let names: Vec<_> =
                units.iter().map(|(name, _)| *name).filter(|n| !n.is_empty()).collect();
            Err(invalid(&format!("the units are {}", names.join(" "))))
        }
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::Command, "", message)
}

impl FromStr for Sort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Sort> {
        let (key, direction) = text.split_once(':').map_or((text, None), |(k, d)| (k, Some(d)));
        let key = match key {
            "name" => SortKey::Name,
            "size" => SortKey::Size,
            "accessed" => SortKey::Moment(Event::Accessed),
            "modified" => SortKey::Moment(Event::Modified),
            _ => return Err(invalid("the keys are accessed, modified, name, size")),
        };
        let descending = match direction {
            Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(invalid("the directions are asc and desc")),
            // Newest and biggest first.
            None => key != SortKey::Name,
        };
        Ok(Sort { key, descending })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mlxk_core::Record;

    use super::super::Entry;
    use super::*;

    fn entry() -> Entry {
        let record = Record::parse(
            r#"{"name":"a/b","size_bytes":1500000000,"model_type":"chat","health":"healthy",
                "runtime_compatible":false,"capabilities":["chat","vision"],"framework":"MLX"}"#,
        );
        Entry {
            record: record.unwrap(),
            revision: None,
            modified: Some(SystemTime::UNIX_EPOCH),
            accessed: None,
            refs: vec!["main".into()],
            bits: Some(4),
        }
    }

    #[test]
    fn filters_compare_what_the_model_has() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10 * 86400);
        let accepts = |text: &str| text.parse::<Filter>().unwrap().accepts(&entry(), now);
        for yes in [
            "size>1GB",
            "size >= 1.5 gb",
            "size<1.4GiB",
            "size!=3",
            "size=1500000000",
            "bits=4",
            "modified>7d",
            "modified>1w",
            "modified<1mo",
            "type=chat",
            "type==CHAT",
            "refs=main",
            "refs!=v1",
            "framework=mlx",
            "health=healthy",
            "capability=vision",
            "runnable=no",
            "runnable!=yes",
        ] {
            assert!(accepts(yes), "{yes}");
        }
        for no in
            ["size>2GB", "bits>4", "modified>2w", "accessed>1s", "capability=audio", "refs=v1"]
        {
            assert!(!accepts(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_reason() {
        for (text, reason) in [
            ("size", "no comparison operator"),
            ("sise>1GB", "the keys are accessed"),
            ("size>big", "not a number"),
            ("size>1XB", "the units are k m g"),
            ("accessed>7q", "the units are s m h"),
            ("type>chat", "words are compared"),
            ("type=", "no value"),
            ("bits=4.5", "not a whole number"),
            ("runnable=maybe", "yes or no"),
            ("modified>99999999999999y", "too long ago"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.starts_with(reason) || error.ends_with(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_sort_puts_the_biggest_first_unless_told_otherwise() {
        let sized = |name: &str, size: u64| {
            let record = entry().record.with("name", name).with("size_bytes", size);
            Entry { record, ..entry() }
        };
        let sorted = |text: &str| {
            let mut entries = [sized("b", 1), sized("a", 3), sized("c", 2)];
            text.parse::<Sort>().unwrap().apply(&mut entries);
            entries.map(|entry| entry.record.str("name").unwrap().to_owned()).concat()
        };
        assert_eq!(sorted("size"), "acb");
        assert_eq!(sorted("size:asc"), "bca");
        assert_eq!(sorted("name"), "abc");
        assert_eq!(sorted("name:desc"), "cba");
        assert!("colour".parse::<Sort>().is_err());
        assert!("size:up".parse::<Sort>().is_err());
    }
}
