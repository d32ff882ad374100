//! Parts of a request that are left out of the prompt, as only another server runs or reads them:
//! their types go into a header of the response and into the log.

use axum::http::{HeaderName, HeaderValue};

/// The header with the types of the parts that are left out.
pub const OMITTED: HeaderName = HeaderName::from_static("x-mlxk-omitted");

/// Largest number of types that are named, and largest length of each; a client invents them.
const MAX_TYPES: usize = 32;
const MAX_LENGTH: usize = 64;

/// The types of the tools, blocks and items that are left out, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Omitted(Vec<String>);

impl Omitted {
    /// Adds a type.
    pub fn add(&mut self, kind: &str) {
        let kind: String = kind.chars().filter(char::is_ascii_graphic).take(MAX_LENGTH).collect();
        if self.0.len() < MAX_TYPES && !self.0.contains(&kind) {
            self.0.push(kind);
        }
    }

    /// Adds all types of `other`.
    pub fn extend(&mut self, other: &Omitted) {
        other.0.iter().for_each(|kind| self.add(kind));
    }

    /// The types, separated by commas; none if nothing is left out.
    pub fn list(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(", "))
    }

    /// The value of the header [`OMITTED`]; none if nothing is left out.
    pub fn header(&self) -> Option<HeaderValue> {
        self.list().and_then(|list| HeaderValue::from_str(&list).ok())
    }
}
