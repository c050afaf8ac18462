//! Real engines that pull what was translated: a proxy gives their requests the headers of another client.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use serde_json::Value;

use crate::{
    documents,
    engines::{Containerd, Dockerd, reference},
    guises::{Guise, READS_OCI, READS_SCHEMA_1, READS_SCHEMA_2},
    http,
    images::{self, Twin},
    registries::{Gateway, Registry},
};

const REPOSITORY: &str = "test/old";
const TAG: &str = "v1";

/// Listens on a free port for as long as the test process lives, and passes every request on in this guise.
fn disguised(gateway: SocketAddr, guise: Guise) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A connection that breaks is for the client at its other end to report.
            thread::spawn(move || pass_on(connection, gateway, guise));
        }
    });
    address
}

/// One request of one connection: the head rewritten, the answer as it comes.
fn pass_on(mut client: TcpStream, gateway: SocketAddr, guise: Guise) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        // What is no text is a TLS greeting: engines try that first, and go on in plain HTTP after this answer.
        let read = reader.read_line(&mut head);
        if !matches!(read, Ok(1..)) || !head.contains(" HTTP/1.") {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    }
    let mut server = TcpStream::connect(gateway)?;
    server.write_all(rewritten(&head, guise).as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// The head of a request with the headers of the guise, on a connection that ends with its answer.
fn rewritten(head: &str, guise: Guise) -> String {
    let kept = head.trim_end().split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["accept", "user-agent", "connection"].contains(&name.as_str())
    });
    let accept = guise.accept.map(|types| format!("Accept: {types}"));
    let own = [format!("User-Agent: {}", guise.user_agent), "Connection: close".to_owned()].into_iter().chain(accept);
    kept.map(str::to_owned).chain(own).map(|line| line + "\r\n").chain(["\r\n".to_owned()]).collect()
}

/// A gateway in front of a registry that stores one twin of the runnable image, and the proxy in front of the gateway.
struct Stage {
    _registry: Registry,
    gateway: Gateway,
    guise: Guise,
    reference: String,
    what: String,
}

impl Stage {
    fn set(registry: Registry, twin: Twin, guise: Guise) -> Self {
        registry.push(&images::runnable(), twin, REPOSITORY, TAG);
        let gateway = Gateway::start_with_directory_store(&registry);
        let reference = reference(disguised(gateway.address, guise), REPOSITORY, TAG);
        let what = format!("{twin:?} in {} as {}", registry.name, guise.served);
        Self { _registry: registry, gateway, guise, reference, what }
    }

    /// One for each registry and each of these twins.
    fn each(twins: &[Twin], guise: Guise) -> Vec<Self> {
        let of_twin = |twin: &Twin| {
            Registry::both().into_iter().map(|registry| Self::set(registry, *twin, guise)).collect::<Vec<_>>()
        };
        twins.iter().flat_map(of_twin).collect()
    }

    /// Waits for the gateway's own words: a document of the right format given for the tag, then the same one fetched by
    /// its digest. Gives that digest.
    fn wait_for_log(&mut self) -> String {
        let Self { gateway, guise, .. } = self;
        let by_tag = gateway.wait_for_line("log a translation for the tag", |line| {
            said(line, "path").ends_with(&format!("/{REPOSITORY}/manifests/{TAG}"))
                && said(line, "served") == guise.served
        });
        let digest = said(&by_tag, "digest").to_owned();
        gateway.wait_for_line("log the same digest fetched by digest", |line| {
            said(line, "path").ends_with(&format!("/{REPOSITORY}/manifests/{digest}"))
                && said(line, "method") == "GET"
                && said(line, "served") == guise.served
                && said(line, "digest") == digest
        });
        digest
    }
}

/// A text field of a line of the gateway's log.
fn said<'a>(line: &'a Value, key: &str) -> &'a str {
    line["fields"][key].as_str().or_else(|| line[key].as_str()).unwrap_or_default().trim_matches('"')
}

/// The digest of the schema 1 that docker-registry makes of the schema 2 twin.
fn schema_1_digest() -> String {
    let oracle = Registry::docker_registry();
    oracle.push(&images::runnable(), Twin::Schema2, REPOSITORY, TAG);
    let answer = http::ask_as_docker_1_9(oracle.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    images::digest(&documents::schema1_of(&answer, "docker-registry"))
}

#[test]
fn docker_pulls_the_derived_schema_1() {
    let expected = schema_1_digest();
    for mut stage in Stage::each(&Twin::BOTH, READS_SCHEMA_1) {
        let dockerd = Dockerd::start();
        assert_eq!(dockerd.pull(&stage.reference), expected, "{}", stage.what);
        dockerd.assert_files(&stage.reference, &stage.what);
        assert_eq!(stage.wait_for_log(), expected, "{}", stage.what);
    }
}

#[test]
fn containerd_pulls_the_derived_schema_1() {
    let expected = schema_1_digest();
    for mut stage in Stage::each(&Twin::BOTH, READS_SCHEMA_1) {
        let containerd = Containerd::start();
        // containerd converts what it gets and keeps the digest of the result, so that the log is the witness.
        containerd.pull(&stage.reference);
        containerd.assert_files(&stage.what);
        assert_eq!(stage.wait_for_log(), expected, "{}", stage.what);
    }
}

/// The config is never rewritten, so that the image has one id however it is pulled.
#[test]
fn docker_pulls_the_derived_schema_2_and_oci() {
    let config = images::runnable().config.digest;
    for (twin, guise) in [(Twin::Oci, READS_SCHEMA_2), (Twin::Schema2, READS_OCI)] {
        for mut stage in Stage::each(&[twin], guise) {
            let dockerd = Dockerd::start();
            let digest = dockerd.pull(&stage.reference);
            assert_eq!(dockerd.image_id(&stage.reference), config, "{}", stage.what);
            dockerd.assert_files(&stage.reference, &stage.what);
            assert_eq!(stage.wait_for_log(), digest, "{}", stage.what);
        }
    }
}

#[test]
fn containerd_pulls_the_derived_schema_2_and_oci() {
    for (twin, guise) in [(Twin::Oci, READS_SCHEMA_2), (Twin::Schema2, READS_OCI)] {
        for mut stage in Stage::each(&[twin], guise) {
            let containerd = Containerd::start();
            let digest = containerd.pull(&stage.reference);
            containerd.assert_files(&stage.what);
            assert_eq!(stage.wait_for_log(), digest, "{}", stage.what);
        }
    }
}
