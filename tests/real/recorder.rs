//! A proxy in front of a registry that keeps the head of every request.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use crate::disguise::pass_on;

/// Listens on a free port for as long as the test process lives.
pub struct Recorder {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub fn before(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&heads);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // A connection that breaks is for the gateway to report.
                thread::spawn(move || pass_on(connection, registry, |head| recorded(head, &kept)));
            }
        });
        Self { address, heads }
    }

    /// The head of every request so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The value of every such header so far.
    pub fn values(&self, name: &str) -> Vec<String> {
        let lines = self.heads().join("\r\n");
        let named = lines.split("\r\n").filter_map(|line| line.split_once(": "));
        named.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    }
}

/// Keeps a head, and gives it back for a connection that ends with its answer.
fn recorded(head: &str, kept: &Mutex<Vec<String>>) -> String {
    kept.lock().unwrap().push(head.to_owned());
    head.trim_end().to_owned() + "\r\nConnection: close\r\n\r\n"
}
