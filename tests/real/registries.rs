//! Real registries, the gateway in front of one, and pushing into them.

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http::{self, Answer},
    images::{Blob, Image, Twin},
    programs::{self, Program},
    stores::{self, Store},
    token_server::TokenServer,
    upstream_tls::Certificates,
};

/// Who may use a registry that is behind a door.
pub const USER: &str = "carol";
pub const PASSWORD: &str = "let-me-in";

/// bcrypt of the password, as glibc's `crypt` writes it at its lowest cost.
pub const PASSWORD_HASH: &str = "$2b$04$qSFp4eo.m2hhe9J0irexqeKZo1SQ/kK.iGplypTRaSNyuFh/hfoTa";

/// The value of an Authorization header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// How a registry is set up.
#[derive(Clone, Copy)]
enum Settings<'a> {
    Plain,
    /// It takes schema 1.
    Schema1,
    /// It asks for a password.
    Door,
    /// It asks for a token of this server.
    Tokens(&'a TokenServer),
}

impl Settings<'_> {
    fn text(self, passwords: &Path) -> String {
        match self {
            Self::Plain => String::new(),
            Self::Schema1 => "compatibility: {schema1: {enabled: true}}\n".to_owned(),
            Self::Door => format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", passwords.display()),
            Self::Tokens(server) => server.settings(),
        }
    }
}

/// Who may come to a registry under TLS.
#[derive(Clone, Copy)]
pub enum Clients {
    Anybody,
    /// Those with a certificate.
    Known,
}

/// A registry process with storage of its own.
pub struct Registry {
    pub name: &'static str,
    pub address: SocketAddr,
    program: Program,
    directory: TempDir,
}

impl Registry {
    /// docker-registry 2.8 as Debian packages it. It translates schema 2 to schema 1 for whoever sends no Accept header.
    pub fn docker_registry() -> Self {
        Self::docker_registry_with(Settings::Plain)
    }

    /// docker-registry 2.8 that takes schema 1 pushes, and checks their signature.
    pub fn docker_registry_with_schema1() -> Self {
        Self::docker_registry_with(Settings::Schema1)
    }

    /// docker-registry 2.8 that lets in nobody but [`USER`] with [`PASSWORD`].
    pub fn docker_registry_behind_a_door() -> Self {
        Self::docker_registry_with(Settings::Door)
    }

    fn docker_registry_with(settings: Settings) -> Self {
        Self::start("docker-registry", &programs::debian("docker-registry"), settings)
    }

    /// Both registries that an image is put into: docker-registry 2.8, and distribution 3, which knows no schema 1.
    /// The second is left out where there is no `go`.
    pub fn both() -> Vec<Self> {
        Self::both_with(Settings::Plain)
    }

    /// Both registries, letting in nobody but [`USER`] with [`PASSWORD`].
    pub fn both_behind_a_door() -> Vec<Self> {
        Self::both_with(Settings::Door)
    }

    fn both_with(settings: Settings) -> Vec<Self> {
        let distribution_3 =
            programs::go_tool("registry").map(|binary| Self::start("distribution-3", &binary, settings));
        [Some(Self::docker_registry_with(settings)), distribution_3].into_iter().flatten().collect()
    }

    fn start(name: &'static str, binary: &Path, more: Settings) -> Self {
        Self::start_in(programs::directory(), name, binary, more, "")
    }

    /// docker-registry with what this one holds, under TLS from now on. `clients` may ask for their certificates.
    pub fn under_tls(self, certificates: &Certificates, clients: Clients) -> Self {
        let Self { program, directory, .. } = self;
        drop(program);
        let (chain, key) = &certificates.server;
        let asked = match clients {
            Clients::Anybody => String::new(),
            Clients::Known => format!(", clientcas: ['{}']", certificates.authority.display()),
        };
        let tls = format!(", tls: {{certificate: '{}', key: '{}'{asked}}}", chain.display(), key.display());
        Self::start_in(directory, "docker-registry", &programs::debian("docker-registry"), Settings::Plain, &tls)
    }

    /// docker-registry with what this one holds, for whoever has a token of this server from now on.
    pub fn behind(self, tokens: &TokenServer) -> Self {
        let Self { program, directory, .. } = self;
        drop(program);
        let binary = programs::debian("docker-registry");
        Self::start_in(directory, "docker-registry", &binary, Settings::Tokens(tokens), "")
    }

    /// Ends it as a power cut would, with all that it holds.
    pub fn kill(self) {
        self.program.kill();
    }

    fn start_in(directory: TempDir, name: &'static str, binary: &Path, more: Settings, tls: &str) -> Self {
        let address = programs::free_address();
        let path = |name: &str| directory.path().join(name);
        let settings = path("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\nhttp: {{addr: '{address}'{tls}}}\n{}",
            path("data").display(),
            more.text(&path("htpasswd"))
        );
        std::fs::write(&settings, text).unwrap();
        std::fs::write(path("htpasswd"), format!("{USER}:{PASSWORD_HASH}\n")).unwrap();
        let mut command = Command::new(binary);
        // Tracing of distribution 3 would look for a collector.
        command.arg("serve").arg(&settings).env("OTEL_TRACES_EXPORTER", "none");
        let mut program = Program::start(name, command, directory.path());
        program.wait_for_port(address);
        Self { name, address, program, directory }
    }

    /// Puts the image's blobs and one of its two manifests under `repository:tag`.
    pub fn push(&self, image: &Image, twin: Twin, repository: &str, tag: &str) {
        for blob in image.blobs() {
            self.push_blob(repository, blob);
        }
        let manifest = image.manifest(twin);
        let answer = self.put_manifest(repository, tag, twin.media_type(), &manifest);
        assert_eq!(answer.status, 201, "{} refuses {repository}:{tag}: {}", self.name, answer.text());
    }

