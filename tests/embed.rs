//! mlxk-embed: texts and records in, records with vectors, or the best ones, out.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::env::{Env, Run, records};

/// A home with the tiny encoder of a case as the workspace `bert`.
struct Bert {
    env: Env,
    expected: Value,
}

impl Bert {
    fn new(case: &str) -> Bert {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embed").join(case);
        let env = Env::new();
        copy(&from, &env.workspaces().join("bert"));
        let expected = fs::read(from.join("expected.json")).unwrap();
        Bert { env, expected: serde_json::from_slice(&expected).unwrap() }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.env.run("mlxk-embed").args(["bert"]).args(args)
    }

    /// Checks the vectors of records against some of the case.
    #[track_caller]
    fn are(&self, records: &[Value], expected: &Value) {
        let expected = expected.as_array().unwrap();
        assert_eq!(records.len(), expected.len());
        for (record, expected) in records.iter().zip(expected) {
            let [got, want] = [&record["embedding"], expected].map(|vector| {
                let numbers = vector.as_array().unwrap().iter();
                numbers.map(|x| x.as_f64().unwrap()).collect::<Vec<_>>()
            });
            let apart = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
            let largest = want.iter().fold(0f64, |most, x| most.max(x.abs()));
            assert_eq!(got.len(), want.len());
            assert!(apart.fold(0f64, f64::max) <= 1e-4 * largest, "{record}");
        }
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => fs::write(target, fs::read(&path).unwrap()).unwrap(),
        }
    }
}

fn lines(records: impl IntoIterator<Item = Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

#[test]
fn records_come_back_in_order_with_their_vectors() {
    let bert = Bert::new("bert-mean");
    let texts = bert.expected["texts"].as_array().unwrap();
    let input = texts.iter().enumerate().map(|(id, text)| json!({"id": id, "text": text}));
    let told = bert.run(&["--truncate"]).stdin(lines(input)).records();
    bert.are(&told, &bert.expected["embeddings"]);
    for (id, (record, text)) in told.iter().zip(texts).enumerate() {
        let tokens = bert.expected["ids"][id].as_array().unwrap().len();
        let sizes = [&record["tokens"], &record["dimensions"]];
        assert_eq!(sizes, [&json!(tokens), &json!(32)]);
        assert_eq!(
            (&record["id"], &record["text"], &record["truncated"]),
            (&json!(id), text, &json!(tokens == 48))
        );
        assert!(record["model"].as_str().unwrap().ends_with("/bert"), "{record}");
    }
}

#[test]
fn lines_and_files_and_tokens_are_texts_too() {
    let bert = Bert::new("bert-cls");
    let text = bert.expected["texts"][0].as_str().unwrap();
    let want = json!([bert.expected["embeddings"][0]]);
    bert.are(&bert.run(&[]).stdin(format!("\n{text}\r\n\n")).records(), &want);
    let file = bert.env.home().join("texts");
    fs::write(&file, text).unwrap();
    let told = bert.run(&[file.to_str().unwrap()]).records();
    assert_eq!(told[0]["text"], text);
    bert.are(&told, &want);
    for record in [json!({"input": text}), json!({"input": bert.expected["ids"][0]})] {
        bert.are(&bert.run(&["-"]).stdin(lines([record])).records(), &want);
    }
    let record = json!({"title": text, "text": "another"});
    bert.are(&bert.run(&["--field", "title"]).stdin(lines([record])).records(), &want);
}

#[test]
fn prompts_and_dimensions_are_those_of_the_reference() {
    let bert = Bert::new("bert-cls");
    let prompt = &bert.expected["prompts"][0];
    let texts =
        |texts: &Value| lines(texts.as_array().unwrap().iter().map(|text| json!({"text": text})));
    let name = prompt["prompt_name"].as_str().unwrap();
    let input = texts(&prompt["texts"]);
    let told = bert.run(&["--prompt", name]).stdin(input.clone()).records();
    bert.are(&told, &prompt["embeddings"]);
    let told =
        bert.run(&["--prompt-text", prompt["prompt"].as_str().unwrap()]).stdin(input).records();
    bert.are(&told, &prompt["embeddings"]);
    let cut = &bert.expected["truncated"];
    let dimensions = cut["dimensions"].to_string();
    let told = bert
        .run(&["--truncate", "--dimensions", &dimensions])
        .stdin(texts(&bert.expected["texts"]));
    bert.are(&told.records(), &cut["embeddings"]);
}

#[test]
fn a_bad_line_is_reported_and_the_rest_goes_on() {
    let bert = Bert::new("bert-cls");
    let long = "the cat ".repeat(100);
    let input =
        [&b"a\n{oops\n{\"x\":1}\n{\"text\":7}\n\xff\n"[..], long.as_bytes(), b"\nb\n"].concat();
    let ended = bert.run(&[]).stdin(input).end();
    assert_eq!(ended.status(), 1);
    let told = records(&ended.stdout());
    assert_eq!(told.iter().map(|record| &record["text"]).collect::<Vec<_>>(), ["a", "b"]);
    let said = ended.stderr();
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("hint: ")).collect();
    for (line, (number, reason)) in said.iter().zip([
        (2, "not a JSON record"),
        (3, "a record without `text`"),
        (4, "`text` is neither a text nor tokens"),
        (5, "not UTF-8 text"),
        (6, "the text has more than the 64 tokens of the model"),
    ]) {
        let start = format!("mlxk-embed: standard input, line {number}: {reason}");
        assert!(line.starts_with(&start), "{line}\n{start}");
    }
    assert_eq!(said.len(), 5);
}

