//! Resolution of the URLs in `Location` and `Link` headers (RFC 3986, section 5).

use fluent_uri::{Uri, UriRef};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Characters that no URL contains, and that servers send all the same.
const ILLEGAL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Absolute URL, without its fragment, that `to` means in an answer from the URL `from`; none if
/// there is no such URL of the scheme http or https.
pub fn resolve(from: &str, to: &[u8]) -> Option<String> {
    let to = to.trim_ascii();
    let to = to.split(|byte| *byte == b'#').next().unwrap_or_default();
    let base = parse(from.split('#').next().unwrap_or_default().as_bytes())?;
    let url = parse(to)?.resolve_against(&Uri::try_from(base).ok()?).ok()?;
    let (scheme, rest) = url.as_str().split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let host = url.authority().is_some_and(|authority| !authority.host().is_empty());
    (host && matches!(&*scheme, "http" | "https")).then(|| format!("{scheme}:{rest}"))
}

fn parse(url: &[u8]) -> Option<UriRef<String>> {
    let text = percent_encode(url, ILLEGAL).to_string();
    // Brackets belong to addresses of IPv6 alone.
    let strict = || text.replace('[', "%5B").replace(']', "%5D");
    let parsed = UriRef::parse(text.clone()).or_else(|_| UriRef::parse(strict()));
    parsed.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved_as_browsers_do() {
        let from = "https://hub.example/org/M/resolve/main/a.json?x=1#y";
        for (to, url) in [
            ("https://cdn.example/a?b#c", "https://cdn.example/a?b"),
            ("HTTPS://cdn.example", "https://cdn.example"),
            ("//cdn.example/a", "https://cdn.example/a"),
            ("/a/b", "https://hub.example/a/b"),
            ("b.json", "https://hub.example/org/M/resolve/main/b.json"),
            ("../x/b.json", "https://hub.example/org/M/resolve/x/b.json"),
            ("?y=2", "https://hub.example/org/M/resolve/main/a.json?y=2"),
            (" /a b|c ", "https://hub.example/a%20b%7Cc"),
            ("/ä?[x]", "https://hub.example/%C3%A4?%5Bx%5D"),
            ("/a%2Fb%20c", "https://hub.example/a%2Fb%20c"),
            ("http://[::1]:8/x", "http://[::1]:8/x"),
        ] {
            assert_eq!(resolve(from, to.as_bytes()).as_deref(), Some(url), "{to}");
        }
        for to in ["ftp://x/a", "file:///etc/passwd", "https:///a", "http://", "javascript:x"] {
            assert_eq!(resolve(from, to.as_bytes()), None, "{to}");
        }
    }
}
