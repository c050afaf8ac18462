//! TLS to clients: which files, out of what flags say.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::gateway::door::NamePattern;

use super::Unusable;

/// The flags of TLS to clients.
#[derive(Args, Clone, Debug)]
pub struct TlsArguments {
    /// A certificate that clients see, and those between it and its authority, in PEM: every `--listen` speaks TLS then;
    /// repeatable, each with its `--tls-key` in the same order. Of several for one name clients see the one that they can
    /// read; the first is for clients that ask for no name. Read again when it changes
    #[arg(long, env = "SCHEMABRIDGE_TLS_CERT", value_name = "FILE", value_delimiter = ',')]
    tls_cert: Vec<PathBuf>,

    /// Its private key, in PEM; repeatable
    #[arg(long, env = "SCHEMABRIDGE_TLS_KEY", value_name = "FILE", value_delimiter = ',')]
    tls_key: Vec<PathBuf>,

    /// Authorities in PEM: clients are asked for a certificate of one of them, and one of any other ends the connection
    #[arg(long, env = "SCHEMABRIDGE_CLIENT_CA", value_name = "FILE")]
    client_ca: Option<PathBuf>,

    /// What becomes of a client that shows no certificate: `request` lets it in as far as passwords and tokens do, `require`
    /// ends the connection
    #[arg(long, env = "SCHEMABRIDGE_CLIENT_AUTH", value_name = "HOW", default_value = "request")]
    client_auth: ClientAuth,

    /// A DNS name or URI among the alternative names of a client's certificate: who shows one may come in; repeatable. In a
    /// DNS name `*` stands for any characters but a dot, in a URI for any but a slash; `**` for any
    #[arg(long, env = "SCHEMABRIDGE_CLIENT_NAMES", value_name = "PATTERN", value_delimiter = ',')]
    client_names: Vec<NamePattern>,
}

/// What becomes of a client that is asked for a certificate and shows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// It is let in as far as passwords and tokens do.
    Request,
    /// Its connection ends.
    Require,
}

/// The files of TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Each certificate, with those between it and its authority, and its private key.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// The authorities of clients.
    pub client_authorities: Option<PathBuf>,
    /// What becomes of a client that shows no certificate of theirs.
    pub client_auth: ClientAuth,
}

impl TlsArguments {
    /// The files that they name; none where clients speak plain HTTP.
    pub fn files(&self) -> Result<Option<TlsFiles>, Unusable> {
        let Self { tls_cert, tls_key, client_ca, client_auth, client_names } = self;
        let lacking = |said, lacking| Err(Unusable::Half { said, lacking });
        match (tls_cert.as_slice(), tls_key.as_slice(), client_ca, client_names.as_slice()) {
            ([_, ..], [], _, _) => lacking("--tls-cert", "--tls-key, the file of its private key"),
            ([], [_, ..], _, _) => lacking("--tls-key", "--tls-cert, the file of its certificate"),
            (certificates, keys, _, _) if certificates.len() != keys.len() => {
                Err(Unusable::Unpaired { certificates: certificates.len(), keys: keys.len() })
            }
            ([], _, Some(_), _) => {
                lacking("--client-ca", "--tls-cert and --tls-key: without TLS there are no certificates")
            }
            (_, _, None, [_, ..]) => {
                lacking("--client-names", "--client-ca, the file of those who vouch for the names")
            }
            (_, _, None, _) if *client_auth == ClientAuth::Require => {
                lacking("--client-auth require", "--client-ca, the file of those whose certificates are required")
            }
            (_, _, Some(_), []) => {
                lacking("--client-ca", "--client-names, the names that may come in, such as `*.ci.example`")
            }
            ([], ..) => Ok(None),
            (certificates, keys, client_ca, _) => Ok(Some(TlsFiles {
                pairs: certificates.iter().cloned().zip(keys.iter().cloned()).collect(),
                client_authorities: client_ca.clone(),
                client_auth: *client_auth,
            })),
        }
    }

    /// The names that open the door, where somebody can show them.
    pub(super) fn client_names(&self) -> Result<&[NamePattern], Unusable> {
        self.files()?;
        Ok(&self.client_names)
    }
}
