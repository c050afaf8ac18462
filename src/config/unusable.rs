//! Why what the operator says cannot be used.

use std::path::PathBuf;

/// Why what the operator says cannot be used. One line: the flag, the value, what would be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no upstream.
    #[error(
        "--upstream is missing: expected the URL of the registry behind the gateway, such as `--upstream https://registry.example`"
    )]
    NoUpstream,
    /// A file that names no address.
    #[error("`listen` is empty: expected an address and a port at least, such as `127.0.0.1:5000`")]
    NoListener,
    /// Two upstreams with one name.
    #[error("two upstreams are called `{0}`: expected a name of its own for each")]
    TwoOfOneName(String),
    /// The default is none of the upstreams.
    #[error("--default-upstream {name}: expected one of `{known}`, or `none`")]
    NoSuchDefault {
        /// What was said.
        name: String,
        /// The upstreams.
        known: String,
    },
    /// What is said of one upstream.
    #[error("upstream `{name}`: {words}")]
    Upstream {
        /// Its name.
        name: String,
        /// What is wrong, and what would be accepted.
        words: String,
    },
    /// Who may come in cannot be told, or it would be unsafe.
    #[error("{0}")]
    Door(String),
    /// What is said of TLS to clients is only half of it.
    #[error("{said} is there without {lacking}")]
    Half {
        /// What is there.
        said: &'static str,
        /// What is not, and what it is for.
        lacking: &'static str,
    },
    /// Certificates and keys that are not as many.
    #[error(
        "--tls-cert is there {certificates} times and --tls-key {keys} times: expected a key for each certificate, in the same order"
    )]
    Unpaired {
        /// How many certificates.
        certificates: usize,
        /// How many keys.
        keys: usize,
    },
    /// What is said of a client.
    #[error("[[client]] number {number}: {reason}")]
    Client {
        /// Which one, from 1 on.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable that is read in place of ours cannot be used.
    #[error("{variable}: {reason}")]
    DropIn {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The signing key cannot be used.
    #[error("--signing-key {}: {reason}; expected a P-256 private key in PEM", .file.display())]
    SigningKey {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An endpoint for a store that has none.
    #[error("--store-endpoint is for a bucket: expected it beside `--store s3://…`, `gs://…` or `az://…`")]
    EndpointWithoutBucket,
    /// There is no place for state.
    #[error(
        "--store is missing and no state directory is known, because neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set: expected `--store file:///directory` or `--store memory:`"
    )]
    NoStateDirectory,
}

impl Unusable {
    pub(super) fn upstream(name: &str, words: &str) -> Self {
        Self::Upstream { name: name.to_owned(), words: words.to_owned() }
    }
}
