//! Grammars that constrain a completion: from a JSON schema, a grammar or the schemas of tools to a
//! mask of the tokens that may come next.

mod bounds;
mod calls;
mod compiler;
mod constraint;
mod cost;
mod endless;
mod fault;
mod harmony;
mod matcher;
mod rules;
#[cfg(test)]
mod tests;
mod vocabulary;
mod watch;

pub use compiler::{Compiled, Compiler, Tools};
pub use constraint::{CallRules, GrammarConstraint, TextRules};
pub use rules::{Rules, SchemaFields};
pub use vocabulary::Vocabulary;
