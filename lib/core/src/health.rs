//! Health of a model: no file is missing, and no file is broken.
//!
//! The checks use names, sizes and headers only; nothing is hashed or fetched. `policy` decides
//! whether the model can run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::json::Document;
use crate::policy::detect;
use crate::printable::printable;
use crate::probe::{Facts, File, Shard};
use crate::store::Origin;
use crate::tensors::{Header, Index};

/// The verdict on a model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// True if no file is missing or broken.
    pub healthy: bool,
    /// The first defect; for a healthy model, a summary.
    pub reason: String,
}

/// Checks a model's files; the first failing check gives the reason.
///
/// Stricter than mlx-knife: headers are compared with file sizes, the index with the headers, and
/// links with the bounds of the cache; pickled weights are not weights. More lenient than mlx-knife:
/// a complete set of shards needs no index, since the headers hold the same information; the
/// processor configuration may be embedded in `config.json`; any vocabulary file satisfies
/// `tokenizer_config.json`; and only the extension of a file marks it as partial.
pub fn check(facts: &Facts) -> Health {
    match verdict(facts) {
        Ok(reason) => Health { healthy: true, reason: reason.to_owned() },
        Err(reason) => Health { healthy: false, reason: one_line(&reason) },
    }
}

/// The reason in one line of at most 500 characters: it may quote names that a model chose.
pub(crate) fn one_line(reason: &str) -> String {
    printable(&reason.chars().take(500).collect::<String>()).into_owned()
}

type Verdict<T = ()> = Result<T, String>;

fn verdict(facts: &Facts) -> Verdict<&'static str> {
    if let Some(reason) = &facts.unreadable {
        return Err(format!("cannot be read: {reason}"));
    }
    directory(facts)?;
    parts(facts).map_err(|defect| match facts.unfinished.first() {
        // It is the cause of most defects. Beside a whole model it is left of a download that another
        // one replaced.
        Some(download) => format!("Unfinished download: {}", download.display()),
        None => defect,
    })
}

/// Checks that a cached model has a snapshot, and that no entry of the directory is a stray.
fn directory(facts: &Facts) -> Verdict {
    let in_cache = matches!(facts.found.origin, Origin::Cache { .. });
    if in_cache && facts.found.revision.is_none() {
        return Err("No snapshots found".to_owned());
    }
    match facts.strays.first() {
        Some(stray) => Err(format!("{} {}", stray.path.display(), stray.reason)),
        None => Ok(()),
    }
}

fn parts(facts: &Facts) -> Verdict<&'static str> {
    files(facts)?;
    config(facts)?;
    let reason = weights(facts)?;
    processor(facts)?;
    tokenizer(facts)?;
    readable("generation_config.json", &facts.generation_config)?;
    Ok(reason)
}

/// Checks that no file that a run needs is a pointer of Git LFS or partly downloaded.
fn files(facts: &Facts) -> Verdict {
    let weights = facts.weight_files();
    let needed = |file: &&File| {
        let is_weights = weights.iter().any(|weights| weights.path == file.path);
        is_weights || DESCRIPTIONS.iter().any(|end| file.is(end))
    };
    let pointers = facts.files.iter().filter(|file| file.pointer).filter(needed);
    none("LFS pointers instead of files", pointers)?;
    let partial = facts.files.iter().filter(|file| is_part_of_missing(file, facts));
    none("Partial download marker detected", partial)
}

/// Extensions of the small files that describe a model: configurations, templates and vocabularies.
const DESCRIPTIONS: [&str; 6] = ["json", "jinja", "model", "tiktoken", "txt", "spm"];

/// True if the file is marked as a part of a file that a run needs, `NAME.part`, and that is missing.
fn is_part_of_missing(file: &File, facts: &Facts) -> bool {
    let marked = ["partial", "part", "tmp", "incomplete"].iter().any(|end| file.is(end));
    let whole = file.path.with_extension("");
    let end = whole.extension().unwrap_or_default();
    let needed = ["safetensors", "gguf"].iter().chain(&DESCRIPTIONS).any(|needed| end == *needed);
    marked && needed && facts.file(&whole).is_none()
}

fn none<'a>(complaint: &str, files: impl Iterator<Item = &'a File>) -> Verdict {
    let names: Vec<_> = files.map(|file| file.path.display().to_string()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(format!("{complaint}: {}", listed(&names))),
    }
}

