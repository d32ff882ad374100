//! One model on two processes of this machine computes what it computes in one.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use mlxk_core::Inspected;
use mlxk_engine::distributed::{Group, RankConfig, follow};
use mlxk_engine::{Cost, Model};
use mlxk_models::checkpoint::part::Split;
use mlxk_processor::request::Prompt;
use mlxk_processor::{Image, Prepared, Processor, Request};
use model::{Draft, GREEDY};
use tempfile::TempDir;

/// Models, and how they can be taken apart; of norms over all heads only the feed-forward part.
const CASES: [(&str, &[Split]); 14] = [
    ("llama", &[Split::Tensor, Split::Pipeline]),
    ("llama-q4", &[Split::Tensor, Split::Pipeline]),
    ("llama-linear-biased", &[Split::Tensor]),
    ("llama-nvfp4", &[Split::Tensor]),
    ("gpt2", &[Split::Tensor, Split::Pipeline]),
    ("gpt_oss", &[Split::Tensor, Split::Pipeline]),
    ("mixtral", &[Split::Tensor, Split::Pipeline]),
    ("cohere", &[Split::Tensor]),
    ("deepseek_v41-mixed", &[Split::Tensor]),
    ("exaone4", &[Split::Tensor, Split::Pipeline]),
    ("olmo", &[Split::Tensor, Split::Pipeline]),
    ("hunyuan", &[Split::Tensor]),
    ("mimo_v2_flash", &[Split::Tensor, Split::Pipeline]),
    ("laguna", &[Split::Tensor, Split::Pipeline]),
];

/// Models that take pictures, cases of `tests/data/vision`.
const PICTURES: [&str; 3] = ["gemma3", "qwen3_vl", "smolvlm"];

const MEMORY: u64 = 1 << 30;

#[test]
fn two_ranks_compute_what_one_process_does() {
    let place = TempDir::new().unwrap();
    let hosts = place.path().join("hosts.json");
    let [one, two] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = [one, two].map(|free| free.local_addr().unwrap().to_string());
    fs::write(&hosts, serde_json::json!([[first], [second]]).to_string()).unwrap();
    let start = |rank: &str| {
        let program = env::current_exe().unwrap();
        Command::new(program)
            .args(["--exact", "a_rank", "--nocapture", "--ignored"])
            .envs([("MLX_RANK", rank), ("MLXK_FIRST", &first)])
            .env("MLX_HOSTFILE", &hosts)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let [leads, follows] = [start("0"), start("1")];
    let ends = |rank: Child| {
        let output = rank.wait_with_output().unwrap();
        let [said, erred] = [output.stdout, output.stderr].map(|t| String::from_utf8(t).unwrap());
        assert!(output.status.success(), "{said}{erred}");
    };
    ends(leads);
    ends(follows);
}

/// The case `name` of `tests/data/vision`, its weights stored or drawn.
fn vision(name: &str) -> TempDir {
    let path = data().join(name);
    let dir = Draft::at(&path).write();
    for file in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() && file.extension().is_some_and(|end| end != "safetensors") {
            fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision")
}

/// One of the two processes.
#[test]
#[ignore = "the test above runs it"]
fn a_rank() {
    let rank: usize = env::var("MLX_RANK").unwrap().parse().unwrap();
    let first = env::var("MLXK_FIRST").unwrap().parse().unwrap();
    for on_cpu in [true, false] {
        let both: &[Split] = &[Split::Tensor, Split::Pipeline];
        let cases =
            CASES.iter().map(|(case, splits)| (*case, Draft::of(case).write(), *splits, false));
        let pictures = PICTURES.iter().map(|case| (*case, vision(case), both, true));
        for (case, written, splits, sees) in cases.chain(pictures) {
            let Inspected { facts, plan, .. } = model::inspected(written.path()).unwrap();
            for &split in splits {
                let place = RankConfig { rank, size: 2, first, backend: "ring", on_cpu };
                if rank > 0 {
                    let facts = model::facts(written.path()).unwrap();
                    follow(&place, facts, plan.clone(), MEMORY, &mut |_| Ok(())).unwrap();
                    continue;
                }
                let known = (&facts, &plan);
                let party = Group::gather(&place, known, MEMORY, Some(split), &|_| {}).unwrap();
                let watch = party.watch();
                let all = fs::metadata(written.path().join("model.safetensors")).unwrap().len();
                assert!(party.bytes() < all);
                let cost = Cost::of(&facts, &plan, on_cpu, Some(party.part())).unwrap();
                assert_eq!(cost.weights, party.bytes());
                let mut ours = party.load(&facts, &plan).unwrap();
                let mut whole = model::load_for(written.path(), on_cpu).unwrap();
                let what = format!("{case} by {split:?}, on a CPU: {on_cpu}");
                if sees {
                    sees_alike(
                        &mut ours,
                        &mut whole,
                        &Processor::read(&facts, &plan).unwrap(),
                        &what,
                    );
                    watch.end();
                    continue;
                }
                computes_alike(&mut ours, &mut whole, &what);
                ours.limit_prefix_cache(0);
                ours.limit_prefix_cache(u64::MAX);
                assert_eq!(ours.tokens(&[1], &GREEDY).unwrap().take(1).count(), 1);
                assert_eq!(cost.sequence(2), ours.prefix_bytes(), "{what}");
                watch.end();
            }
        }
    }
}

fn computes_alike(ours: &mut Model, whole: &mut Model, what: &str) {
    let prompt = [5, 9, 2, 7, 11, 3, 8, 1, 6, 4];
    for model in [&mut *ours, &mut *whole] {
        model.forward.prefill_chunk = 4;
    }
    let [a, b] = [&mut *ours, &mut *whole].map(|model| model.logits(&prompt).unwrap());
    let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 2e-3 * largest, "{what}: {a} and {b} of {largest}");
    }
    let [a, b] = [ours, whole].map(sequences);
    assert_eq!(a, b, "{what}");
}

