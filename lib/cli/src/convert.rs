//! What `mlxk-convert` says of what it made.

use mlxk_core::{Record, Result};

use crate::human;
use crate::output::{Form, Output};

/// Writes the record of a workspace that was made out of something else.
pub fn tell(record: Record, out: &mut Output) -> Result<()> {
    match out.form {
        Form::Human => out.text(&summary(&record)),
        Form::Ndjson => out.lines([&record]),
        Form::Json => out.envelope(record),
    }
}

fn summary(record: &Record) -> String {
    let text = |key| record.str(key);
    let number = |key| record.get(key).and_then(|value| value.as_u64());
    let parts = [
        text("message").map(str::to_owned),
        text("health_status").map(str::to_owned),
        number("tensors").map(|count| format!("{count} tensors")),
        number("size_bytes").map(human::size),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let names = ["source", "target"].map(|key| text(key).unwrap_or_default());
    format!("convert: {} → {} ({})\n", names[0], names[1], parts.join(", "))
}
