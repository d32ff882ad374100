//! Prompt cache: the cache of a sequence in a safetensors file, whose metadata name the model, the
//! tokens, and how many of them each layer holds.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use mlx_rs::Array;
use mlx_rs::error::IoError;
use mlx_rs::transforms::eval;
use mlxk_core::tensors::Header;
use mlxk_core::{Error, Facts, Kind, Result, regular_file};
use mlxk_models::checkpoint::file::{map, place};
use mlxk_tensor::cache::{Cache, Sequences, Slot};

use crate::forward::ids;
use crate::model::Model;
use crate::prefix_cache::Key;

/// Name and version of the format.
const FORM: &str = "mlxk prompt cache 1";

impl Model {
    /// Writes the cache of the sequence that was over last to the file `path`, which is replaced at
    /// once or not at all. Nothing is written if the prefix cache is empty.
    ///
    /// # Errors
    /// If the file cannot be written, or the sequence has pictures.
    pub fn save(&self, path: &Path, facts: &Facts) -> Result<()> {
        let Some((key, cache)) = self.batch.last_over() else { return Ok(()) };
        if !key.media.is_empty() {
            return Err(Error::unsupported("a prompt cache holds no pictures"));
        }
        let tokens = &key.tokens;
        let list =
            |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
        let held = cache.slots.iter().map(|slot| match slot {
            Slot::Kv(kv) => kv.held() as i32,
            Slot::CompressedKv(compressed) => compressed.held(),
            Slot::State(_) | Slot::Remote(_) => 0,
        });
        let metadata = HashMap::from([
            ("form".to_owned(), FORM.to_owned()),
            ("model".to_owned(), facts.found.name.clone()),
            ("identity".to_owned(), identity(facts)),
            ("tokens".to_owned(), list(&mut tokens.iter().map(u32::to_string))),
            ("held".to_owned(), list(&mut held.map(|n| n.to_string()))),
        ]);
        let arrays: Vec<(String, Array)> = self.forward.run(|| {
            let arrays = named(cache).map(|(name, array)| Ok((name, array.contiguous()?)));
            let arrays: Vec<_> = arrays.collect::<mlx_rs::error::Result<_>>()?;
            eval(arrays.iter().map(|(_, array)| array))?;
            Ok(arrays)
        })?;
        // MLX writes only files of this extension.
        let unfinished = path.with_extension("unfinished.safetensors");
        let failed = |e: IoError| {
            let why = match &e {
                IoError::Exception(e) => e.what().to_owned(),
                other => other.to_string(),
            };
            Error::new(Kind::Execution, path.display().to_string(), why).caused_by(e)
        };
        let arrays = arrays.iter().map(|(name, array)| (name, array));
        Array::save_safetensors(arrays, &metadata, &unfinished).map_err(failed)?;
        std::fs::rename(&unfinished, path).map_err(|e| Error::io(path, e))
    }

    /// Adds the cache in the file `path` to the prefix cache.
    ///
    /// # Errors
    /// If the file cannot be read, is no prompt cache, or is of another model or other cache options.
    pub fn restore(&mut self, path: &Path, facts: &Facts) -> Result<()> {
        let name = path.display().to_string();
        let refused = |why: &str| Error::new(Kind::Validation, &name, why);
        let mut file = regular_file::open(path).map_err(|e| Error::io(path, e))?;
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let header = Header::read(&mut file, size).map_err(|e| refused(&e))?;
        let of = |key: &str| header.metadata.get(key).map(String::as_str).unwrap_or_default();
        if of("form") != FORM {
            return Err(refused("not a prompt cache"));
        }
        if of("identity") != identity(facts) {
            let (own, other) = (&facts.found.name, of("model"));
            return Err(refused(&format!("a prompt cache of {other}, not of {own} as it is now")));
        }
        let (tokens, held) = (numbers(of("tokens")), numbers(of("held")));
        let (tokens, held) =
            tokens.zip(held).ok_or_else(|| refused("its tokens are no numbers"))?;
        self.forward.check(&tokens)?;
        let bytes = Arc::new(map(path)?);
        let stored = header
            .tensors
            .iter()
            .map(|tensor| Ok((tensor.name.clone(), place(tensor, &bytes, path)?.array()?)));
        let mut stored: HashMap<String, Array> = stored.collect::<Result<_>>()?;
        let sample = self.sample()?;
        let other = || refused("a prompt cache of another form, perhaps of other --kv options");
        if held.len() != sample.slots.len() || stored.len() != named(&sample).count() {
            return Err(other());
        }
        let mut cache = sample;
        for (n, (slot, held)) in cache.slots.iter_mut().zip(held).enumerate() {
            let fits = match slot {
                Slot::Kv(kv) => kv.restore(tokens.len() as i32, held as i32, |part| {
                    stored.remove(&format!("{n}.{part}"))
                }),
                Slot::CompressedKv(compressed) => {
                    compressed.restore(tokens.len() as i32, held as i32, |part| {
                        stored.remove(&format!("{n}.{part}"))
                    })
                }
                Slot::Remote(_) => true,
                Slot::State(state) => state.arrays.iter_mut().enumerate().all(|(part, own)| {
                    let (Some(own), Some(new)) = (own, stored.remove(&format!("{n}.{part}")))
                    else {
                        return false;
                    };
                    let fits = own.shape() == new.shape() && own.dtype() == new.dtype();
                    *own = new;
                    fits
                }),
            };
            if !fits {
                return Err(other());
            }
        }
        let key = Key { tokens, media: Vec::new() };
        self.batch.remember(key, cache, self.forward.cache_options.prefix_bytes);
        Ok(())
    }

    /// Cache of one token, as a sample of the shapes and types of the arrays.
    fn sample(&self) -> Result<Cache> {
        let mut cache = self.forward.cache();
        self.forward.run(|| {
            self.forward.forward(&ids(&[0]), &[], Sequences::one(&mut cache, 1))?;
            eval(cache.arrays())
        })?;
        Ok(cache)
    }
}

/// Arrays of a cache, named `slot.array` by their numbers.
fn named(cache: &Cache) -> impl Iterator<Item = (String, &Array)> {
    cache.slots.iter().enumerate().flat_map(|(n, slot)| {
        let arrays: Vec<&Array> = match slot {
            Slot::Kv(kv) => kv.arrays().collect(),
            Slot::CompressedKv(compressed) => compressed.arrays().collect(),
            Slot::State(state) => state.arrays.iter().flatten().collect(),
            Slot::Remote(_) => Vec::new(),
        };
        let named = arrays.into_iter().enumerate();
        named.map(move |(part, array)| (format!("{n}.{part}"), array)).collect::<Vec<_>>()
    })
}

fn numbers(list: &str) -> Option<Vec<u32>> {
    list.split(',').map(|number| number.parse().ok()).collect()
}

/// Identity of a model, which changes with it: its revision, and the sizes and times of its weights.
fn identity(facts: &Facts) -> String {
    let shards = facts.weights().into_iter().map(|shard| {
        let known = std::fs::metadata(facts.path(&shard.path));
        let time = known.as_ref().ok().and_then(|known| known.modified().ok());
        let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let size = known.map_or(0, |known| known.len());
        format!("{} {size} {}", shard.path.display(), time.map_or(0, |time| time.as_nanos()))
    });
    let revision = facts.found.revision.clone().unwrap_or_default();
    [facts.found.name.clone(), revision].into_iter().chain(shards).collect::<Vec<_>>().join("; ")
}