/// Two questions about a picture, the second one with the first as its beginning, one text, and a
/// picture in its place.
fn sees_alike(ours: &mut Model, whole: &mut Model, processor: &Processor, what: &str) {
    let ask = |files: &[&str], text: &str| {
        let image = |file: &&str| Image {
            name: (*file).into(),
            bytes: fs::read(data().join(file)).unwrap().into(),
        };
        let images = files.iter().map(image).collect();
        processor
            .prepare(&Request::new(Prompt::chat(None, text)).with_images(images).unwrap())
            .unwrap()
    };
    let first = ask(&["turned-2.png"], "w1 w2");
    let more = ask(&["turned-2.png"], "w1 w2 w3 w4");
    let text = processor.prepare(&Request::new(Prompt::chat(None, "w5 w6"))).unwrap();
    let two = ask(&["turned-2.png", "grad-50x80.png"], "w1 w2");
    let answers = |model: &mut Model| {
        model.forward.prefill_chunk = 5;
        let asked = [&first, &more, &text, &two];
        let answer = |prepared: &&Prepared| {
            let number = model.join_media(&prepared.prompt, &prepared.media, GREEDY, None).unwrap();
            let mut ids = Vec::new();
            while ids.len() < 6 {
                let step = model.step().unwrap();
                ids.extend(step.into_iter().map(|(_, token)| token.unwrap().id));
            }
            model.leave(number);
            ids.truncate(6);
            ids
        };
        asked.iter().map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(ours), answers(whole), "{what}");
}

/// What follows some sequences that come and go, of which some begin alike.
fn sequences(model: &mut Model) -> Vec<(u64, u32)> {
    let mut said = Vec::new();
    let join = |model: &mut Model, prompt: &[u32]| model.join(prompt, GREEDY, None).unwrap();
    let steps = |model: &mut Model, count, said: &mut Vec<(u64, u32)>| {
        for _ in 0..count {
            let step = model.step().unwrap();
            said.extend(step.into_iter().map(|(text, token)| (text, token.unwrap().id)));
        }
    };
    let first = join(model, &[5, 9, 2, 7, 11, 3, 8]);
    steps(model, 6, &mut said);
    let second = join(model, &[4, 1]);
    steps(model, 4, &mut said);
    model.leave(first);
    let third = join(model, &[5, 9, 2, 7, 11, 12]);
    let fourth = join(model, &[5, 9, 2, 7, 13]);
    steps(model, 8, &mut said);
    [second, third, fourth].into_iter().for_each(|text| model.leave(text));
    // Tokens that are queued come a step later.
    let of = |text| said.iter().filter(move |said| said.0 == text).take(6).copied();
    [first, second, third, fourth].into_iter().flat_map(of).collect()
}
