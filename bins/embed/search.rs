//! Search: the records of an index whose vectors are the most similar to that of a question.

use mlxk_cli::{Counter, Output};
use mlxk_core::{Error, Result};

use super::index::{Indexed, indexed};
use super::input::{self, Source, about};
use super::model::Model;
use super::ranking::Ranking;

/// Writes the best records of `source` as `ranking` ranks them by the similarity of `model` to
/// `question`. A record that cannot be compared is reported, and the next one is.
///
/// # Errors
/// If `question` cannot be embedded, or `out` cannot be written.
pub fn search(
    model: &Model,
    question: &str,
    source: Source,
    mut ranking: Ranking,
    out: &mut Output,
) -> Result<()> {
    let question = embed(model, question)?;
    let field = source.field.clone();
    let counter = Counter::new("records", true);
    for group in input::groups(source, indexed) {
        counter.add(group.len());
        for record in group {
            let ranked = record.and_then(|Indexed { record, vector, place }| {
                let comparable = comparable(model, record.str("model"), vector.len());
                comparable.map_err(|e| e.about(&place))?;
                let score = model.embedder.similarity(&question, &vector);
                ranking.add(score, record).map_err(|e| e.about(place))
            });
            if let Err(e) = ranked {
                counter.aside(|| out.error(&e))?;
            }
        }
    }
    drop(counter);
    ranking.write(field.as_deref(), out)
}

/// Vector of the question.
fn embed(model: &Model, question: &str) -> Result<Vec<f32>> {
    let Model { embedder, options, .. } = model;
    let place = "--search";
    let input = embedder.input(question, options).map_err(|e| about(e, place))?;
    let vector = embedder.embed(&[input], options).into_iter().next();
    vector.unwrap_or_else(|| Ok(Vec::new())).map_err(|e| e.about(place))
}

/// Checks that a vector of `dimensions` elements, which the model `name` made, can be compared with
/// those of `model`.
fn comparable(model: &Model, name: Option<&str>, dimensions: usize) -> Result<()> {
    let own = model.dimensions();
    if let Some(name) = name.filter(|name| *name != model.name) {
        let message = format!("a vector of another model: {name}");
        return Err(Error::validation(message).hint("vectors of one model only are comparable"));
    }
    if dimensions != own {
        let message = format!("a vector of {dimensions} dimensions, and the question has {own}");
        let error = Error::validation(message);
        return Err(match dimensions < model.embedder.dimensions() {
            true => error.hint(format!("--dimensions {dimensions} cuts the question as well")),
            false if dimensions == model.embedder.dimensions() => {
                error.hint("search without --dimensions, or embed the texts with it too")
            }
            false => error,
        });
    }
    Ok(())
}
