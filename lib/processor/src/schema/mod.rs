//! JSON schemas as clients send them: what they allow, and their lowering to the keywords that a
//! grammar holds.

mod array;
mod automaton;
mod budget;
mod disjoint;
mod kinds;
mod lower;
mod lowered;
mod negate;
mod numbers;
mod object;
mod parts;
mod pattern;
mod refs;

pub use kinds::{Kinds, admits, kinds, same};
pub use lower::lower;
pub use lowered::{Lowered, Unheld};
pub use parts::{items, property, variants};
pub use refs::{follow, resolve};
