//! Stores that several gateways share: a directory, and buckets of real servers.

use std::{net::SocketAddr, path::Path, process::Command, time::SystemTime};

use chrono::{DateTime, Utc};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{
    http,
    programs::{self, Program, run},
};

const BUCKET: &str = "schemabridge";

/// The account of Azurite, and its key.
const ACCOUNT: &str = "account";
const ACCOUNT_KEY: &[u8] = b"a key that opens nothing else";

/// A store, and what a command must be told to use it.
pub struct Store {
    url: String,
    endpoint: Option<String>,
    variables: Vec<(&'static str, String)>,
    // Ended before its directory is removed.
    _server: Option<Program>,
    _directory: TempDir,
}

impl Store {
    pub fn directory() -> Self {
        let directory = programs::directory();
        let url = url_of(&directory.path().join("store"));
        Self { url, endpoint: None, variables: Vec::new(), _server: None, _directory: directory }
    }

    /// A bucket of moto, which speaks as S3 does.
    pub fn s3() -> Self {
        let (directory, address) = (programs::directory(), programs::free_address());
        let mut command = Command::new(programs::bucket_server("moto/bin/python"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/s3_server.py")).arg(address.port().to_string());
        let mut server = Program::start("moto", command, directory.path());
        server.wait_for_port(address);
        let made = http::ask(address, "PUT", &format!("/{BUCKET}"), &[], b"").unwrap();
        assert_eq!(made.status, 200, "moto makes no bucket: {}", made.text());
        let variables = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")];
        Self {
            url: format!("s3://{BUCKET}/a/prefix"),
            endpoint: Some(format!("http://{address}")),
            variables: variables.map(|(name, value)| (name, value.to_owned())).into(),
            _server: Some(server),
            _directory: directory,
        }
    }

    /// A container of Azurite, which speaks as Azure Blob Storage does.
    pub fn azure() -> Self {
        let (directory, address) = (programs::directory(), programs::free_address());
        let key = BASE64.encode(ACCOUNT_KEY);
        let mut command = Command::new(programs::bucket_server("azurite/node_modules/.bin/azurite-blob"));
        command
            .args(["--skipApiVersionCheck", "--disableTelemetry", "--silent", "--blobHost", "127.0.0.1"])
            .args(["--blobPort", &address.port().to_string()])
            .arg("--location")
            .arg(directory.path().join("blobs"))
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"));
        let mut server = Program::start("azurite-blob", command, directory.path());
        server.wait_for_port(address);
        make_container(address);
        let variables = [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()), ("AZURE_STORAGE_ACCOUNT_KEY", key)];
        Self {
            url: format!("az://{BUCKET}/a/prefix"),
            endpoint: Some(format!("http://{address}/{ACCOUNT}")),
            variables: variables.into(),
            _server: Some(server),
            _directory: directory,
        }
    }

    /// Becomes another store beside it, which is empty.
    pub fn renew(&mut self) {
        self.url.push_str("-again");
    }

    /// Tells a command to use this store.
    pub fn name_in(&self, command: &mut Command) {
        command.args(["--store", &self.url]);
        command.args(self.endpoint.iter().flat_map(|endpoint| ["--store-endpoint", endpoint]));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// How many uploads the bucket of S3 has that are neither an object nor given up.
    pub fn unfinished_uploads(&self) -> usize {
        let server = self.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("http://")).unwrap();
        let listed = http::ask(server.parse().unwrap(), "GET", &format!("/{BUCKET}?uploads"), &[], b"").unwrap();
        assert_eq!(listed.status, 200, "{}", listed.text());
        listed.text().matches("<UploadId>").count()
    }

    /// What `schemabridge store` with these words says of it.
    pub fn told(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        self.name_in(command.arg("store").args(words));
        run(&mut command)
    }
}

/// The URL of a directory.
pub fn url_of(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

/// Makes the container in Azurite, by a request signed as "Authorize with Shared Key" of its API says.
fn make_container(azurite: SocketAddr) {
    let date = DateTime::<Utc>::from(SystemTime::now()).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (version, path) = ("2021-12-02", format!("/{ACCOUNT}/{BUCKET}"));
    let empty_headers = "\n".repeat(12);
    let signed =
        format!("PUT{empty_headers}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container");
    let authorization = format!("SharedKey {ACCOUNT}:{}", BASE64.encode(&hmac(ACCOUNT_KEY, signed.as_bytes())));
    let headers = [("x-ms-date", date.as_str()), ("x-ms-version", version), ("Authorization", &authorization)];
    let made = http::ask(azurite, "PUT", &format!("{path}?restype=container"), &headers, b"").unwrap();
    assert_eq!(made.status, 201, "azurite makes no container: {}", made.text());
}

/// HMAC with SHA-256 (RFC 2104), for keys of at most a block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let pad = |with: u8| (0..BLOCK).map(|index| key.get(index).unwrap_or(&0) ^ with).collect::<Vec<_>>();
    let inner = Sha256::digest([pad(0x36).as_slice(), message].concat());
    Sha256::digest([pad(0x5c).as_slice(), &inner].concat()).to_vec()
}
