//! Lines of input, which become a record or an error of one line.

use mlxk_core::Record;

/// Parts of records, which random lines are made of.
const PIECES: [&str; 20] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\"name\"",
    "\"hash\"",
    "\"org/m\"",
    "\\ud800",
    "\\",
    "-",
    "1e999",
    "null",
    "org/m@",
    "/",
    "..",
    "\u{0}",
    "\u{feff}",
];

#[test]
fn any_line_is_a_record_or_one_clear_error() {
    arbtest::arbtest(|u| {
        let mut line = String::new();
        for _ in 0..u.int_in_range(0..=24)? {
            line += u.choose(&PIECES)?;
        }
        match Record::parse(&line) {
            Err(e) => assert!(!e.to_string().contains('\n') && line.trim().starts_with('{'), "{e}"),
            Ok(record) => {
                let written = record.to_string();
                assert!(!written.contains('\n'), "{written}");
                assert_eq!(Record::parse(&written).unwrap(), record);
                if let Err(e) = record.spec() {
                    assert!(!e.to_string().contains('\n'), "{e}");
                }
            }
        }
        Ok(())
    })
    .budget_ms(200);
}