#[test]
fn what_cannot_be_done_is_refused_in_a_line() {
    let bert = Bert::new("bert-cls");
    let refused = |args: &[&str], message: &str| {
        bert.run(args).stdin("a\n").end().refused(1, &format!("mlxk-embed: {message}"));
    };
    refused(&["--prompt", "question"], "the model has no prompt \"question\"");
    refused(&["--dimensions", "33"], "`dimensions` is 33, and the model's vectors have 32");
    refused(&["nothing"], "nothing: No such file or directory (os error 2)");
    let idle = bert.run(&[]).end();
    idle.refused(2, "mlxk-embed: nothing to embed");
    let bert_run = bert.env.run("mlxk-run").args(["bert", "Hello"]).end();
    let first = bert_run.stderr();
    assert!(
        first.contains("an embedding model: it turns text into vectors and writes none"),
        "{first}"
    );
    assert!(first.contains("hint: mlxk-embed turns text into vectors with it"), "{first}");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/llama");
    copy(&from, &bert.env.workspaces().join("llama"));
    let llama = bert.env.run("mlxk-embed").args(["llama"]).stdin("a\n").end();
    let said = llama.stderr();
    assert!(said.contains("not an embedding model") && said.contains("hint: mlxk-run"), "{said}");
}

#[test]
fn the_envelope_holds_all_records() {
    let bert = Bert::new("bert-mean");
    let envelope = bert.run(&[]).stdin("a\nb\n").envelope(0);
    assert_eq!(envelope["command"], "embed");
    assert_eq!(envelope["data"]["records"].as_array().unwrap().len(), 2);
    let text = bert.run(&["--human"]).stdin("the cat\n").ok();
    assert!(text.ends_with(" ...] 32 dimensions, 4 tokens: the cat\n"), "{text}");
}

