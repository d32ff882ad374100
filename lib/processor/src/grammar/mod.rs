//! Grammars that constrain a completion: from a JSON schema, a grammar or the schemas of tools to a
//! mask of the tokens that may come next.

mod bounds;
mod constraint;
mod cost;
mod endless;
mod harmony;
mod rules;
mod vocabulary;

pub use constraint::{CallRules, GrammarConstraint, TextRules};
pub use rules::Rules;
pub use vocabulary::Vocabulary;
