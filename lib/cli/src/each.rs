//! Loop over the models of an input, which Ctrl-C ends.

use mlxk_core::{Error, Record, Result};

use crate::input::Input;
use crate::interrupt;
use crate::output::Output;

/// Calls `work` for each record of `input`, and `refuse` for each error.
///
/// # Errors
/// If `refuse` fails.
pub fn each(
    input: Input,
    out: &mut Output,
    mut work: impl FnMut(Record, &mut Output) -> Result<()>,
    refuse: impl Fn(&Error, &mut Output) -> Result<()>,
) -> Result<()> {
    let watch = interrupt::watch();
    for record in input.batches().flatten() {
        let done = record.and_then(|record| work(record, out));
        if watch.caught() {
            out.remark("interrupted", "the same command goes on where it stopped");
            break;
        }
        if let Err(e) = done {
            refuse(&e, out)?;
        }
    }
    Ok(()) // and dies of the signal, if there was one
}
