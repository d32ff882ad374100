//! Pictures in prompts, against the answers of the Python reference.
//!
//! A case is a folder of `tests/data/vision`.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_engine::{Model, Source};
use mlxk_processor::request::Prompt;
use mlxk_processor::{Image, Prepared, Processor, Request, Sampling};
use serde_json::Value;

const CASES: [&str; 2] = ["qwen2_5_vl", "qwen2_vl"];

/// Picture that none of the cases has.
const OTHER: &str = "grad-50x80.png";

fn pictures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision").join(path)
}

/// A case: its model, the processor, and what the reference gave.
struct Case {
    model: Model,
    processor: Processor,
    expected: Value,
}

impl Case {
    fn new(name: &str, on_cpu: bool) -> Case {
        let path = pictures(name);
        let inspected = model::inspected(&path).unwrap();
        let processor = Processor::read(&inspected.facts, &inspected.plan).unwrap();
        let expected = fs::read(path.join("expected.json")).unwrap();
        let expected = serde_json::from_slice(&expected).unwrap();
        Case { model: model::load_for(&path, on_cpu).unwrap(), processor, expected }
    }

    fn list(&self, key: &str) -> Vec<u32> {
        serde_json::from_value(self.expected[key].clone()).unwrap()
    }

    /// The question of the case about the picture in `file`.
    fn prepared(&self, file: &Path) -> Prepared {
        let text = self.expected["messages"][0]["content"][1]["text"].as_str().unwrap();
        let request = Request::new(Prompt::chat(None, text));
        let bytes = fs::read(file).unwrap().into();
        let image = Image { name: file.display().to_string(), bytes };
        self.processor.prepare(&request.with_images(vec![image]).unwrap()).unwrap()
    }

    /// The most likely tokens after the question about the picture in `file`, and the number of
    /// prompt tokens that were cached.
    fn greedy(&mut self, file: &Path) -> (Vec<u32>, u64) {
        let Prepared { prompt, media, .. } = self.prepared(file);
        let number = self.model.join_media(&prompt, &media, Sampling::GREEDY, None).unwrap();
        let mut ids = Vec::new();
        while ids.len() < self.list("greedy_ids").len() {
            let step = Source::step(&mut self.model).unwrap();
            ids.extend(step.into_iter().map(|(_, token)| token.unwrap().id));
        }
        let reused = self.model.reused(number);
        self.model.leave(number);
        (ids, reused)
    }

    fn picture(&self) -> PathBuf {
        pictures(self.expected["images"][0].as_str().unwrap())
    }
}

#[test]
fn answers_about_pictures_are_those_of_the_reference() {
    for name in CASES {
        for on_cpu in [true, false] {
            let mut case = Case::new(name, on_cpu);
            let picture = case.picture();
            assert_eq!(case.prepared(&picture).prompt, case.list("prompt_ids"), "{name}");
            assert_eq!(case.greedy(&picture).0, case.list("greedy_ids"), "{name}, {on_cpu}");
        }
    }
}

#[test]
fn a_cached_prompt_stands_for_the_same_picture_alone() {
    for name in CASES {
        let mut case = Case::new(name, true);
        let (picture, greedy) = (case.picture(), case.list("greedy_ids"));
        let start = case.prepared(&picture).media[0].tokens.start as u64;
        case.model.limit_prefix_cache(1 << 30);
        assert_eq!(case.greedy(&picture), (greedy.clone(), 0), "{name}");
        let (ids, reused) = case.greedy(&picture);
        assert_eq!(ids, greedy, "{name}");
        assert!(reused > start, "{name}: {reused} of {start}");
        let (other, reused) = case.greedy(&pictures(OTHER));
        assert!(reused <= start, "{name}: {reused} of {start}");
        let mut fresh = Case::new(name, true);
        assert_eq!(other, fresh.greedy(&pictures(OTHER)).0, "{name}");
    }
}

#[test]
fn sequences_with_and_without_pictures_run_side_by_side() {
    let mut case = Case::new(CASES[0], true);
    let (picture, greedy) = (case.picture(), case.list("greedy_ids"));
    let Prepared { prompt: plain, .. } =
        case.processor.prepare(&Request::new(Prompt::chat(None, "w1 w2 w3"))).unwrap();
    let alone: Vec<u32> = case
        .model
        .tokens(&plain, &Sampling::GREEDY)
        .unwrap()
        .take(16)
        .map(Result::unwrap)
        .collect();
    let Prepared { prompt, media, .. } = case.prepared(&picture);
    let first = case.model.join(&plain, Sampling::GREEDY, None).unwrap();
    let second = case.model.join_media(&prompt, &media, Sampling::GREEDY, None).unwrap();
    let mut ids = [Vec::new(), Vec::new()];
    while ids.iter().any(|ids| ids.len() < 16) {
        for (number, token) in Source::step(&mut case.model).unwrap() {
            ids[usize::from(number == second)].push(token.unwrap().id);
        }
    }
    assert!(first != second);
    assert_eq!(ids[0][..alone.len()], alone[..]);
    assert_eq!(ids[1][..16], greedy[..]);
}
