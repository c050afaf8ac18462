//! A client within TLS that offers what it is told to, and notes what it was shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Call, Reply};
use super::gateway::Gateway;
use super::http2::Http2;
use super::patiently;
use super::secure::Files;

/// A client within TLS, which takes sessions up again where it can. It offers HTTP/1.1 alone.
#[derive(Clone)]
pub struct Secure {
    config: ClientConfig,
    card: Arc<Card>,
    name: ServerName<'static>,
}

/// What a client shows: its certificate, until it is told to hide it.
#[derive(Debug)]
struct Card {
    certificate: Option<Arc<CertifiedKey>>,
    hidden: AtomicBool,
}

impl ResolvesClientCert for Card {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certificate.clone().filter(|_| !self.hidden.load(Ordering::SeqCst))
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

impl Secure {
    /// One that trusts this authority, speaks this version, asks for `gateway.test`, and shows this, if anything.
    pub fn new(authority: &Path, version: &'static SupportedProtocolVersion, shows: Option<&Files>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let certificate = shows.map(|files| {
            let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            Arc::new(CertifiedKey::from_der(chain, key, &provider).unwrap())
        });
        let name = ServerName::try_from("gateway.test").unwrap();
        let card = Arc::new(Card { certificate, hidden: AtomicBool::new(false) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::clone(&card) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config, card, name }
    }

    /// The same, offering these protocols.
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Shows no certificate any more.
    pub fn hide(&self) {
        self.card.hidden.store(true, Ordering::SeqCst);
    }

    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await.unwrap();
        let connecting = TlsConnector::from(Arc::new(self.config.clone())).connect(self.name.clone(), stream);
        patiently("the handshake", connecting).await
    }

    /// Sends the call on a connection of its own. `None` where nothing was answered because no connection came to be.
    pub async fn ask(&self, address: SocketAddr, call: &Call) -> Option<(HandshakeKind, Reply)> {
        let stream = self.connect(address).await.ok()?;
        let offered = self.config.alpn_protocols.first().map(Vec::as_slice);
        assert_eq!(stream.get_ref().1.alpn_protocol(), offered);
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        let mut open = call.open_over(stream, address).await;
        patiently("the answer within TLS", open.rest()).await;
        (!open.received().is_empty()).then(|| (kind, open.reply(false)))
    }

    pub async fn reply(&self, gateway: &Gateway, call: &Call) -> Reply {
        self.ask(gateway.address(), call).await.expect("an answer").1
    }

    /// A connection on which HTTP/2 is spoken, to what is called `gateway.test`.
    pub async fn http2(&self, address: SocketAddr) -> Http2 {
        let stream = self.clone().offering(&["h2", "http/1.1"]).connect(address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Http2::over(stream).await
    }
}
