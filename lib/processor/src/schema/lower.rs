//! Lowering of a JSON schema to the keywords that a grammar holds.
//!
//! A keyword that a grammar does not hold is said by others, or left out and named. What the lowered
//! schema allows, the schema allows too, unless a keyword is left out; it may allow less: items that
//! `contains` demands follow each other, for instance. Unknown keywords and unknown formats are
//! annotations. `nullable` is read as OpenAPI 3.0 has it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::array::{self, Items};
use super::budget::Budget;
use super::disjoint::are_disjoint;
use super::kinds::{Kinds, is_nullable, kinds};
use super::lowered::{Lowered, Unheld};
use super::negate::negate;
use super::numbers::{count, is_exact};
use super::object::{self, texts};
use super::pattern;
use super::refs::{join, resolve};
use crate::cancel::Cancel;

/// Maximum number of schemas that a schema is lowered to.
const MAX_SIZE: usize = 200_000;

/// Maximum number of keywords that are named as left out.
const MAX_UNHELD: usize = 100;

/// Maximum depth of nested schemas.
const MAX_DEPTH: usize = 200;

/// Largest bound of a length or a number of items; no answer reaches a higher one.
const MAX_COUNT: u64 = 1 << 24;

/// Formats that grammars hold, beside those that are patterns here.
const FORMATS: [&str; 5] = ["duration", "ipv4", "ipv6", "uuid", "uri"];

/// Lowers a schema. The names of definitions begin with `prefix`. If `remembers` is true, the items
/// of arrays with `uniqueItems` are compared beside the grammar, where these are strings or numbers.
///
/// # Errors
/// The reason, if the schema becomes too large, or the work is cancelled.
pub fn lower(
    schema: &Value,
    prefix: &str,
    remembers: bool,
    cancel: &Arc<Cancel>,
) -> Result<Lowered, String> {
    let mut lowering = Lowering {
        root: schema,
        prefix,
        remembers,
        names: HashMap::new(),
        open: Vec::new(),
        budget: Budget::new(cancel),
        unheld: Vec::new(),
        size: 0,
        depth: 0,
    };
    let lowered = lowering.schema(schema, &Place::default())?;
    let mut definitions = Map::new();
    while let Some(pointer) = lowering.open.pop() {
        let target = schema.pointer(&pointer).unwrap_or(&Value::Bool(true));
        let name = lowering.name(&pointer);
        let place = Place { pointer, keyword: None };
        definitions.insert(name, lowering.schema(target, &place)?);
    }
    Ok(Lowered { schema: lowered, definitions, unheld: lowering.unheld })
}

/// Place of a schema within the document.
#[derive(Clone, Default)]
struct Place {
    /// JSON pointer.
    pointer: String,
    /// Keyword at the pointer that the schema stands for, if it is not a part of the document.
    keyword: Option<String>,
}

impl Place {
    /// Place of a part.
    fn part(&self, token: &str) -> Place {
        match self.keyword {
            Some(_) => self.clone(),
            None => Place { pointer: join(&self.pointer, token), keyword: None },
        }
    }

    /// Place of a schema that stands for a keyword.
    fn instead(&self, keyword: &str) -> Place {
        let keyword = self.keyword.clone().unwrap_or_else(|| keyword.to_owned());
        Place { pointer: self.part(&keyword).pointer, keyword: Some(keyword) }
    }
}

struct Lowering<'a> {
    root: &'a Value,
    prefix: &'a str,
    remembers: bool,
    /// Numbers of definitions by JSON pointer.
    names: HashMap<String, usize>,
    /// JSON pointers of definitions that are not lowered yet.
    open: Vec<String>,
    budget: Budget,
    unheld: Vec<Unheld>,
    size: usize,
    depth: usize,
}

/// Schema in the making: keywords, and schemas that apply as well.
#[derive(Default)]
struct Parts {
    own: Map<String, Value>,
    /// Parts of the document, whose properties come in this order.
    all: Vec<Value>,
    /// Schemas that stand for keywords.
    instead: Vec<Value>,
}