    pub fn push_blob(&self, repository: &str, blob: &Blob) {
        let held = self.ask("HEAD", &format!("/v2/{repository}/blobs/{}", blob.digest), &[], b"");
        if held.status == 200 {
            return;
        }
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let location = begun.header("location").expect("an upload has a Location");
        let path = location.split_once(&self.address.to_string()).map_or(location, |(_, path)| path);
        let target = format!("{path}&digest={}", blob.digest);
        let answer = self.ask("PUT", &target, &[("Content-Type", "application/octet-stream")], &blob.bytes);
        assert_eq!(answer.status, 201, "{} refuses blob {}: {}", self.name, blob.digest, answer.text());
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Answer {
        self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), &[("Content-Type", media_type)], bytes)
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let authorization = basic(USER, PASSWORD);
        let headers = [headers, &[("Authorization", authorization.as_str())]].concat();
        http::ask(self.address, method, target, &headers, body)
            .unwrap_or_else(|fault| panic!("{} at {method} {target}: {fault}", self.name))
    }
}

/// The built binary in front of one registry.
pub struct Gateway {
    pub address: SocketAddr,
    /// Where the operator connects.
    pub admin: SocketAddr,
    program: Program,
    _directory: TempDir,
}

impl Gateway {
    /// A gateway whose store is its memory.
    pub fn start(upstream: &Registry) -> Self {
        Self::start_with(upstream, "memory:", &[], programs::directory())
    }

    /// A gateway that lets pushes through.
    pub fn start_for_pushes(upstream: &Registry) -> Self {
        Self::start_with(upstream, "memory:", &["--push"], programs::directory())
    }

    /// A gateway whose store is a directory.
    pub fn start_with_directory_store(upstream: &Registry) -> Self {
        let directory = programs::directory();
        let store = stores::url_of(&directory.path().join("store"));
        Self::start_with(upstream, &store, &[], directory)
    }

    /// A gateway in front of whatever is at this URL, with these variables in its environment.
    pub fn start_before(url: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(["serve", "--store", "memory:"]).envs(environment.iter().copied());
        Self::serve(url, command, programs::directory())
    }

    /// A gateway whose store is this directory.
    pub fn start_on_directory(upstream: &Registry, store: &Path) -> Self {
        Self::start_on_directory_with(upstream, store, &[])
    }

    /// The same with more arguments.
    pub fn start_on_directory_with(upstream: &Registry, store: &Path, more: &[&str]) -> Self {
        Self::start_with(upstream, &stores::url_of(store), more, programs::directory())
    }

    /// A gateway whose store others may use too.
    pub fn start_on(upstream: &Registry, store: &Store) -> Self {
        Self::start_on_with(upstream, store, &[])
    }

    /// The same with more arguments.
    pub fn start_on_with(upstream: &Registry, store: &Store, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        store.name_in(command.arg("serve").args(more));
        Self::serve(&format!("http://{}", upstream.address), command, programs::directory())
    }

    /// A gateway with this configuration file, whose store is its memory, and with these variables in its environment.
    pub fn start_with_file(text: &str, environment: &[(&str, String)]) -> Self {
        let (address, admin, directory) = (programs::free_address(), programs::free_address(), programs::directory());
        let file = directory.path().join("schemabridge.toml");
        let places = format!("listen = \"{address}\"\nadmin_listen = \"{admin}\"\n");
        let rest = "log_format = \"json\"\nstore = \"memory:\"\n";
        std::fs::write(&file, places + rest + text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(["serve", "--config"]).arg(&file).envs(environment.iter().map(|(name, value)| (name, value)));
        Self::started(address, admin, command, directory)
    }

    fn start_with(upstream: &Registry, store: &str, more: &[&str], directory: TempDir) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(["serve", "--store", store]).args(more);
        Self::serve(&format!("http://{}", upstream.address), command, directory)
    }

    fn serve(url: &str, mut command: Command, directory: TempDir) -> Self {
        let (address, admin) = (programs::free_address(), programs::free_address());
        command
            .args(["--upstream", url])
            .args(["--listen", &address.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--log-format", "json"]);
        Self::started(address, admin, command, directory)
    }

    fn started(address: SocketAddr, admin: SocketAddr, command: Command, directory: TempDir) -> Self {
        let mut program = Program::start("schemabridge", command, directory.path());
        program.wait_for_port(address);
        Self { address, admin, program, _directory: directory }
    }

    /// Everything that the gateway has written so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Ends it as a power cut would.
    pub fn kill(self) {
        self.program.kill();
    }

    /// Returns when `ready` says so; panics with the log when the gateway ends or never gets there.
    pub fn wait_until(&mut self, what: &str, ready: impl FnMut() -> bool) {
        self.program.wait_until(what, ready);
    }

    /// Waits for a line of the gateway's log, which is written after its answer was sent, and gives it.
    pub fn wait_for_line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let log = self.program.path();
        let mut found = None;
        self.program.wait_until(what, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            found = text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| wanted(line));
            found.is_some()
        });
        found.expect("the wait ended with a line")
    }

    /// Waits for the line about a manifest of this repository that was given by this tag or digest.
    pub fn wait_for_manifest(&mut self, repository: &str, reference: &str) -> Value {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let what = format!("log an answer for {path}");
        self.wait_for_line(&what, |line| said(line, "path") == path && line["status"] == 200)
    }
}

/// A text field of a line of the gateway's log.
pub fn said<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default().trim_matches('"')
}
