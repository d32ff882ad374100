//! Requests: any object is one, or an error that names the field.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_core::{Kind, Record};
use mlxk_processor::Request;
use mlxk_processor::request::Preset;
use serde_json::{Map, Value, json};

const FIELDS: [&str; 12] = [
    "prompt",
    "messages",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "other",
];

fn values() -> [Value; 14] {
    [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("text"),
        json!([]),
        json!(["a", 7]),
        json!({}),
        json!([{"role": "user", "content": "Hi"}]),
    ]
}

#[test]
fn any_object_is_a_request_or_an_error_that_names_a_field() {
    let values = values();
    arbtest::arbtest(|u| {
        let mut fields = Map::new();
        for _ in 0..u.int_in_range(0..=5)? {
            fields.insert((*u.choose(&FIELDS)?).to_owned(), u.choose(&values)?.clone());
        }
        let record = Record::from(fields);
        match Request::parse(&record, &Preset { raw: u.arbitrary()?, ..Preset::default() }) {
            Ok(request) => request.options.check().unwrap(),
            Err(e) => {
                assert_eq!(e.kind, Kind::Validation);
                let message = e.to_string();
                let names = |field: &&str| {
                    message.contains(&format!("`{field}`"))
                        || message.contains(&format!("`{field}["))
                };
                assert!(FIELDS.iter().any(names), "{e}");
            }
        }
        Ok(())
    })
    .budget_ms(200);
}