impl Lowering<'_> {
    fn schema(&mut self, schema: &Value, at: &Place) -> Result<Value, String> {
        self.size += 1;
        self.depth += 1;
        if self.size > MAX_SIZE || self.depth > MAX_DEPTH || self.budget.is_cancelled() {
            return Err("too large".to_owned());
        }
        let lowered = match schema {
            Value::Bool(all) => Value::Bool(*all),
            Value::Object(fields) if is_nullable(fields) => {
                let mut fields = fields.clone();
                fields.remove("nullable");
                let other = self.fields(&fields, at)?;
                json!({"anyOf": [other, {"type": "null"}]})
            }
            Value::Object(fields) => self.fields(fields, at)?,
            _ => {
                self.leave(at, "schema", Some("neither an object nor a boolean".to_owned()));
                Value::Bool(true)
            }
        };
        self.depth -= 1;
        Ok(lowered)
    }

    fn fields(&mut self, fields: &Map<String, Value>, at: &Place) -> Result<Value, String> {
        let mut parts = Parts::default();
        self.simple(fields, at, &mut parts);
        self.strings(fields, at, &mut parts);
        self.objects(fields, at, &mut parts)?;
        self.arrays(fields, at, &mut parts)?;
        self.references(fields, at, &mut parts);
        self.combined(fields, at, &mut parts)?;
        Ok(parts.join())
    }

    /// Names a keyword that is left out.
    fn leave(&mut self, at: &Place, keyword: &str, reason: Option<String>) {
        let Place { pointer, keyword } = at.instead(keyword);
        let keyword = keyword.unwrap_or_default();
        let unheld = Unheld { keyword, pointer, reason };
        if self.unheld.len() < MAX_UNHELD && !self.unheld.contains(&unheld) {
            self.unheld.push(unheld);
        }
    }

    /// Adds a schema that stands for a keyword; without one the keyword is left out.
    fn instead(
        &mut self,
        at: &Place,
        keyword: &str,
        schema: Option<Value>,
        parts: &mut Parts,
    ) -> Result<(), String> {
        match schema {
            Some(schema) => parts.instead.push(self.schema(&schema, &at.instead(keyword))?),
            None => self.leave(at, keyword, None),
        }
        Ok(())
    }

    /// Types, constants, and keywords of one number.
    fn simple(&mut self, fields: &Map<String, Value>, at: &Place, parts: &mut Parts) {
        for (keyword, value) in fields {
            let valid = match keyword.as_str() {
                "type" => Kinds::of_type(value).is_some(),
                "const" => is_exact(value),
                "enum" => value.as_array().is_some_and(|values| values.iter().all(is_exact)),
                "multipleOf" => value.as_f64().is_some_and(|n| n > 0.0),
                "minimum" | "maximum" => value.is_number(),
                "exclusiveMinimum" | "exclusiveMaximum" => value.is_number() || value.is_boolean(),
                "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
                | "maxProperties" => count(value).is_some(),
                _ => continue,
            };
            if !valid {
                let reason = match keyword.as_str() {
                    "type" => "no type of JSON",
                    "const" | "enum" => "a number with too many digits, or no list",
                    _ => "not a number that it may have",
                };
                self.leave(at, keyword, Some(reason.to_owned()));
                continue;
            }
            let endless = keyword.starts_with("max") && value.as_u64() > Some(MAX_COUNT);
            if endless && keyword != "maximum" {
                continue;
            }
            let value = match keyword.as_str() {
                "type" => json!(Kinds::of_type(value).unwrap_or(Kinds::ALL).names()),
                _ => count(value).map_or_else(|| value.clone(), Value::from),
            };
            parts.own.insert(keyword.clone(), value);
        }
    }

    fn strings(&mut self, fields: &Map<String, Value>, at: &Place, parts: &mut Parts) {
        match fields.get("format").and_then(Value::as_str) {
            Some(format) if FORMATS.contains(&format) => {
                parts.own.insert("format".to_owned(), format.into());
            }
            Some(format) => {
                let pattern = pattern::of_format(format);
                parts.instead.extend(pattern.map(|pattern| json!({"pattern": pattern})));
            }
            None => {}
        }
        let Some(pattern) = fields.get("pattern") else { return };
        match pattern
            .as_str()
            .ok_or_else(|| "not a text".to_owned())
            .and_then(|text| pattern::plain(text, &self.budget))
        {
            Ok(patterns) => {
                let mut patterns = patterns.into_iter().map(Value::from);
                parts.own.extend(patterns.next().map(|first| ("pattern".to_owned(), first)));
                parts.instead.extend(patterns.map(|pattern| json!({"pattern": pattern})));
            }
            Err(reason) => self.leave(at, "pattern", Some(reason)),
        }
    }

    fn objects(
        &mut self,
        fields: &Map<String, Value>,
        at: &Place,
        parts: &mut Parts,
    ) -> Result<(), String> {
        let mut closed = true;
        for keyword in ["properties", "patternProperties"] {
            let Some(stated) = fields.get(keyword).and_then(Value::as_object) else { continue };
            let mut lowered = Map::new();
            for (name, schema) in stated {
                let place = at.part(keyword).part(name);
                let name = match keyword {
                    "properties" => name.clone(),
                    _ => match pattern::plain(name, &self.budget).as_deref() {
                        Ok([pattern]) => pattern.clone(),
                        _ => {
                            self.leave(at, keyword, Some(format!("the pattern {name}")));
                            closed = false;
                            continue;
                        }
                    },
                };
                lowered.insert(name, self.schema(schema, &place)?);
            }
            parts.own.insert(keyword.to_owned(), lowered.into());
        }
        // Names of a pattern that is left out are no additional ones.
        if let Some(rest) = fields.get("additionalProperties").filter(|_| closed) {
            let lowered = self.schema(rest, &at.part("additionalProperties"))?;
            parts.own.insert("additionalProperties".to_owned(), lowered);
        }
        if fields.contains_key("required") {
            // In early drafts it is a boolean of the property itself.
            let names: Vec<&str> = texts(fields.get("required")).collect();
            parts.own.insert("required".to_owned(), json!(names));
        }
        for (keyword, schema) in object::dependent(fields) {
            self.instead(at, keyword, Some(schema), parts)?;
        }
        if fields.contains_key("propertyNames") {
            let schema = object::named(self.root, fields, &self.budget);
            self.instead(at, "propertyNames", schema, parts)?;
        }
        if fields.contains_key("unevaluatedProperties") {
            let schema = object::unevaluated(self.root, fields);
            self.instead(at, "unevaluatedProperties", schema, parts)?;
        }
        for (keyword, schema) in object::counted(self.root, fields) {
            parts.own.shift_remove(keyword);
            let others = json!({"type": Kinds::OBJECT.others().names()});
            let schema = schema.map(|schema| json!({"anyOf": [others, schema]}));
            self.instead(at, keyword, schema, parts)?;
        }
        Ok(())
    }

    fn arrays(
        &mut self,
        fields: &Map<String, Value>,
        at: &Place,
        parts: &mut Parts,
    ) -> Result<(), String> {
        let Items { first, rest } = Items::of(fields);
        let listed = matches!(fields.get("items"), Some(Value::Array(_)));
        let (first_keyword, rest_keyword) =
            if listed { ("items", "additionalItems") } else { ("prefixItems", "items") };
        if !first.is_empty() {
            let place = at.part(first_keyword);
            let lowered = first.iter().enumerate();
            let lowered = lowered.map(|(n, item)| self.schema(item, &place.part(&n.to_string())));
            let lowered = lowered.collect::<Result<Vec<_>, _>>()?;
            parts.own.insert("prefixItems".to_owned(), lowered.into());
        }
        if let Some(rest) = rest {
            let lowered = self.schema(rest, &at.part(rest_keyword))?;
            parts.own.insert("items".to_owned(), lowered);
        }
        if fields.contains_key("contains") {
            self.instead(at, "contains", array::containing(fields), parts)?;
        }
        if fields.get("uniqueItems") == Some(&Value::Bool(true)) {
            let schema = array::unique(self.root, fields);
            let remembered = self.remembers && at.keyword.is_none();
            if schema.is_some() || !(remembered && array::has_endless_items(self.root, fields)) {
                self.instead(at, "uniqueItems", schema, parts)?;
            }
        }
        if fields.get("unevaluatedItems").is_some_and(|rest| *rest != true) {
            let others = ["items", "contains", "anyOf", "oneOf", "allOf", "if", "$ref"];
            let alone = !others.iter().any(|keyword| fields.contains_key(*keyword));
            let schema = alone.then(|| {
                json!({"prefixItems": vec![true; first.len()], "items": fields["unevaluatedItems"]})
            });
            self.instead(at, "unevaluatedItems", schema, parts)?;
        }
        Ok(())
    }

    fn references(&mut self, fields: &Map<String, Value>, at: &Place, parts: &mut Parts) {
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(reference) = fields.get(keyword) else { continue };
            match reference.as_str().and_then(|reference| resolve(self.root, reference)) {
                Some((pointer, _)) => {
                    let name = self.name(&pointer);
                    parts.all.push(json!({"$ref": format!("#/$defs/{name}")}));
                }
                None => {
                    self.leave(at, keyword, Some("it leads nowhere within the schema".to_owned()));
                }
            }
        }
    }

    /// Name of the definition of the schema at a JSON pointer.
    fn name(&mut self, pointer: &str) -> String {
        let number = match self.names.get(pointer) {
            Some(number) => *number,
            None => {
                self.names.insert(pointer.to_owned(), self.names.len());
                self.open.push(pointer.to_owned());
                self.names.len() - 1
            }
        };
        format!("{}{number}", self.prefix)
    }

    /// Combinations of schemas, and conditions.
    fn combined(
        &mut self,
        fields: &Map<String, Value>,
        at: &Place,
        parts: &mut Parts,
    ) -> Result<(), String> {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let Some(schemas) = fields.get(keyword).and_then(Value::as_array) else { continue };
            let exclusive = (keyword == "oneOf").then(|| typed(fields, schemas));
            if let Some(exclusive) = exclusive.filter(|schemas| !self.excludes(schemas)) {
                match self.exclusive(&exclusive) {
                    Some(schema) => {
                        self.instead(at, keyword, Some(schema), parts)?;
                        continue;
                    }
                    None => {
                        let reason = "more than one of its schemas may apply to a value";
                        self.leave(at, keyword, Some(reason.to_owned()));
                    }
                }
            }
            let place = at.part(keyword);
            let lowered = schemas.iter().enumerate();
            let lowered =
                lowered.map(|(n, schema)| self.schema(schema, &place.part(&n.to_string())));
            let lowered = lowered.collect::<Result<Vec<_>, _>>()?;
            match keyword {
                "allOf" => parts.all.extend(lowered),
                _ => parts.all.push(any_of(lowered)),
            }
        }
        let within = fields.get("type").and_then(Kinds::of_type).unwrap_or(Kinds::ALL);
        if let Some(schema) = fields.get("not") {
            self.instead(at, "not", self.negate(schema, within), parts)?;
        }
        if let Some(condition) = fields.get("if") {
            let given = |keyword| fields.get(keyword).unwrap_or(&Value::Bool(true));
            let (then, other) = (given("then"), given("else"));
            let schema = self.negate(condition, within).map(
                |not| json!({"anyOf": [{"allOf": [condition, then]}, {"allOf": [not, other]}]}),
            );
            if *then != true || *other != true {
                self.instead(at, "if", schema, parts)?;
            }
        }
        Ok(())
    }

    fn negate(&self, schema: &Value, within: Kinds) -> Option<Value> {
        negate(self.root, schema, within, &self.budget)
    }

    fn are_disjoint(&self, one: &Value, other: &Value) -> bool {
        are_disjoint(self.root, one, other, &self.budget)
    }

    /// True if no value can follow two of `schemas`.
    fn excludes(&self, schemas: &[Value]) -> bool {
        schemas
            .iter()
            .enumerate()
            .all(|(n, one)| schemas[n + 1..].iter().all(|other| self.are_disjoint(one, other)))
    }

    /// Schema of the values that follow exactly one of `schemas`; none if no keywords express it, or
    /// there is no budget left.
    fn exclusive(&self, schemas: &[Value]) -> Option<Value> {
        let mut either = Vec::new();
        for (n, schema) in schemas.iter().enumerate() {
            let (mut all, within) = (vec![schema.clone()], kinds(self.root, schema));
            for (_, other) in schemas.iter().enumerate().filter(|(other, _)| *other != n) {
                if !self.are_disjoint(schema, other) {
                    let negated = self.budget.step().then(|| self.negate(other, within));
                    all.push(negated.flatten()?);
                }
            }
            either.push(json!({"allOf": all}));
        }
        Some(json!({"anyOf": either}))
    }
}

