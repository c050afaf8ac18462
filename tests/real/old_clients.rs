//! Real engines that pull the derived schema 1: a proxy takes their Accept header away and has them call themselves Docker 1.9.1.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use serde_json::Value;

use crate::{
    documents,
    engines::{Containerd, Dockerd, reference},
    http::{self, DOCKER_1_9_1},
    images::{self, Twin},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/old";
const TAG: &str = "v1";

/// Listens on a free port for as long as the test process lives, and passes every request on as Docker 1.9.1 would send it.
fn old_fashioned(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A connection that breaks is for the client at its other end to report.
            thread::spawn(move || pass_on(connection, gateway));
        }
    });
    address
}

/// One request of one connection: the head rewritten, the answer as it comes.
fn pass_on(mut client: TcpStream, gateway: SocketAddr) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        // What is no text is a TLS greeting: engines try that first, and go on in plain HTTP after this answer.
        let read = reader.read_line(&mut head);
        if !matches!(read, Ok(1..)) || !head.contains(" HTTP/1.") {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    }
    let dropped = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["accept", "user-agent", "connection"].contains(&name.as_str())
    };
    let kept = head.trim_end().split("\r\n").filter(dropped).collect::<Vec<_>>().join("\r\n");
    let rewritten = format!("{kept}\r\nUser-Agent: {DOCKER_1_9_1}\r\nConnection: close\r\n\r\n");
    let mut server = TcpStream::connect(gateway)?;
    server.write_all(rewritten.as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// A gateway in front of a registry that stores one twin of the runnable image, and what its schema 1 must be.
struct Stage {
    _registry: Registry,
    gateway: Gateway,
    proxy: SocketAddr,
    /// The digest of the schema 1 that docker-registry makes of the schema 2 twin.
    digest: String,
    what: String,
}

fn stages() -> Vec<Stage> {
    let image = images::runnable();
    let oracle = Registry::docker_registry();
    oracle.push(&image, Twin::Schema2, REPOSITORY, TAG);
    let expected = http::ask_as_docker_1_9(oracle.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    let digest = images::digest(&documents::schema1_of(&expected, "docker-registry"));
    let sides = Registry::both().into_iter().zip([Twin::Oci, Twin::Schema2]);
    let stage = |(registry, twin): (Registry, Twin)| {
        registry.push(&image, twin, REPOSITORY, TAG);
        let gateway = Gateway::start_with_directory_store(&registry);
        let proxy = old_fashioned(gateway.address);
        let what = format!("{twin:?} in {}", registry.name);
        Stage { _registry: registry, gateway, proxy, digest: digest.clone(), what }
    };
    sides.map(stage).collect()
}

impl Stage {
    fn reference(&self) -> String {
        reference(self.proxy, REPOSITORY, TAG)
    }

    /// Waits for the gateway's own words: schema 1 given for the tag, then the same document fetched by its digest.
    fn assert_log(&mut self) {
        let digest = self.digest.clone();
        let served = |line: &Value, method: Option<&str>, asked: &str| {
            let said = |key: &str| line["fields"][key].as_str().or_else(|| line[key].as_str()).unwrap_or_default();
            said("path").trim_matches('"').ends_with(&format!("/{REPOSITORY}/manifests/{asked}"))
                && method.is_none_or(|method| said("method") == method)
                && said("served") == "schema1"
                && said("digest") == digest
        };
        self.gateway.wait_for_line("log schema 1 for the tag", |line| served(line, None, TAG));
        self.gateway.wait_for_line("log schema 1 by digest", |line| served(line, Some("GET"), &digest));
    }
}

#[test]
fn docker_pulls_the_derived_schema_1() {
    let dockerd = Dockerd::start();
    for mut stage in stages() {
        assert_eq!(dockerd.pull(&stage.reference()), stage.digest, "{}", stage.what);
        dockerd.assert_files_and_remove(&stage.reference(), &stage.what);
        stage.assert_log();
    }
}

#[test]
fn containerd_pulls_the_derived_schema_1() {
    for mut stage in stages() {
        let containerd = Containerd::start();
        // containerd converts what it gets and keeps the digest of the result, so that the log is the witness.
        containerd.pull(&stage.reference());
        containerd.assert_files(&stage.what);
        stage.assert_log();
    }
}
