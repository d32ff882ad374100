//! Addresses that requests may go to: a Hub must not lead this machine into its own network.
//!
//! The Hub names URLs to this machine: redirects, storage, uploads. A host among them is reached
//! only at public addresses, and at those of the networks that the Hub itself is on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::OnceLock;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Kind of network that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Public,
    /// A network of an organisation or a home (RFC 1918, RFC 4193).
    Private,
    /// A provider's network between its customers (RFC 6598).
    Shared,
    /// The network of one link (RFC 3927, RFC 4291), where clouds serve credentials to machines.
    Link,
    /// This machine.
    Loopback,
    /// Addresses of other special purposes.
    Reserved,
}

/// Resolver of host names that returns only addresses a request may go to. The connection is made
/// to one of these, so that no second lookup can lead elsewhere.
#[derive(Debug)]
pub struct Guard {
    endpoint: Uri,
    system: DefaultResolver,
    networks: OnceLock<Vec<Network>>,
}

/// A host whose addresses are all refused.
#[derive(Debug)]
pub struct Refused(pub IpAddr);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Hub leads to an address in a local network, {}, which it is not in", self.0)
    }
}

impl std::error::Error for Refused {}

impl Guard {
    /// Resolver for requests that the Hub at `endpoint` leads to.
    pub fn new(endpoint: &Uri) -> Guard {
        Guard {
            endpoint: endpoint.clone(),
            system: DefaultResolver::default(),
            networks: OnceLock::new(),
        }
    }

    /// Checks a URL whose host is an address itself, also in the forms that only the system's
    /// resolver understands; a proxy would be asked for it without any resolution here.
    ///
    /// # Errors
    /// If requests may not go to the address.
    pub fn check(&self, url: &Uri) -> Result<(), Refused> {
        let host = url.host().unwrap_or_default();
        match self.is_endpoint(url).then_some(Vec::new()).or_else(|| literal(host)) {
            None => Ok(()),
            Some(found) => {
                let refused = found.iter().find(|address| !self.allows(address.ip()));
                refused.map_or(Ok(()), |address| Err(Refused(address.ip())))
            }
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        let network = network(address);
        network == Network::Public || self.networks().contains(&network)
    }

    /// Networks that the Hub is on.
    fn networks(&self) -> &[Network] {
        self.networks.get_or_init(|| {
            let host = self.endpoint.host().unwrap_or_default();
            // The port has no influence on the addresses.
            let found = (bare(host), 80).to_socket_addrs().into_iter().flatten();
            found.map(|address| network(address.ip())).collect()
        })
    }

    fn is_endpoint(&self, url: &Uri) -> bool {
        let host = |url: &Uri| url.host().map(str::to_lowercase);
        host(url) == host(&self.endpoint)
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        url: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(url, config, timeout)?;
        let is_proxy = config.proxy().is_some_and(|proxy| proxy.uri() == url);
        if is_proxy || self.is_endpoint(url) {
            return Ok(found);
        }
        let mut allowed = self.empty();
        for address in found.iter().filter(|address| self.allows(address.ip())) {
            allowed.push(*address);
        }
        match (allowed.is_empty(), found.first()) {
            (true, Some(first)) => Err(ureq::Error::Other(Box::new(Refused(first.ip())))),
            _ => Ok(allowed),
        }
    }
}

/// Resolver that leads all requests to one proxy, which is given the whole URL.
#[derive(Debug)]
pub struct ToProxy(pub Uri);

impl Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

/// Addresses of a host that is an address itself, or means this machine; none for other names.
fn literal(host: &str) -> Option<Vec<SocketAddr>> {
    let host = bare(host).trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default().to_lowercase();
    let digits = last.strip_prefix("0x").unwrap_or(&last);
    // The system takes 2130706433, 0x7f.1 and 0177.0.0.1 for addresses too (inet_aton).
    let numeric = last.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_hexdigit());
    if last == "localhost" {
        return Some(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80)]);
    }
    match numeric || host.contains(':') {
        true => Some((host, 80).to_socket_addrs().map(Iterator::collect).unwrap_or_default()),
        false => None,
    }
}

fn network(address: IpAddr) -> Network {
    match address {
        IpAddr::V4(address) => network_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => network_v4(inner),
            None => network_v6(address),
        },
    }
}

