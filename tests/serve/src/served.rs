//! A server on a port of this machine, in a thread of this process.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mlxk_serve::{App, Settings, Socket, run};

use crate::Script;

/// A running server.
pub struct Served {
    /// The server's address.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Served {
    /// Starts a server over a script; running requests have the time `grace` when it stops.
    pub fn start(script: &Script, settings: Settings, grace: Duration) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = App::new(script.clone(), settings);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let sockets = vec![Socket::Tcp(listener)];
            run(&app, sockets, grace, &|| stopped.load(Ordering::Relaxed)).unwrap();
        });
        Served { address, stop, thread }
    }

    /// Stops the server and waits for its end.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
