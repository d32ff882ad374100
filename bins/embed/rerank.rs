//! Reranking: the texts that a reranker scores best for a question.

use mlxk_cli::examine::find;
use mlxk_cli::{Counter, Output};
use mlxk_core::{Error, Inspected, Places, Record, Result, inspect};
use mlxk_engine::Reranker;
use mlxk_processor::Pair;

use super::encoding::without_vector;
use super::input::{self, Content, Item, Source, about};
use super::ranking::Ranking;

/// Question to a reranker.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The question.
    pub text: &'a str,
    /// True if pairs that are too long are cut instead of refused.
    pub truncate: bool,
}

/// Loads `model`, as typed, and writes the best records of `source` as `ranking` ranks them by their
/// scores for `question`. A record that fails is reported, and the next one is scored.
///
/// # Errors
/// If the model cannot be found or loaded, or is no reranker, or `out` cannot be written.
pub fn rerank(
    model: &str,
    question: Question,
    source: Source,
    mut ranking: Ranking,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let found = find(&Record::default().with("name", model), places)?;
    let Inspected { facts, health, plan } = inspect(&found)?;
    if let Some(warning) = mlxk_engine::admit_reranker(&facts, &health, &plan)? {
        out.remark(&warning, "a smaller model needs less");
    }
    let reranker = Reranker::load(&facts, &plan)?;
    let field = source.field.clone();
    let counter = Counter::new("texts", true);
    for group in input::texts(source) {
        counter.add(group.len());
        for scored in scored(&reranker, &found.name, question, group) {
            let ranked = scored.and_then(|(score, record)| ranking.add(score, record));
            if let Err(e) = ranked {
                counter.aside(|| out.error(&e))?;
            }
        }
    }
    drop(counter);
    ranking.write(field.as_deref(), out)
}

/// Records of a group of texts and their scores, in order.
fn scored(
    reranker: &Reranker,
    name: &str,
    question: Question,
    group: Vec<Result<Item>>,
) -> Vec<Result<(f32, Record)>> {
    let pair = |item: Result<Item>| {
        let item = item?;
        let Content::Text(text) = &item.content else {
            return Err(Error::validation("a reranker takes a text, not tokens").about(item.place));
        };
        let pair = reranker.pair(question.text, text, question.truncate);
        Ok((pair.map_err(|e| about(e, &item.place))?, item))
    };
    let items: Vec<Result<_>> = group.into_iter().map(pair).collect();
    let pairs: Vec<_> = items.iter().flatten().map(|(pair, _)| pair.clone()).collect();
    let mut scores = reranker.scores(&pairs).into_iter();
    let record = |item: Result<(Pair, Item)>| {
        let (pair, item) = item?;
        let score = scores.next().unwrap_or(Ok(f32::NAN)).map_err(|e| e.about(&item.place))?;
        let record = match item.record.get("embedding") {
            Some(_) => without_vector(item.record.fields().clone()),
            None => item.record,
        };
        let record = record
            .with("model", name)
            .with("tokens", pair.ids.len())
            .with("truncated", pair.truncated);
        Ok((score, record))
    };
    items.into_iter().map(record).collect()
}