fn network_v4(address: Ipv4Addr) -> Network {
    match address.octets() {
        // Connecting to 0.0.0.0 reaches this machine.
        [0 | 127, ..] => Network::Loopback,
        [10, ..] | [172, 16..32, ..] | [192, 168, ..] => Network::Private,
        [100, 64..128, ..] => Network::Shared,
        [169, 254, ..] => Network::Link,
        [192, 0, 0 | 2, _] | [198, 18..20, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Network::Reserved
        }
        [224..=255, ..] => Network::Reserved,
        _ => Network::Public,
    }
}

fn network_v6(address: Ipv6Addr) -> Network {
    match address.segments() {
        _ if address.is_loopback() || address.is_unspecified() => Network::Loopback,
        [0xfc00..0xfe00, ..] | [0xfec0..0xff00, ..] => Network::Private,
        [0xfe80..0xfec0, ..] => Network::Link,
        [0x2000..0x4000, second, ..] => match address.segments()[0] {
            // Documentation (RFC 3849) and Teredo (RFC 4380).
            0x2001 if second == 0xdb8 || second == 0 => Network::Reserved,
            _ => Network::Public,
        },
        _ => Network::Reserved,
    }
}

/// IPv4 address that packets to an IPv6 address go to: mapped and compatible addresses (RFC 4291),
/// NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(of(high, low))
        }
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// The host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use ureq::Agent;
    use ureq::unversioned::transport::DefaultConnector;

    use super::*;

    #[test]
    fn addresses_belong_to_networks() {
        for (address, expected) in [
            ("8.8.8.8", Network::Public),
            ("172.15.0.1", Network::Public),
            ("172.31.0.1", Network::Private),
            ("192.168.1.1", Network::Private),
            ("100.100.100.200", Network::Shared),
            ("169.254.169.254", Network::Link),
            ("0.0.0.0", Network::Loopback),
            ("255.255.255.255", Network::Reserved),
            ("2606:4700::1", Network::Public),
            ("::1", Network::Loopback),
            ("fd00:ec2::254", Network::Private),
            ("fe80::1", Network::Link),
            ("::ffff:169.254.169.254", Network::Link),
            ("64:ff9b::a9fe:a9fe", Network::Link),
            ("2002:a00:1::", Network::Private),
            ("ff02::1", Network::Reserved),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_name_that_resolves_to_a_local_address_is_not_connected_to() {
        let guard = Guard::new(&"http://8.8.8.8".parse().unwrap());
        let agent = Agent::with_parts(Config::default(), DefaultConnector::default(), guard);
        let error = agent.get("http://localhost:1/").call().unwrap_err();
        assert!(matches!(error, ureq::Error::Other(_)), "{error}");
    }

    #[test]
    fn a_hub_leads_to_public_addresses_and_its_own_networks() {
        let checked = |endpoint: &str, url: &str| {
            Guard::new(&endpoint.parse().unwrap()).check(&url.parse().unwrap()).is_ok()
        };
        let (public, private, local) = ("https://1.1.1.1", "http://10.0.0.1", "http://127.0.0.1:1");
        for (endpoint, url) in [
            (public, "https://8.8.8.8/x"),
            (public, "https://cdn.example.com"),
            (private, "http://192.168.0.1"),
            (private, "https://8.8.8.8"),
            (local, "http://localhost:2/x"),
            (local, "http://[::1]/"),
            (local, local),
        ] {
            assert!(checked(endpoint, url), "{endpoint} {url}");
        }
        for (endpoint, url) in [
            (public, "http://169.254.169.254/latest/meta-data"),
            (public, "http://2852039166/"),
            (public, "http://0xA9.0xFE.0xA9.0xFE/"),
            (public, "http://0251.0376.0251.0376"),
            (public, "http://[::ffff:a9fe:a9fe]/"),
            (public, "http://10.0.0.1"),
            (public, "http://127.1"),
            (public, "http://LocalHost./"),
            (private, "http://127.0.0.1"),
            (private, "http://169.254.169.254"),
            (local, "http://10.0.0.1"),
            (local, "http://169.254.169.254"),
        ] {
            assert!(!checked(endpoint, url), "{endpoint} {url}");
        }
    }
}