/// The first four names, and the count of the rest.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<_> = names.iter().take(4).map(AsRef::as_ref).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Checks that `config.json` exists, except beside GGUF files, which hold the configuration.
fn config(facts: &Facts) -> Verdict {
    readable("config.json", &facts.config)?;
    match facts.config.object() {
        None if facts.files.iter().any(|file| file.is("gguf")) => Ok(()),
        None if detect::static_embedding(facts) => Ok(()),
        None => Err("config.json missing".to_owned()),
        Some(fields) if fields.is_empty() => {
            Err("config.json is empty or invalid: it has no fields".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// Checks that the document is an object or absent.
fn readable(name: &str, document: &Document) -> Verdict {
    document.checked().map(drop).map_err(|reason| format!("{name} {reason}"))
}

fn weights(facts: &Facts) -> Verdict<&'static str> {
    let index = facts.index.as_ref().map(|index| index.as_ref().map_err(Clone::clone));
    let index = index.transpose()?;
    let weights = facts.weight_files();
    none("Empty weight files", weights.iter().copied().filter(|file| file.size == 0))?;
    let reason = match index {
        Some(index) => {
            shards_of(facts, index)?;
            "Multi-file model complete"
        }
        None if weights.is_empty() => return Err(no_weights(facts)),
        None => {
            numbered(weights.into_iter())?;
            "Model is healthy"
        }
    };
    headers(facts)?;
    Ok(reason)
}

/// Checks that every file named in the index exists.
fn shards_of(facts: &Facts, index: &Index) -> Verdict {
    let there = |file: &str| facts.shards.iter().any(|shard| shard.path == Path::new(file));
    let missing: Vec<_> = index.files().filter(|file| !there(file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if facts.shards.is_empty() {
        return Err(format!("Missing weight shards: {}", listed(&missing)));
    }
    Err(mismatch(&format!(
        "{} of {} files in the index are missing: {}",
        missing.len(),
        index.files().count(),
        listed(&missing)
    )))
}

fn no_weights(facts: &Facts) -> String {
    let pickled = |file: &&File| ["bin", "pt", "pth", "ckpt", "npz"].iter().any(|end| file.is(end));
    match facts.files.iter().find(pickled) {
        Some(file) => {
            format!("Unsafe weight format: {} (only safetensors is read)", file.path.display())
        }
        None => "No model weights found".to_owned(),
    }
}

/// Checks that sets of files named `NAME-00001-of-00003` are complete.
fn numbered<'a>(files: impl Iterator<Item = &'a File>) -> Verdict {
    let mut sets: BTreeMap<PathBuf, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for file in files {
        let stem = file.path.with_extension("");
        if let Some((name, total, number)) = numbers(&stem.to_string_lossy()) {
            let set = Path::new(name).with_extension(file.path.extension().unwrap_or_default());
            sets.entry(set).or_default().insert((total, number));
        }
    }
    for shards in sets.values() {
        let totals: BTreeSet<_> = shards.iter().map(|(total, _)| *total).collect();
        let &[total] = totals.into_iter().collect::<Vec<_>>().as_slice() else {
            return Err("Inconsistent shard totals detected".to_owned());
        };
        let present = shards.iter().filter(|(_, number)| (1..=total).contains(number)).count();
        if present != total {
            return Err(format!("Missing shards by pattern: {present}/{total} present"));
        }
    }
    Ok(())
}

/// Splits `NAME-00001-of-00003` into name, total and number.
fn numbers(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, total) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(total)).then_some(())?;
    Some((name, total.parse().ok()?, number.parse().ok()?))
}

/// Checks that every header fits its file, and that the index agrees with the headers.
fn headers(facts: &Facts) -> Verdict {
    for Shard { path, header } in &facts.shards {
        header.as_ref().map_err(|reason| format!("{}: {reason}", path.display()))?;
    }
    let Some(Ok(index)) = &facts.index else {
        return Ok(());
    };
    check_index(index, facts).map_err(|reason| mismatch(&reason))
}

fn mismatch(reason: &str) -> String {
    format!("Index and shards do not match: {reason} (mlxk convert --repair-index)")
}

fn check_index(index: &Index, facts: &Facts) -> Verdict {
    let header = |file| -> Option<(&str, &Header)> {
        let shard = facts.shards.iter().find(|shard| shard.path == Path::new(file))?;
        Some((file, shard.header.as_ref().ok()?))
    };
    index.check(&index.files().filter_map(header).collect())
}

/// Checks that a vision model has the configuration of an image processor; beside a text model that is
/// no part of it.
fn processor(facts: &Facts) -> Verdict {
    if detect::is_text_only(facts) && !detect::vision(facts) {
        return Ok(());
    }
    readable("preprocessor_config.json", &facts.preprocessor_config)?;
    readable("processor_config.json", &facts.processor_config)?;
    let embedded = ["preprocessor_config", "processor_config", "image_processor"];
    let there = facts.preprocessor_config.exists()
        || facts.processor_config.exists()
        || embedded.iter().any(|key| facts.config.get(key).is_some_and(|value| !value.is_null()));
    match there || !detect::vision(facts) {
        true => Ok(()),
        false => {
            Err("Vision model missing preprocessor_config.json or processor_config.json".to_owned())
        }
    }
}

/// Checks that a model with `tokenizer_config.json` has a vocabulary.
fn tokenizer(facts: &Facts) -> Verdict {
    readable("tokenizer_config.json", &facts.tokenizer_config)?;
    let names = ["tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"];
    let sentencepiece = |file: &File| ["model", "tiktoken", "spm"].iter().any(|end| file.is(end));
    let there = names.iter().any(|name| facts.has(name)) || facts.files.iter().any(sentencepiece);
    match there || !facts.tokenizer_config.exists() {
        true => Ok(()),
        false => Err("tokenizer_config.json present but tokenizer.json missing".to_owned()),
    }
}
