//! Pictures in prompts, against the answers of the Python reference.
//!
//! A case is a folder of `tests/data/vision`, whose weights are stored or drawn; `VISION=DIR` names a folder
//! of further ones. `tests/make-vision` made those that are drawn.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::path::{Path, PathBuf};
use std::{env, fs};

use mlx_rs::Array;
use mlxk_engine::{Model, Source};
use mlxk_processor::request::Prompt;
use mlxk_processor::{Image, Prepared, Processor, Request, Sampling};
use model::Draft;
use serde_json::Value;
use tempfile::TempDir;

/// Picture that none of the cases has.
const OTHER: &str = "turned-2.png";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vision")
}

/// Folders of all cases.
fn cases() -> Vec<PathBuf> {
    let folders = [Some(data()), env::var_os("VISION").map(PathBuf::from)];
    let entries = folders.into_iter().flatten().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("expected.json").exists());
    cases.sort();
    cases
}

/// Files of a case beside its weights.
const FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
];

/// A case: its model, the processor, and what the reference gave.
struct Case {
    path: PathBuf,
    /// Folder of a model whose weights are drawn.
    _drawn: Option<TempDir>,
    model: Model,
    processor: Processor,
    expected: Value,
}

impl Case {
    fn new(path: &Path, on_cpu: bool) -> Case {
        let drawn = (!path.join("model.safetensors").exists()).then(|| drawn(path));
        let at = drawn.as_ref().map_or(path, TempDir::path);
        let inspected = model::inspected(at).unwrap();
        let processor = Processor::read(&inspected.facts, &inspected.plan).unwrap();
        let expected = fs::read(path.join("expected.json")).unwrap();
        let expected = serde_json::from_slice(&expected).unwrap();
        let model = model::load_for(at, on_cpu).unwrap();
        Case { path: path.to_owned(), _drawn: drawn, model, processor, expected }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn list(&self, key: &str) -> Vec<u32> {
        serde_json::from_value(self.expected[key].clone()).unwrap()
    }

    /// Tokens that the reference chose, with the mask of the original model.
    fn answer(&self) -> Vec<u32> {
        let masked = &self.expected["transformers_mask"]["greedy_ids"];
        match masked.is_null() {
            true => self.list("greedy_ids"),
            false => serde_json::from_value(masked.clone()).unwrap(),
        }
    }

    /// The question of the case about the picture in `file`.
    fn prepared(&self, file: &Path) -> Prepared {
        let parts = self.expected["messages"][0]["content"].as_array().unwrap();
        let texts = parts.iter().filter_map(|part| part["text"].as_str());
        let text = texts.collect::<Vec<_>>().join(" ");
        let mut request =
            Request::new(Prompt::chat(None, &text)).with_images(vec![image(file)]).unwrap();
        if let Prompt::Chat(chat) = &mut request.prompt {
            chat.messages[0]["content"] = parts.clone().into();
        }
        self.processor.prepare(&request).unwrap()
    }

    /// The most likely tokens after a prompt, and the number of its tokens that were cached.
    fn greedy(&mut self, prepared: &Prepared) -> (Vec<u32>, u64) {
        let Prepared { prompt, media, .. } = prepared;
        let number = self.model.join_media(prompt, media, Sampling::GREEDY, None).unwrap();
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
        let name = self.expected["images"][0].as_str().unwrap();
        let own = self.path.join(name);
        if own.exists() { own } else { data().join(name) }
    }

    /// Factor of the reference's features: gemma3's language model multiplies all its rows.
    fn scale(&self) -> f32 {
        let config: Value =
            serde_json::from_slice(&fs::read(self.path.join("config.json")).unwrap()).unwrap();
        let hidden = config["text_config"]["hidden_size"].as_f64().unwrap_or_default();
        if config["model_type"] == "gemma3" { hidden.sqrt() as f32 } else { 1.0 }
    }

    fn passes(&self) -> u64 {
        self.model.forward.tower.as_ref().unwrap().passes()
    }
}

/// A folder with the case in `path`, its weights drawn.
fn drawn(path: &Path) -> TempDir {
    let dir = Draft::at(path).write();
    for file in FILES.iter().filter(|file| path.join(file).exists()) {
        fs::copy(path.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn image(file: &Path) -> Image {
    Image { name: file.display().to_string(), bytes: fs::read(file).unwrap().into() }
}

#[test]
fn answers_about_pictures_are_those_of_the_reference() {
    for path in cases() {
        for on_cpu in [true, false] {
            let mut case = Case::new(&path, on_cpu);
            let what = format!("{}, on a CPU: {on_cpu}", case.name());
            let prepared = case.prepared(&case.picture());
            assert_eq!(prepared.prompt, case.list("prompt_ids"), "{what}");
            for chunk in [5, 2048] {
                case.model.limit_prefix_cache(0);
                case.model.forward.prefill_chunk = chunk;
                assert_eq!(case.greedy(&prepared).0, case.answer(), "{what}, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn features_are_those_of_the_reference() {
    for path in cases() {
        for on_cpu in [true, false] {
            let case = Case::new(&path, on_cpu);
            let picture = case.picture();
            let media = &case.prepared(&picture).media[0];
            let features = case.model.forward.features(media).unwrap();
            // Decoders of JPEG differ by some levels.
            let jpeg = picture.extension().is_some_and(|end| end == "jpg");
            let tolerance = if jpeg { 2e-2 } else { 2e-4 };
            let what = format!("{}, on a CPU: {on_cpu}", case.name());
            near(&features.rows, &case.expected["features"], tolerance, case.scale(), &what);
            let deep = case.expected["deepstack"].as_array().cloned().unwrap_or_default();
            assert_eq!(features.deep.len(), deep.len(), "{what}");
            for (own, expected) in features.deep.iter().zip(&deep) {
                near(own, expected, tolerance, 1.0, &what);
            }
        }
    }
}

/// Asserts that `array` has the shape and nearly the first elements, times `scale`, that are `expected`.
fn near(array: &Array, expected: &Value, tolerance: f32, scale: f32, what: &str) {
    let shape: Vec<i32> = serde_json::from_value(expected["shape"].clone()).unwrap();
    assert_eq!(array.shape(), &shape[shape.len() - 2..], "{what}");
    let mut head: Vec<f32> = serde_json::from_value(expected["head"].clone()).unwrap();
    head.iter_mut().for_each(|x| *x *= scale);
    let own: Vec<f32> = array.as_type::<f32>().unwrap().to_vec_exact().unwrap();
    let largest = head.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in own.iter().zip(&head).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}, {i}: {a} and {b} of {largest}");
    }
}

#[test]
fn a_cached_prompt_stands_for_the_same_picture_alone() {
    for path in cases() {
        let mut case = Case::new(&path, true);
        let (name, answer) = (case.name(), case.answer());
        let prepared = case.prepared(&case.picture());
        let other = case.prepared(&data().join(OTHER));
        let start = prepared.media[0].tokens.start as u64;
        case.model.limit_prefix_cache(1 << 30);
        assert_eq!(case.greedy(&prepared), (answer.clone(), 0), "{name}");
        let (ids, reused) = case.greedy(&prepared);
        assert_eq!(ids, answer, "{name}");
        // Recurrent states cannot go back.
        let goes_back = case.model.forward.cache().forgets();
        assert!(reused > start || !goes_back, "{name}: {reused} of {start}");
        let (about_other, reused) = case.greedy(&other);
        assert!(reused <= start, "{name}: {reused} of {start}");
        let mut fresh = Case::new(&path, true);
        assert_eq!(about_other, fresh.greedy(&other).0, "{name}");
    }
}

#[test]
fn a_tower_sees_each_picture_once() {
    for path in cases() {
        let mut case = Case::new(&path, true);
        let prepared = case.prepared(&case.picture());
        let other = case.prepared(&data().join(OTHER));
        let mut answers = Vec::new();
        for (prepared, passes) in [(&prepared, 1), (&other, 2), (&prepared, 2)] {
            // Nothing of the prompt itself is cached.
            case.model.limit_prefix_cache(0);
            let (ids, reused) = case.greedy(prepared);
            assert_eq!((case.passes(), reused), (passes, 0), "{}", case.name());
            answers.push(ids);
        }
        assert_eq!([&answers[0], &answers[2]], [&case.answer(); 2], "{}", case.name());
        case.model.forward.cache_options.feature_bytes = 0;
        let unknown = case.prepared(&data().join("turned-3.png"));
        for passes in [3, 4] {
            case.model.limit_prefix_cache(0);
            case.greedy(&unknown);
            assert_eq!(case.passes(), passes, "{}", case.name());
        }
    }
}

#[test]
fn sequences_with_and_without_pictures_run_side_by_side() {
    for path in cases() {
        let mut case = Case::new(&path, true);
        let answer = case.answer();
        let prepared = case.prepared(&case.picture());
        let Prepared { prompt: plain, .. } =
            case.processor.prepare(&Request::new(Prompt::chat(None, "w1 w2 w3"))).unwrap();
        let alone: Vec<u32> = case
            .model
            .tokens(&plain, &Sampling::GREEDY)
            .unwrap()
            .take(answer.len())
            .map(Result::unwrap)
            .collect();
        case.model.limit_prefix_cache(0);
        let first = case.model.join(&plain, Sampling::GREEDY, None).unwrap();
        let Prepared { prompt, media, .. } = prepared;
        let second = case.model.join_media(&prompt, &media, Sampling::GREEDY, None).unwrap();
        let mut ids = [Vec::new(), Vec::new()];
        while ids.iter().any(|ids| ids.len() < answer.len()) {
            for (number, token) in Source::step(&mut case.model).unwrap() {
                ids[usize::from(number == second)].push(token.unwrap().id);
            }
        }
        assert!(first != second);
        assert_eq!(ids[0][..alone.len()], alone[..], "{}", case.name());
        assert_eq!(ids[1][..answer.len()], answer[..], "{}", case.name());
    }
}
