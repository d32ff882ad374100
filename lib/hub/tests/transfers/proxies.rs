//! Pulls through a proxy of this test, which tells what was asked of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use mlxk_core::Kind;

use crate::env::Env;

/// A proxy that speaks HTTP and SOCKS5, and connects to whatever it is asked for.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = log.clone();
                // A client that closes its connection is no failure of the test.
                thread::spawn(move || serve(stream.unwrap(), &log).ok());
            }
        });
        Proxy { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(mut client: TcpStream, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut first = [0];
    client.peek(&mut first)?;
    if first == [5] {
        let target = socks(&mut client)?;
        log.lock().unwrap().push(format!("SOCKS {target}"));
        return pump(client, &target, &[]);
    }
    let mut head = Vec::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap().to_owned();
    let login = text.lines().find(|line| line.to_lowercase().starts_with("proxy-authorization:"));
    log.lock()
        .unwrap()
        .push(format!("{line}{}", login.map(|l| format!(" {l}")).unwrap_or_default()));
    let target = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let target = target.unwrap_or_default().to_owned();
    pump(client, &target, &head)
}

/// Reads a SOCKS5 request for a connection without a login (RFC 1928); returns host and port.
fn socks(client: &mut TcpStream) -> io::Result<String> {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting)?;
    client.write_all(&[5, 0])?;
    let mut request = [0; 4];
    client.read_exact(&mut request)?;
    let mut length = [4];
    if request[3] == 3 {
        client.read_exact(&mut length)?;
    }
    let mut host = vec![0; length[0].into()];
    client.read_exact(&mut host)?;
    let mut port = [0; 2];
    client.read_exact(&mut port)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let host = match request[3] {
        3 => String::from_utf8_lossy(&host).into_owned(),
        _ => host.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
    };
    Ok(format!("{host}:{}", u16::from_be_bytes(port)))
}

fn pump(mut client: TcpStream, target: &str, head: &[u8]) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    server.write_all(head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

#[test]
fn an_http_proxy_is_given_whole_urls_and_its_login() {
    let (mut env, proxy) = (Env::with_model(), Proxy::start());
    env.remote.proxies.http = Some(format!("http://me:p%40ss@127.0.0.1:{}", proxy.port));
    env.pull().unwrap();
    let asked = proxy.asked();
    let begins = format!("GET {}/api/models/org/M/revision/main HTTP/1.1", env.hub.endpoint());
    assert!(asked[0].starts_with(&begins), "{asked:?}");
    assert!(asked[0].ends_with("Basic bWU6cEBzcw=="), "{asked:?}");
    assert!(asked.iter().any(|line| line.contains(env.hub.storage())), "{asked:?}");
    assert!(env.hub.requests().iter().all(|request| request.path.starts_with('/')));
}

#[test]
fn a_socks_proxy_is_used() {
    let (mut env, proxy) = (Env::with_model(), Proxy::start());
    for scheme in ["socks5", "socks5h"] {
        env.remote.proxies.http = Some(format!("{scheme}://127.0.0.1:{}", proxy.port));
        env.pull().unwrap();
        let host = env.hub.endpoint().trim_start_matches("http://");
        assert_eq!(proxy.asked()[0], format!("SOCKS {host}"), "{scheme}");
    }
}

#[test]
fn proxies_of_other_schemes_and_excepted_hosts_are_not_asked() {
    let (mut env, proxy) = (Env::with_model(), Proxy::start());
    let url = format!("http://127.0.0.1:{}", proxy.port);
    env.remote.proxies.https = Some(url.clone());
    env.pull().unwrap();
    env.remote.proxies.http = Some(url);
    env.remote.proxies.except = vec!["127.0.0.0/8".into(), "localhost".into()];
    env.pull().unwrap();
    assert_eq!(proxy.asked(), [""; 0]);
}

#[test]
fn a_proxy_that_does_not_answer_is_named() {
    let mut env = Env::with_model();
    env.remote.proxies.http = Some("socks5h://u:secret@127.0.0.1:1".into());
    let error = env.pull().unwrap_err();
    assert_eq!(error.kind, Kind::DownloadFailed);
    let said = error.to_string();
    assert!(said.contains("through the proxy 127.0.0.1") && !said.contains("secret"), "{said}");
}
