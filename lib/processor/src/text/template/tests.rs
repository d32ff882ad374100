//! Fuel of operations: what goes through a long text or list, or makes one, costs by its length.

use minijinja::{State, Value, context};

use super::python;
use super::rewrite::rewrite;

/// Fuel that an expression takes. Its variables are a `text` of five bytes times `size`, a `list` of
/// numbers, `words` and a `dict` of `size` items each, and `size` itself.
fn cost(expression: &str, size: usize) -> u64 {
    fn used(state: &State) -> u64 {
        state.fuel_levels().map_or(0, |(used, _)| used)
    }
    let mut environment = python::environment().unwrap();
    environment.set_fuel(Some(1 << 40));
    environment.add_function("used", used);
    let source =
        format!("{{% set before = used() %}}{{% set x = {expression} %}}{{{{ used() - before }}}}");
    let source = rewrite(&source).map_err(|malformed| malformed.message).unwrap();
    environment.add_template_owned("t", source).unwrap();
    let words: Vec<String> = (0..size).map(|n| format!("w{n}")).collect();
    let dict = Value::from_pairs(words.iter().map(|word| (word.clone(), Value::from(1))));
    let rows: Vec<Value> = words.iter().map(|word| context! { k => word }).collect();
    let text = "ab-c\n".repeat(size);
    let list: Vec<usize> = (0..size).collect();
    let made = environment.get_template("t").unwrap().render(context! {
        same => text.clone(), equal => list.clone(), line => "x".repeat(5 * size),
        text, list, words, dict, rows, size,
    });
    made.unwrap_or_else(|e| panic!("{expression}: {e:#}")).trim().parse().unwrap()
}

#[test]
fn what_goes_through_long_values_takes_fuel_by_their_length() {
    let filters = "capitalize escape forceescape indent list lower pprint replace('a','b') reverse \
        string striptags title tojson trim upper urlencode urlize wordcount wordwrap(9) \
        truncate(9,true) center(size) batch(3) slice(3) unique sort join('-') map('upper') min max \
        select('eq','a') reject('eq','a')";
    let methods = "capitalize() casefold() center(size*9) count('a') endswith('c') expandtabs() \
        find('x') index('\\n') isalnum() isalpha() isascii() isdecimal() isdigit() islower() \
        isnumeric() isprintable() isspace() istitle() isupper() join('ab') ljust(size*9) lower() \
        lstrip('a') partition('x') replace('a','b') rfind('x') rindex('a') rjust(size*9) \
        rpartition('x') rsplit() rsplit('-') rstrip('c') split() split('-') splitlines() strip() \
        swapcase() title() translate({97:'b'}) upper() zfill(size*9)";
    let others = [
        "text ~ text",
        "text + text",
        "text * 3",
        "'x' * size",
        "[1] * size",
        "list * 2",
        "list + list",
        "list == equal",
        "text == same",
        "text < same",
        "list < equal",
        "'zz' in text",
        "-1 in list",
        "text[1:]",
        "text[::-1]",
        "list[::-1]",
        "text % ()",
        "'%s' % text",
        "'{}'.format(text)",
        "'{a}'.format_map({'a': text})",
        "'-'.join(words)",
        "list|sort",
        "list|sum",
        "list|tojson",
        "list|pprint",
        "list|string",
        "list|join('-')",
        "list|map('string')|list",
        "list|select('odd')|list",
        "list|unique|list",
        "list|min",
        "list|random",
        "list|reverse|list",
        "list|batch(3)|list",
        "list|slice(3)|list",
        "list.count(-1)",
        "list.copy()",
        "list.index(size-1)",
        "rows|map(attribute='k')|list",
        "rows|groupby('k')",
        "rows|selectattr('k','eq','a')|list",
        "rows|sort(attribute='k')",
        "dict|dictsort",
        "dict|items|list",
        "dict|tojson(indent=2)",
        "dict|xmlattr",
        "dict|length ~ dict",
        "dict.items()|list",
        "dict.keys()|list",
        "dict.values()|list",
        "dict.copy()",
        "range(size)",
        "range(size)|list",
        "line|wordwrap(9)",
        "line|urlize",
        "line|indent(4)",
        "line.split('x')",
        "line.replace('x', 'yy')",
        "line|escape",
    ];
    let filters = filters.split_whitespace().map(|filter| format!("text|{filter}"));
    let methods = methods.split_whitespace().map(|method| format!("text.{method}"));
    let all = filters.chain(methods).chain(others.map(str::to_owned));
    let (few, many) = (2_000, 16_000);
    let free: Vec<String> = all
        .filter_map(|expression| {
            let costs = [cost(&expression, few), cost(&expression, many)];
            // At least 64 bytes for each fuel, and eight times as much for eight times the length.
            let grows = costs[1] >= 4 * costs[0] && costs[1] >= (many / 64) as u64;
            (!grows).then(|| format!("{expression}: {costs:?}"))
        })
        .collect();
    assert!(free.is_empty(), "{}", free.join("\n"));
}
