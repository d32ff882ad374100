//! URLs of models' pages on the Hub, as people copy them from a browser.

use mlxk_core::{Error, Kind, Result, Spec, Target};
use percent_encoding::percent_decode_str;

/// Hosts of the Hub's pages.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// Kinds of repositories that are not models.
const OTHERS: [&str; 6] = ["datasets", "spaces", "kernels", "buckets", "collections", "papers"];

/// Model that a page shows.
#[derive(Debug, PartialEq)]
struct Page {
    /// Repository, `org/name`.
    id: String,
    /// Revision that the page shows, if the URL names one.
    revision: Option<String>,
}

/// The name with the model in the place of its page, if it is the URL of one.
///
/// # Errors
/// If it is the URL of something else.
pub(crate) fn named(spec: Spec) -> Result<Spec> {
    Ok(match read(&spec.text)? {
        Some(Page { id: name, revision }) => {
            Spec { target: Target::Name { name, revision }, ..spec }
        }
        None => spec,
    })
}

/// The page at `text`; none if that is not a URL.
///
/// # Errors
/// If the URL is not that of a model's page.
fn read(text: &str) -> Result<Option<Page>> {
    let lower = text.to_lowercase();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_lowercase(), rest),
        None if HOSTS.iter().any(|host| lower.starts_with(&format!("{host}/"))) => {
            ("https".to_owned(), text)
        }
        None => return Ok(None),
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    let path = match (&*scheme, &parts[..]) {
        // huggingface_hub's own form: hf://org/name@revision.
        ("hf", path) => path,
        ("http" | "https", [host, path @ ..]) if HOSTS.contains(&&*host.to_lowercase()) => path,
        _ => return Err(other(text, "not a page of the Hub")),
    };
    let path = path.strip_prefix(&["models"]).unwrap_or(path);
    match path {
        [kind, ..] if OTHERS.contains(kind) => Err(other(text, "the page of something else")),
        [org, name] if name.contains('@') => {
            let (name, revision) = name.rsplit_once('@').unwrap_or((name, ""));
            Ok(Some(page(org, name, Some(decoded(revision)))))
        }
        [org, name] | [org, name, "tree" | "commits" | "discussions"] => {
            Ok(Some(page(org, name, None)))
        }
        [org, name, "tree" | "commit" | "commits", "refs", kind, rest @ ..] if !rest.is_empty() => {
            Ok(Some(page(org, name, Some(format!("refs/{kind}/{}", rest[0])))))
        }
        [org, name, "tree" | "commit" | "commits", revision, ..] => {
            Ok(Some(page(org, name, Some(decoded(revision)))))
        }
        [org, name, "blob" | "resolve" | "raw", revision, file @ ..] if !file.is_empty() => {
            let name = format!("{org}/{name}@{}", decoded(revision));
            Err(Error::new(Kind::Validation, text, "the page of one file")
                .hint(format!("mlxk-pull {name} --include '{}'", decoded(&file.join("/")))))
        }
        _ => Err(other(text, "not the page of a model")),
    }
}

fn page(org: &str, name: &str, revision: Option<String>) -> Page {
    let name = name.strip_suffix(".git").unwrap_or(name);
    Page { id: format!("{org}/{name}"), revision }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn other(text: &str, message: &str) -> Error {
    Error::new(Kind::Validation, text, message).hint(
        "a model is named org/name, or by the URL of its page, https://huggingface.co/org/name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_models_are_names() {
        for (url, revision) in [
            ("https://huggingface.co/org/name", None),
            ("http://www.huggingface.co/org/name/?library=mlx#x", None),
            ("HTTPS://HF.co/org/name.git", None),
            ("huggingface.co/org/name/tree/main", Some("main")),
            ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1/sub", Some("refs/pr/1")),
            ("https://huggingface.co/org/name/tree/refs/pr/1", Some("refs/pr/1")),
            ("https://huggingface.co/org/name/commit/0123abc", Some("0123abc")),
            ("https://huggingface.co/org/name/discussions", None),
            ("hf://models/org/name@v1", Some("v1")),
        ] {
            let revision = revision.map(str::to_owned);
            let page = Page { id: "org/name".to_owned(), revision };
            assert_eq!(read(url).unwrap(), Some(page), "{url}");
        }
        for name in ["org/name", "name@v1", "huggingface.co", "./x"] {
            assert_eq!(read(name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn other_urls_get_a_hint() {
        for url in [
            "https://example.com/org/name",
            "https://huggingface.co/org",
            "https://huggingface.co/datasets/org/name",
            "https://huggingface.co/",
            "ftp://huggingface.co/org/name",
        ] {
            assert!(read(url).unwrap_err().hint.is_some(), "{url}");
        }
        let file = read("https://hf.co/org/name/blob/main/sub/a%20b.json").unwrap_err();
        let hint = "mlxk-pull org/name@main --include 'sub/a b.json'";
        assert_eq!(file.hint.as_deref(), Some(hint));
    }
}
