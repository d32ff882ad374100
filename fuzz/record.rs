//! Records, as programs read them from each other, and the requests that are in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlxk_core::Record;
use mlxk_processor::Request;
use mlxk_processor::request::Preset;

fuzz_target!(|line: &str| {
    let Ok(record) = Record::parse(line) else { return };
    let written = record.to_string();
    assert_eq!(Record::parse(&written).unwrap(), record);
    let _ = record.spec();
    for raw in [false, true] {
        if let Ok(request) = Request::parse(&record, &Preset { raw, ..Preset::default() }) {
            request.options.check().unwrap();
        }
    }
});