impl Parts {
    fn join(self) -> Value {
        let Parts { mut own, mut all, instead } = self;
        all.extend(instead);
        if all.contains(&Value::Bool(false)) {
            return Value::Bool(false);
        }
        all.retain(|part| *part != true);
        match (own.is_empty(), all.len()) {
            (true, 0) => return Value::Bool(true),
            (true, 1) => return all.remove(0),
            (_, 0) => {}
            _ => drop(own.insert("allOf".to_owned(), all.into())),
        }
        own.into()
    }
}

/// Alternatives with the type that is stated beside them, where they have none of their own.
fn typed(fields: &Map<String, Value>, schemas: &[Value]) -> Vec<Value> {
    let mut schemas = schemas.to_vec();
    let Some(kind) = fields.get("type") else { return schemas };
    for fields in schemas.iter_mut().filter_map(Value::as_object_mut) {
        fields.entry("type").or_insert_with(|| kind.clone());
    }
    schemas
}

/// Schema of the values that follow any of `schemas`.
fn any_of(mut schemas: Vec<Value>) -> Value {
    if schemas.contains(&Value::Bool(true)) {
        return Value::Bool(true);
    }
    schemas.retain(|schema| *schema != false);
    match schemas.len() {
        0 => Value::Bool(false),
        1 => schemas.remove(0),
        _ => json!({"anyOf": schemas}),
    }
}
