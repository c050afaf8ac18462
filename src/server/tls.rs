//! TLS to clients: what the gateway shows, whose certificates it asks for, and which names it finds in them.
//!
//! Whether a certificate is genuine is settled here; whether its names open anything is the door's business.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use crate::gateway::Transport;
use crate::gateway::door::{ClientCertificate, SubjectName};
use crate::upstream::pem;

/// How long a handshake may take where nothing else is said.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 by the name that clients offer it under.
pub(super) const HTTP2: &[u8] = b"h2";
/// What is spoken within; the first that a client offers too is.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The certificate that clients see and those between it and its authority, in PEM.
    pub chain: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities in PEM whose certificates clients are asked for. Default none: clients are not asked.
    pub client_authorities: Option<PathBuf>,
    /// How long a handshake may take. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
}

/// TLS 1.2 and 1.3, ready to be spoken.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
}

impl Tls {
    /// Reads the files. What is wrong is told with the file that it is wrong with.
    pub fn read(options: &TlsOptions) -> Result<Self, String> {
        let TlsOptions { chain, key, client_authorities, handshake_timeout } = options;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match client_authorities {
            None => Arc::new(NoClientAuth),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in pem::certificates(file)? {
                    roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
                }
                // Who shows none gets an answer that says so, which a broken handshake does not.
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| format!("{}: {error}", file.display()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(pem::certificates(chain)?, pem::private_key(key)?)
            .map_err(|error| pem::no_pair(chain, key, &error))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if client_authorities.is_some() {
            never_resume(&mut config);
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), handshake_timeout: *handshake_timeout })
    }

    /// How long a handshake may take.
    pub(super) const fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// Shakes hands. What is returned beside the stream is for the extensions of each request on it.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Extensions)> {
        let stream = self.acceptor.accept(stream).await?;
        let mut extensions = Extensions::new();
        extensions.insert(Transport::Tls);
        if let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() {
            extensions.insert(names_in(certificate)?);
        }
        Ok((stream, extensions))
    }
}

/// A session that is taken up again brings its certificate along unread: one that has expired since would still count.
/// Container clients, which are written in Go, do not take sessions up, so it costs them nothing to be checked each time.
fn never_resume(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// The names in a certificate that was verified.
fn names_in(certificate: &CertificateDer<'_>) -> io::Result<ClientCertificate> {
    let certificate = EndEntityCert::try_from(certificate).map_err(io::Error::other)?;
    let hosts = certificate.valid_dns_names().map(|name| SubjectName::Dns(name.to_owned()));
    let resources = certificate.valid_uri_names().map(|name| SubjectName::Uri(name.to_owned()));
    Ok(ClientCertificate { names: hosts.chain(resources).collect() })
}
