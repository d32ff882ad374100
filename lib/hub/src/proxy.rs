//! Proxies: which one serves a URL, by the rules of huggingface_hub's HTTP client.

use std::net::IpAddr;

use mlxk_core::{Error, Kind, Result, remote};
use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use ureq::http::uri::Authority;
use ureq::{Proxy, ProxyProtocol};

/// Proxies for each scheme, and the hosts that are reached without one.
#[derive(Debug)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Exception>,
}

/// Entry of `NO_PROXY`.
#[derive(Debug, PartialEq)]
struct Exception {
    scheme: Option<String>,
    host: Host,
    port: Option<u16>,
}

/// Hosts of an exception.
#[derive(Debug, PartialEq)]
enum Host {
    /// All hosts: `*`.
    All,
    /// One address, or `localhost`.
    One(String),
    /// A domain and all below it: `example.com`.
    Domain(String),
    /// All hosts below a domain: `.example.com`, `*.example.com`.
    Below(String),
    /// The addresses that begin with the given number of bits: `10.0.0.0/8`.
    Network(IpAddr, u32),
}

impl Proxies {
    /// The proxies of `settings`.
    ///
    /// # Errors
    /// `Validation` if one is not the URL of a proxy.
    pub fn new(settings: &remote::Proxies) -> Result<Proxies> {
        let proxy = |url: &Option<String>| url.as_deref().map(proxy).transpose();
        Ok(Proxies {
            http: proxy(&settings.http)?,
            https: proxy(&settings.https)?,
            except: settings.except.iter().filter_map(|text| Exception::parse(text)).collect(),
        })
    }

    /// The proxy for http URLs.
    pub fn http(&self) -> Option<&Proxy> {
        self.http.as_ref()
    }

    /// The proxy for https URLs.
    pub fn https(&self) -> Option<&Proxy> {
        self.https.as_ref()
    }

    /// The proxy for `url`; none if its host is reached directly.
    pub fn of(&self, url: &Uri) -> Option<&Proxy> {
        let proxy = if url.scheme_str() == Some("https") { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| self.except.iter().all(|exception| !exception.covers(url)))
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        let text = text.trim().to_lowercase();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme).filter(|scheme| *scheme != "all"), rest),
            None => (None, &*text),
        };
        let exception = |host, port| Exception { scheme: scheme.map(str::to_owned), host, port };
        if let Some((address, bits)) = rest.split_once('/') {
            let address: IpAddr = bare(address).parse().ok()?;
            return Some(exception(Host::Network(address, bits.parse().ok()?), None));
        }
        // More than one colon, and no brackets, is an address of IPv6 without a port.
        let ported = rest.rsplit_once(':');
        let ported = ported.filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, port) = match ported {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (rest, None),
        };
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        let host = match (host, below) {
            ("", _) => return None,
            ("*", _) => Host::All,
            (_, Some(domain)) => Host::Below(format!(".{domain}")),
            (host, _) if host == "localhost" || bare(host).parse::<IpAddr>().is_ok() => {
                Host::One(bare(host).to_owned())
            }
            (host, _) => Host::Domain(host.trim_start_matches('*').to_owned()),
        };
        Some(exception(host, port))
    }

    fn covers(&self, url: &Uri) -> bool {
        let host = url.host().unwrap_or_default().trim_end_matches('.').to_lowercase();
        let host = bare(&host);
        let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
        let hosted = match &self.host {
            Host::All => true,
            Host::One(one) => host == one,
            Host::Domain(domain) => host
                .strip_suffix(&**domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Host::Below(domain) => host.ends_with(&**domain) && host.len() > domain.len(),
            Host::Network(network, bits) => {
                host.parse().is_ok_and(|address| is_within(address, *network, *bits))
            }
        };
        hosted
            && self.scheme.as_deref().is_none_or(|scheme| url.scheme_str() == Some(scheme))
            && self.port.is_none_or(|port| port == url.port_u16().unwrap_or(default))
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= bits
}

/// The host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The proxy at `url`, which is that of an HTTP proxy if it has no scheme.
fn proxy(url: &str) -> Result<Proxy> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let build = || {
        let at: Authority = host.parse().ok()?;
        let mut builder = Proxy::builder(ProxyProtocol::try_from(scheme).ok()?).host(at.host());
        match at.as_str().strip_prefix(at.host())?.strip_prefix(':') {
            None | Some("") => {}
            Some(port) => builder = builder.port(port.parse().ok()?),
        }
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8().ok();
            builder = builder.username(&decoded(user)?).password(&decoded(password)?);
        }
        builder.build().ok()
    };
    build().ok_or_else(|| {
        // Without its login, which may hold a password.
        Error::new(Kind::Validation, format!("{scheme}://{rest}"), "not the address of a proxy")
            .hint("HTTP_PROXY, HTTPS_PROXY and ALL_PROXY hold http://host:port or socks5h://host:port")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn covers(entry: &str, url: &str) -> bool {
        Exception::parse(entry).is_some_and(|exception| exception.covers(&url.parse().unwrap()))
    }

    #[test]
    fn exceptions_are_those_of_huggingface_hubs_client() {
        for (entry, url) in [
            ("*", "http://anything/x"),
            ("example.com", "https://example.com/x"),
            ("Example.COM", "https://cdn.example.com./x"),
            (".example.com", "https://cdn.example.com"),
            ("*.example.com", "https://a.b.example.com"),
            ("example.com:8080", "http://example.com:8080"),
            ("example.com:443", "https://example.com"),
            ("https://example.com", "https://example.com"),
            ("all://example.com", "http://example.com"),
            ("localhost", "http://localhost:8000"),
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("10.0.0.0/8", "http://10.1.2.3"),
            ("0.0.0.0/0", "http://10.1.2.3"),
            ("::1", "http://[::1]:80"),
            ("[::1]:80", "http://[::1]"),
            ("fd00::/8", "http://[fd12::1]"),
        ] {
            assert!(covers(entry, url), "{entry} {url}");
        }
        for (entry, url) in [
            ("", "http://example.com"),
            ("example.com", "https://notexample.com"),
            (".example.com", "https://example.com"),
            ("cdn.example.com", "https://example.com"),
            ("example.com:8080", "http://example.com"),
            ("https://example.com", "http://example.com"),
            ("localhost", "http://a.localhost"),
            ("127.0.0.1", "http://127.0.0.11"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/40", "http://10.0.0.1"),
            ("10.0.0.0/8", "http://[::1]"),
        ] {
            assert!(!covers(entry, url), "{entry} {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_own_proxy() {
        let settings = remote::Proxies {
            http: Some("plain:3128".into()),
            https: Some("socks5h://u:p%40%3A@secure".into()),
            except: vec!["direct".into()],
        };
        let proxies = Proxies::new(&settings).unwrap();
        let of = |url: &str| proxies.of(&url.parse().unwrap()).map(|proxy| proxy.host());
        assert_eq!([of("http://x"), of("https://x")], [Some("plain"), Some("secure")]);
        assert_eq!([of("http://direct"), of("https://direct")], [None, None]);
        let secure = proxies.https.as_ref().unwrap();
        assert_eq!((secure.protocol(), secure.port()), (ProxyProtocol::Socks5h, 1080));
        assert_eq!((secure.username(), secure.password()), (Some("u"), Some("p@:")));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for url in ["ftp://u:secret@host", "http://u:secret@", "http://u:secret@host:port", "://"] {
            let error = proxy(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        let odd = proxy("http://user:p@ss#1/@host:3128/").unwrap();
        assert_eq!((odd.host(), odd.password()), ("host", Some("p@ss#1/")));
    }
}
