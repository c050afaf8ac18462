//! A proxy that takes note of whoever comes: what a program would dial beyond this machine ends there.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

/// Listens on a free port for as long as the test process lives, and answers nobody.
pub struct Trap {
    address: SocketAddr,
    caught: Arc<Mutex<Vec<String>>>,
}

impl Trap {
    pub fn set() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, caught) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&caught);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let mut line = String::new();
                let _ = BufReader::new(connection).read_line(&mut line);
                noted.lock().unwrap().push(line.trim().to_owned());
            }
        });
        Self { address, caught }
    }

    /// The variables that lead a program here with everything that is not on loopback.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let url = format!("http://{}", self.address);
        let proxies = ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"].map(|name| (name, url.clone()));
        let direct = ["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1".to_owned()));
        proxies.into_iter().chain(direct).collect()
    }

    /// The first line of everything that came, which names what was to be dialled.
    pub fn caught(&self) -> Vec<String> {
        self.caught.lock().unwrap().clone()
    }
}
