//! TLS to clients: what the gateway shows, whose certificates it asks for, and which names it finds in them.
//!
//! Whether a certificate is genuine is settled here; whether its names open anything is the door's business.

mod choice;
mod files;
mod leaf;
mod metrics;
mod validity;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Extensions;
use prometheus_client::registry::Registry;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
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

use choice::Choice;
use files::{Contents, Fingerprint};
use leaf::Leaf;
use metrics::Metrics;

/// How long a handshake may take where nothing else is said.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 by the name that clients offer it under.
pub(super) const HTTP2: &[u8] = b"h2";
/// What is spoken within; the first that a client offers too is.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The certificates that clients see. The first is for those who ask for no name that one of them has.
    pub pairs: Vec<PairFiles>,
    /// The authorities in PEM whose certificates clients are asked for. Default none: clients are not asked.
    pub client_authorities: Option<PathBuf>,
    /// What becomes of a client that has none. Default [`ClientAuth::Request`].
    pub client_auth: ClientAuth,
    /// How long a handshake may take. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate and those between it and its authority, in PEM.
    pub chain: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// What becomes of a client that is asked for a certificate and shows none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It gets an answer, which a broken handshake is not; the door decides which.
    #[default]
    Request,
    /// Its handshake fails.
    Require,
}

impl TlsOptions {
    /// With this certificate and no other, every other setting at its default.
    pub fn showing(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            pairs: vec![PairFiles { chain, key }],
            client_authorities: None,
            client_auth: ClientAuth::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

/// TLS 1.2 and 1.3, ready to be spoken. Clones are one and the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    options: TlsOptions,
    /// What holds for connections that come from now on.
    config: ArcSwap<ServerConfig>,
    /// What was in the files when they were read last, whether it could be used or not.
    seen: Mutex<Fingerprint>,
    metrics: Metrics,
}

impl Tls {
    /// Reads the files. What is wrong is told with the file that it is wrong with.
    pub fn read(options: &TlsOptions) -> Result<Self, String> {
        let contents = Contents::read(options)?;
        let metrics = Metrics::default();
        let config = ArcSwap::from_pointee(config(options, &contents, &metrics)?);
        let seen = Mutex::new(contents.fingerprint());
        Ok(Self(Arc::new(Inner { options: options.clone(), config, seen, metrics })))
    }

    /// Whether the files hold something else than when they were read last. A file that is away for a moment is being
    /// replaced.
    pub fn files_have_changed(&self) -> bool {
        let Ok(contents) = Contents::read(&self.0.options) else { return false };
        contents.fingerprint() != *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again, for the connections that come from now on. Where they cannot be used, what was in them before
    /// stays in force.
    pub fn read_again(&self) -> Result<(), String> {
        let Inner { options, config: in_force, seen, metrics } = self.0.as_ref();
        let contents = Contents::read(options)?;
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = contents.fingerprint();
        in_force.store(Arc::new(config(options, &contents, metrics)?));
        Ok(())
    }

    /// Makes known until when the certificates are valid.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// How long a handshake may take.
    pub(super) fn handshake_timeout(&self) -> Duration {
        self.0.options.handshake_timeout
    }

    /// Shakes hands. What is returned beside the stream is for the extensions of each request on it.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Extensions)> {
        let stream = TlsAcceptor::from(self.0.config.load_full()).accept(stream).await?;
        let mut extensions = Extensions::new();
        extensions.insert(Transport::Tls);
        if let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() {
            extensions.insert(names_in(certificate)?);
        }
        Ok((stream, extensions))
    }
}

fn config(options: &TlsOptions, contents: &Contents, metrics: &Metrics) -> Result<ServerConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pairs = options.pairs.iter().zip(&contents.pairs);
    let leaves: Vec<Leaf> =
        pairs.map(|(files, contents)| Leaf::new(files, contents, &provider)).collect::<Result<_, _>>()?;
    let verifier = verifier(options, contents, &provider)?;
    leaf::warn(&leaves);
    metrics.show(&leaves);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Choice::of(leaves)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Go has it since 1.21 only: nearly every Docker before 25 would be refused.
    config.require_ems = false;
    if options.client_authorities.is_some() {
        never_resume(&mut config);
    }
    Ok(config)
}

fn verifier(
    options: &TlsOptions,
    contents: &Contents,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let (Some(file), Some(bytes)) = (&options.client_authorities, &contents.client_authorities) else {
        return Ok(Arc::new(NoClientAuth));
    };
    let unusable = |error: &dyn std::error::Error| format!("{}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates_in(bytes, file)? {
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match options.client_auth {
        ClientAuth::Request => builder.allow_unauthenticated(),
        ClientAuth::Require => builder,
    };
    builder.build().map_err(|error| unusable(&error))
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
