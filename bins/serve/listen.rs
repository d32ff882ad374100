//! Sockets that clients connect to: an address, a file, or sockets passed by systemd.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use listenfd::ListenFd;
use mlxk_core::{Error, Kind, Result};
use mlxk_serve::Socket;

use super::flags::ListenFlags;
use super::socket_file::SocketFile;

/// Open sockets.
pub struct Open {
    /// Sockets that listen.
    pub sockets: Vec<Socket>,
    /// Addresses of the sockets as clients write them.
    pub addresses: Vec<String>,
    /// True if clients on other machines cannot connect.
    pub here: bool,
    /// True if a socket is TCP, and all of those are on the loopback interface.
    pub loopback: bool,
    /// File of the Unix socket, removed on drop.
    pub file: Option<SocketFile>,
}

/// Opens the sockets that `flags` name, on `port` unless they name one, or takes those that systemd
/// passes to the process.
///
/// # Errors
/// If a socket cannot be opened, or is of a kind that cannot be served.
pub fn open(flags: &ListenFlags, port: u16) -> Result<Open> {
    let mut open =
        Open { sockets: vec![], addresses: vec![], here: true, loopback: false, file: None };
    let mut handed = ListenFd::from_env();
    if handed.len() > 0 {
        for place in 0..handed.len() {
            open.add(take(&mut handed, place)?)?;
        }
        return Ok(open);
    }
    let socket = match &flags.socket {
        Some(path) => {
            let mut file = SocketFile::new(path)?;
            let socket = unix(path)?;
            file.arm()?;
            open.file = Some(file);
            socket
        }
        None => tcp(&flags.host, flags.port(port))?,
    };
    open.add(socket)?;
    Ok(open)
}

impl Open {
    fn add(&mut self, socket: Socket) -> Result<()> {
        let failed = |e| Error::io(Path::new("socket"), e);
        match &socket {
            Socket::Tcp(listener) => {
                let address = listener.local_addr().map_err(failed)?;
                let loopback = address.ip().is_loopback();
                self.loopback = loopback && self.here;
                self.here &= loopback;
                self.addresses.push(format!("http://{address}"));
            }
            Socket::Unix(listener) => {
                let address = listener.local_addr().map_err(failed)?;
                let path = address.as_pathname().map(|path| path.display().to_string());
                self.addresses.push(format!("unix:{}", path.unwrap_or_default()));
            }
        }
        self.sockets.push(socket);
        Ok(())
    }
}

/// TCP or Unix socket number `place` of those that systemd passed.
fn take(handed: &mut ListenFd, place: usize) -> Result<Socket> {
    let foreign = |e: std::io::Error| {
        Error::new(Kind::Command, format!("socket {place}"), e.to_string())
            .hint("it must be a listening stream socket")
    };
    if let Ok(Some(listener)) = handed.take_tcp_listener(place) {
        return Ok(Socket::Tcp(listener));
    }
    match handed.take_unix_listener(place).map_err(foreign)? {
        Some(listener) => Ok(Socket::Unix(listener)),
        None => Err(foreign(ErrorKind::NotFound.into())),
    }
}

/// Opens a TCP socket on an address; no name is looked up.
fn tcp(host: &str, port: u16) -> Result<Socket> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let refused = |why: String| Error::new(Kind::Command, format!("{host}:{port}"), why);
    let address = match bare {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        bare => bare.parse::<IpAddr>(),
    };
    let address = address.map_err(|_| {
        refused("not an address".to_owned()).hint("an address is like 127.0.0.1, 0.0.0.0 or ::1")
    })?;
    let bound = TcpListener::bind(SocketAddr::new(address, port));
    let listener = bound.map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => refused(e.to_string()).hint("--port 0 uses a free port"),
        _ => refused(e.to_string()),
    })?;
    Ok(Socket::Tcp(listener))
}

/// Opens the socket `path`, which only its owner may use. The socket of a server that was killed is
/// replaced.
fn unix(path: &Path) -> Result<Socket> {
    let io = |e| Error::io(path, e);
    let refused = |message| Err(Error::new(Kind::Command, path.display().to_string(), message));
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return refused("a file with this name exists");
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return refused("a server already listens on it"),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io)?;
            }
            Err(e) => return Err(io(e)),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io)?;
    Ok(Socket::Unix(listener))
}
