//! Whether a model is whole: every file there, and every file what it says it is.
//!
//! Static and offline: judged from names, sizes and headers. Whether the model can also run is
//! the business of `policy`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::json::Document;
use crate::policy::detect;
use crate::probe::{Facts, File, Shard};
use crate::store::Origin;
use crate::tensors::{Header, Index};

/// The verdict on a model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// True if nothing is missing or broken.
    pub healthy: bool,
    /// The first thing that is, or what was found to be complete.
    pub reason: String,
}

/// Judges a model by its facts; the first failing check gives the reason.
///
/// Differs from the original on purpose: headers are checked against file sizes, the index against
/// the headers, links against the cache, and pickled weights do not count. A complete set of
/// shards without an index is healthy, since the headers tell all that the index would; a
/// processor configuration may be embedded in `config.json`; any form of vocabulary does beside
/// `tokenizer_config.json`; and only the end of a file's name marks it as partial.
pub fn check(facts: &Facts) -> Health {
    match verdict(facts) {
        Ok(reason) => Health { healthy: true, reason: reason.to_owned() },
        Err(reason) => Health { healthy: false, reason: one_line(&reason) },
    }
}

/// A reason fit to be printed, whatever names of the model's choosing it quotes.
pub(crate) fn one_line(reason: &str) -> String {
    let shown = |c: char| {
        if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
    };
    reason.chars().take(500).map(shown).collect()
}

type Verdict<T = ()> = Result<T, String>;

fn verdict(facts: &Facts) -> Verdict<&'static str> {
    files(facts)?;
    config(facts)?;
    let reason = weights(facts)?;
    processor(facts)?;
    tokenizer(facts)?;
    readable("generation_config.json", &facts.generation_config)?;
    Ok(reason)
}

/// Nothing that is out of place, never fetched, or only fetched in part.
fn files(facts: &Facts) -> Verdict {
    let in_cache = matches!(facts.found.origin, Origin::Cache { .. });
    if in_cache && facts.found.revision.is_none() {
        return Err("No snapshots found".to_owned());
    }
    if let Some(stray) = facts.strays.first() {
        return Err(format!("{} {}", stray.path.display(), stray.reason));
    }
    none("LFS pointers instead of files", facts.files.iter().filter(|file| file.pointer))?;
    none("Partial download marker detected", facts.files.iter().filter(is_partial))?;
    match facts.unfinished.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!("Unfinished download: {}", first.display())),
    }
}

fn is_partial(file: &&File) -> bool {
    ["partial", "part", "tmp", "incomplete"].iter().any(|end| file.is(end))
}

fn none<'a>(complaint: &str, files: impl Iterator<Item = &'a File>) -> Verdict {
    let names: Vec<_> = files.map(|file| file.path.display().to_string()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(format!("{complaint}: {}", listed(&names))),
    }
}

/// The first few of many names.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<_> = names.iter().take(4).map(AsRef::as_ref).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A model has a configuration; only GGUF carries its own.
fn config(facts: &Facts) -> Verdict {
    readable("config.json", &facts.config)?;
    match facts.config.object() {
        None if facts.files.iter().any(|file| file.is("gguf")) => Ok(()),
        None => Err("config.json missing".to_owned()),
        Some(fields) if fields.is_empty() => {
            Err("config.json is empty or invalid: it has no fields".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// A file that is there is what it should be.
fn readable(name: &str, document: &Document) -> Verdict {
    document.checked().map(drop).map_err(|reason| format!("{name} {reason}"))
}

fn weights(facts: &Facts) -> Verdict<&'static str> {
    let weights = || facts.files.iter().filter(|file| file.is("safetensors") || file.is("gguf"));
    none("Empty weight files", weights().filter(|file| file.size == 0))?;
    let reason = match &facts.index {
        Some(index) => {
            let files = index.as_ref().map_err(Clone::clone)?.files();
            shards_of(facts, &files)?;
            "Multi-file model complete"
        }
        None => {
            if weights().next().is_none() {
                return Err(no_weights(facts));
            }
            numbered(weights())?;
            "Model is healthy"
        }
    };
    headers(facts)?;
    Ok(reason)
}

/// All files that an index names are there.
fn shards_of(facts: &Facts, files: &BTreeSet<&str>) -> Verdict {
    let there = |file: &str| facts.shards.iter().any(|shard| shard.path == Path::new(file));
    let missing: Vec<_> = files.iter().copied().filter(|file| !there(file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if facts.shards.is_empty() {
        return Err(format!("Missing weight shards: {}", listed(&missing)));
    }
    Err(format!(
        "Index and shards do not match: {} of {} files in the index are missing: {}",
        missing.len(),
        files.len(),
        listed(&missing)
    ))
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

/// Files named `NAME-00001-of-00003` are there from the first to the last.
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

/// Takes `NAME-00001-of-00003` apart, into the name, the total and the number.
fn numbers(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, total) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(total)).then_some(())?;
    Some((name, total.parse().ok()?, number.parse().ok()?))
}

/// Every header holds what its file does, and the index says the same.
fn headers(facts: &Facts) -> Verdict {
    for Shard { path, header } in &facts.shards {
        header.as_ref().map_err(|reason| format!("{}: {reason}", path.display()))?;
    }
    let Some(Ok(index)) = &facts.index else {
        return Ok(());
    };
    check_index(index, facts).map_err(|reason| format!("Index and shards do not match: {reason}"))
}

fn check_index(index: &Index, facts: &Facts) -> Verdict {
    let header = |file| -> Option<(&str, &Header)> {
        let shard = facts.shards.iter().find(|shard| shard.path == Path::new(file))?;
        Some((file, shard.header.as_ref().ok()?))
    };
    index.check(&index.files().into_iter().filter_map(header).collect())
}

/// A model that sees can prepare pictures.
fn processor(facts: &Facts) -> Verdict {
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

/// A configured tokenizer has a vocabulary.
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