#[test]
fn sides_of_a_search_and_encodings_are_chosen_by_flags() {
    let bert = Bert::new("bert-cls");
    let prompt = &bert.expected["prompts"][0];
    let texts = prompt["texts"].as_array().unwrap();
    let input = lines(texts.iter().map(|text| json!({"id": 7, "text": text})));
    let told = bert.run(&["--query"]).stdin(input.clone()).records();
    bert.are(&told, &prompt["embeddings"]);
    assert_eq!(told[0]["id"], 7);
    let plain = bert.run(&["--document"]).stdin(input.clone()).records();
    let alone = bert.run(&["--batch", "1"]).stdin(input.clone()).records();
    bert.are(&plain, &json!([alone[0]["embedding"], alone[1]["embedding"]]));
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let want = numbers(&plain[0]["embedding"]);
    let unit = bert.run(&["--normalize"]).stdin(input.clone()).records();
    let length = numbers(&unit[0]["embedding"]).iter().map(|x| x * x).sum::<f64>();
    assert!((length - 1.0).abs() < 1e-5);
    let coded =
        |form: &str| bert.run(&["--encoding", form]).stdin(input.clone()).records().remove(0);
    let bytes: Vec<u8> = want.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
    let base64 = coded("base64");
    assert_eq!((&base64["encoding"], &base64["dimensions"]), (&json!("base64"), &json!(32)));
    assert_eq!(base64["embedding"].as_str().unwrap().len(), bytes.len().div_ceil(3) * 4);
    let int8 = coded("int8");
    let scale = int8["scale"].as_f64().unwrap();
    for (integer, x) in numbers(&int8["embedding"]).iter().zip(&want) {
        assert!((integer * scale - x).abs() <= scale * 0.51, "{integer} {scale} {x}");
    }
    let binary = numbers(&coded("binary")["embedding"]);
    let byte =
        |eight: &[f64]| eight.iter().fold(0, |byte, &x| byte << 1 | i32::from(x > 0.0)) - 128;
    assert_eq!(binary, want.chunks(8).map(byte).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn a_table_of_vectors_embeds_any_number_of_lines_in_order() {
    let table = Bert::new("static");
    let expected = table.expected["embeddings"].as_array().unwrap();
    let texts = table.expected["texts"].as_array().unwrap();
    let input: Vec<Value> = (0..600).map(|i| json!({"text": texts[i % texts.len()]})).collect();
    let told = table.run(&[]).stdin(lines(input)).records();
    let want: Vec<&Value> = (0..600).map(|i| &expected[i % texts.len()]).collect();
    assert_eq!(told.len(), 600);
    let zero = texts.iter().position(|text| text == "").unwrap();
    assert_eq!(told[zero]["embedding"], json!(vec![0.0; 32]));
    let (told, want): (Vec<Value>, Vec<&Value>) = told
        .into_iter()
        .zip(want)
        .enumerate()
        .filter(|(i, _)| i % texts.len() != zero)
        .map(|(_, both)| both)
        .unzip();
    table.are(&told, &json!(want));
}

#[test]
fn a_reranker_is_no_embedding_model() {
    let ranker = Bert::new("bert-rerank");
    let said = ranker.run(&[]).stdin("a\n").end();
    assert!(said.status() == 1 && said.stderr().contains("not an embedding model"), "{said:?}");
    let said = ranker.env.run("mlxk-run").args(["bert", "Hello"]).end().stderr();
    assert!(said.contains("a reranker: it scores pairs of texts and writes none"), "{said}");
}

#[test]
fn a_weight_that_is_not_a_number_is_reported_for_the_texts_that_meet_it() {
    let bert = Bert::new("bert-cls");
    let path = bert.env.workspaces().join("bert/model.safetensors");
    let mut file = fs::read(&path).unwrap();
    // The first element of the first tensor, a bias of the norm of the embeddings.
    let first = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    file[first..first + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, file).unwrap();
    let ended = bert.run(&[]).stdin("a\n").end();
    assert_eq!(ended.status(), 1);
    let said = ended.stderr();
    assert!(
        said.starts_with("mlxk-embed: standard input, line 1: the model's vector is not finite"),
        "{said}"
    );
}

/// Texts of an index, and a question that is the second of them.
const TEXTS: &str =
    "a dog runs\nthe cat sat on the mat\n{\"id\":7,\"text\":\"the king\"}\nthe cat\n";
const QUESTION: &str = "the cat sat on the mat";

/// Index of [`TEXTS`].
fn index(bert: &Bert, args: &[&str]) -> String {
    lines(bert.run(args).stdin(TEXTS).records())
}

#[test]
fn a_search_ranks_the_records_of_an_index_in_any_encoding() {
    let bert = Bert::new("static");
    let search = |args: &[&str], index: String| {
        bert.run(&[&["--search", QUESTION], args].concat()).stdin(index).records()
    };
    let found = search(&[], index(&bert, &[]));
    assert_eq!(found.len(), 4);
    let scores: Vec<f64> = found.iter().map(|record| record["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && (scores[0] - 1.0).abs() < 1e-6, "{scores:?}");
    assert_eq!(found[0]["text"], QUESTION);
    assert!(found.iter().all(|record| record.get("embedding").is_none()));
    assert_eq!(found.iter().filter(|record| record["id"] == 7).count(), 1);
    assert_eq!(search(&["--top", "2"], index(&bert, &[])), found[..2]);
    let least = scores[1].to_string();
    assert_eq!(search(&["--threshold", &least], index(&bert, &[])), found[..2]);
    for (encoding, apart) in [("base64", 1e-6), ("int8", 0.01), ("binary", 0.5)] {
        let coded = search(&[], index(&bert, &["--encoding", encoding]));
        assert_eq!(coded[0]["text"], QUESTION);
        assert!((coded[0]["score"].as_f64().unwrap() - 1.0).abs() < apart, "{coded:?}");
        assert!(["embedding", "encoding", "scale"].iter().all(|key| coded[0].get(key).is_none()));
    }
    let file = bert.env.home().join("index.ndjson");
    fs::write(&file, index(&bert, &[])).unwrap();
    let table = bert.run(&["--search", QUESTION, "--human", file.to_str().unwrap()]).ok();
    assert!(table.contains("\n1.0000  | the cat sat on the mat\n"), "{table}");
    let none = bert.run(&["--search", QUESTION, "--threshold", "1.5"]).stdin(index(&bert, &[]));
    let none = none.end();
    assert_eq!((none.status(), none.stdout(), none.stderr()), (1, "".into(), "".into()));
}

#[test]
fn a_search_uses_the_similarity_and_the_query_prompt_of_the_model() {
    let bert = Bert::new("bert-cls");
    let numbers = |record: &Value| -> Vec<f64> {
        record["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let config = bert.env.workspaces().join("bert/config_sentence_transformers.json");
    let stated: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let index = index(&bert, &[]);
    let query = numbers(&bert.run(&["--query"]).stdin(QUESTION).records()[0]);
    let sum = |vector: &[f64], term: fn(f64, f64) -> f64| -> f64 {
        query.iter().zip(vector).map(|(&a, &b)| term(a, b)).sum()
    };
    for name in ["dot", "euclidean", "manhattan"] {
        let mut stated = stated.clone();
        stated["similarity_fn_name"] = json!(name);
        fs::write(&config, stated.to_string()).unwrap();
        let mut want: Vec<f64> = records(&index)
            .iter()
            .map(|record| match name {
                "dot" => sum(&numbers(record), |a, b| a * b),
                "euclidean" => -sum(&numbers(record), |a, b| (a - b) * (a - b)).sqrt(),
                _ => -sum(&numbers(record), |a, b| (a - b).abs()),
            })
            .collect();
        want.sort_by(|a, b| b.total_cmp(a));
        let found = bert.run(&["--search", QUESTION]).stdin(index.clone()).records();
        for (record, want) in found.iter().zip(want) {
            let score = record["score"].as_f64().unwrap();
            assert!((score - want).abs() < 1e-4, "{name}: {score} {want}");
        }
    }
    let mut stated = stated;
    stated["similarity_fn_name"] = json!("likeness");
    fs::write(&config, stated.to_string()).unwrap();
    let said = bert.run(&["--search", QUESTION]).stdin(index).end().stderr();
    assert!(said.contains("no similarity is called `likeness`"), "{said}");
}

#[test]
fn a_record_that_cannot_be_compared_is_reported_and_the_rest_goes_on() {
    let bert = Bert::new("static");
    let good = index(&bert, &[]);
    let one = &records(&good)[0];
    let with = |key: &str, value: Value| {
        let mut record = one.clone();
        record[key] = value;
        record
    };
    let mut null = one.clone();
    null["embedding"][3] = Value::Null;
    let cases = [
        (with("model", json!("org/other")), "a vector of another model: org/other"),
        (with("embedding", json!([1.0, 2.0])), "a vector of 2 dimensions, and the question has 32"),
        (with("embedding", Value::Null), "a record without `embedding`"),
        (json!({"text": "the cat"}), "a record without `embedding`"),
        (null, "`embedding` has numbers that are not finite"),
        (with("embedding", json!("AAAA")), "`embedding` is not numbers"),
        (with("embedding", json!(["1"])), "`embedding` is not numbers"),
        (with("encoding", json!("base64")), "`embedding` is not base64"),
        (with("encoding", json!("int8")), "an int8 vector without `scale`"),
        (with("encoding", json!("binary")), "`embedding` is not integers from -128 to 127"),
        (with("encoding", json!("int4")), "`encoding` is \"int4\", not float, base64"),
    ];
    let bad = lines(cases.iter().map(|(record, _)| record.clone()));
    let input = [bad.as_bytes(), b"{oops\ntext\n\xff\n", good.as_bytes()].concat();
    let ended = bert.run(&["--search", QUESTION]).stdin(input).end();
    assert_eq!((ended.status(), records(&ended.stdout()).len()), (1, 4));
    let said = ended.stderr();
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("hint: ")).collect();
    let others = ["not a JSON record", "a record without `embedding`", "not UTF-8 text"];
    let reasons = cases.iter().map(|(_, reason)| *reason).chain(others);
    for (at, (line, reason)) in said.iter().zip(reasons).enumerate() {
        let start = format!("mlxk-embed: standard input, line {}: {reason}", at + 1);
        assert!(line.starts_with(&start), "{line}\n{start}");
    }
    assert_eq!(said.len(), cases.len() + others.len());
    let cut = index(&bert, &["--dimensions", "8"]);
    let ended = bert.run(&["--search", QUESTION]).stdin(cut.clone()).end();
    assert!(ended.stderr().contains("hint: --dimensions 8 cuts the question"), "{ended:?}");
    let found = bert.run(&["--search", QUESTION, "--dimensions", "8"]).stdin(cut).records();
    assert_eq!(found[0]["text"], QUESTION);
}

#[test]
fn a_reranker_ranks_what_a_search_found() {
    let bert = Bert::new("static");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embed/bert-rerank");
    copy(&data, &bert.env.workspaces().join("ranker"));
    let rerank = |question: &str, args: &[&str]| {
        let args = [&["ranker", "--rerank", question], args].concat();
        bert.env.run("mlxk-embed").args(args)
    };
    let found = bert.run(&["--search", QUESTION]).stdin(index(&bert, &[])).records();
    let ranked = rerank(QUESTION, &[]).stdin(lines(found)).records();
    let scores: Vec<f64> = ranked.iter().map(|record| record["score"].as_f64().unwrap()).collect();
    assert!(scores.len() == 4 && scores.is_sorted_by(|a, b| a >= b), "{ranked:?}");
    assert!(ranked[0]["model"].as_str().unwrap().ends_with("/ranker"));
    let alone = rerank(QUESTION, &["--field", "title", "--top", "1"]);
    let title = lines([json!({"title": ranked[3]["text"], "embedding": [1]})]);
    let alone = alone.stdin(title).records().remove(0);
    assert!((alone["score"].as_f64().unwrap() - scores[3]).abs() < 1e-4, "{alone}");
    assert!(alone.get("embedding").is_none());
    let long = "the cat ".repeat(100);
    let ended = rerank(QUESTION, &[]).stdin(format!("{long}\nthe cat\n")).end();
    assert_eq!((ended.status(), records(&ended.stdout()).len()), (1, 1));
    assert!(ended.stderr().contains("hint: --truncate cuts it"), "{ended:?}");
    let cut = rerank(QUESTION, &["--truncate"]).stdin(long).records();
    assert_eq!(cut[0]["truncated"], true);
    let said = bert.run(&["--rerank", QUESTION]).stdin("a\n").end().stderr();
    assert!(said.contains("not a reranker") && said.contains("hint: mlxk-embed"), "{said}");
    let said = bert.env.run("mlxk-embed").args(["ranker"]).stdin("a\n").end().stderr();
    assert!(said.contains("hint: mlxk-embed --rerank ranks texts with it"), "{said}");
}

#[test]
fn a_matrix_has_a_row_for_each_text() {
    let bert = Bert::new("static");
    let want: Vec<u8> = bert
        .run(&[])
        .stdin(TEXTS)
        .records()
        .iter()
        .flat_map(|record| record["embedding"].as_array().unwrap().clone())
        .flat_map(|x| (x.as_f64().unwrap() as f32).to_le_bytes())
        .collect();
    let written = |file: &str| {
        let told = bert.run(&["--output", file]).stdin(TEXTS).records();
        assert_eq!(told, [json!({"output": file, "rows": 4, "dimensions": 32})]);
        fs::read(bert.env.home().join(file)).unwrap()
    };
    let npy = written("a.npy");
    let data = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    let header = str::from_utf8(&npy[10..data]).unwrap();
    let fields = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 32), }";
    assert!(header.trim_end() == fields && header.ends_with('\n') && data % 64 == 0, "{header}");
    assert_eq!(npy[data..], want);
    let tensors = written("a.safetensors");
    let data = 8 + u64::from_le_bytes(tensors[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&tensors[8..data]).unwrap();
    let tensor = json!({"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]});
    assert_eq!(header, json!({"embeddings": tensor}));
    assert_eq!(tensors[data..], want);
    let ended = bert.run(&["--output", "a.npy"]).stdin("a\n{oops\nb\n").end();
    assert_eq!((ended.status(), records(&ended.stdout())[0]["rows"].clone()), (1, json!(2)));
    let ended = bert.run(&["--output", "a.txt"]).stdin("a\n").end();
    ended.refused(2, "mlxk-embed: a.txt: the name ends neither with .npy nor with .safetensors");
}

#[test]
fn an_interrupted_matrix_leaves_no_file() {
    let bert = Bert::new("static");
    let before = bert.env.files();
    let mut command = bert.env.command("mlxk-embed");
    command.args(["bert", "--output", "a.npy"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"the cat\n").unwrap();
    let written = || bert.env.files().len() > before.len();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !written() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(written());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert_eq!(bert.env.files(), before);
}
