//! mlxk-run, from the command line to the text.

mod answers;
mod choice;
mod input;
mod pictures;
mod prompts;
mod refused;
mod requests;
mod rules;
mod signals;
mod speech;
pub mod tiny;
mod work;
