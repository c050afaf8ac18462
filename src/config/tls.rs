//! TLS to clients: which files, out of what flags say.

use std::path::PathBuf;

use clap::Args;

use crate::gateway::door::NamePattern;

use super::Unusable;

/// The flags of TLS to clients.
#[derive(Args, Clone, Debug)]
pub struct TlsArguments {
    /// The certificate that clients see, and those between it and its authority, in PEM: every `--listen` speaks TLS then
    #[arg(long, env = "SCHEMABRIDGE_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Its private key, in PEM
    #[arg(long, env = "SCHEMABRIDGE_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Authorities in PEM: clients are asked for a certificate of one of them, and one of any other ends the connection
    #[arg(long, env = "SCHEMABRIDGE_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<PathBuf>,

    /// A DNS name or URI among the alternative names of a client's certificate: who shows one may come in; repeatable. In a
    /// DNS name `*` stands for any characters but a dot, in a URI for any but a slash; `**` for any
    #[arg(long, env = "SCHEMABRIDGE_CLIENT_NAMES", value_name = "PATTERN", value_delimiter = ',')]
    client_names: Vec<NamePattern>,
}

/// The files of TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub client_authorities: Option<PathBuf>,
}

impl TlsArguments {
    /// The files that they name; none where clients speak plain HTTP.
    pub fn files(&self) -> Result<Option<TlsFiles>, Unusable> {
        let Self { tls_cert, tls_key, client_ca, client_names } = self;
        let lacking = |said, lacking| Err(Unusable::Half { said, lacking });
        match (tls_cert, tls_key, client_ca, client_names.as_slice()) {
            (Some(_), None, _, _) => lacking("--tls-cert", "--tls-key, the file of its private key"),
            (None, Some(_), _, _) => lacking("--tls-key", "--tls-cert, the file of its certificate"),
            (None, _, Some(_), _) => {
                lacking("--client-ca", "--tls-cert and --tls-key: without TLS there are no certificates")
            }
            (_, _, None, [_, ..]) => {
                lacking("--client-names", "--client-ca, the file of those who vouch for the names")
            }
            (_, _, Some(_), []) => {
                lacking("--client-ca", "--client-names, the names that may come in, such as `*.ci.example`")
            }
            (None, None, None, []) => Ok(None),
            (Some(chain), Some(key), client_ca, _) => {
                Ok(Some(TlsFiles { chain: chain.clone(), key: key.clone(), client_authorities: client_ca.clone() }))
            }
        }
    }

    /// The names that open the door, where somebody can show them.
    pub(super) fn client_names(&self) -> Result<&[NamePattern], Unusable> {
        self.files()?;
        Ok(&self.client_names)
    }
}
