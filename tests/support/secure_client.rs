//! A client within TLS that offers what it is told to, and notes what it was shown.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
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
    checks: Arc<Checks>,
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

/// How a client checks what it is shown: by these schemes, and under that name.
#[derive(Clone, Debug)]
struct Checks {
    library: Arc<WebPkiServerVerifier>,
    schemes: Vec<SignatureScheme>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _asked_for: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.library.verify_server_cert(certificate, between, &self.name, stapled, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.library.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
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
        let library =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let schemes = library.supported_verify_schemes();
        let checks = Arc::new(Checks { library, schemes, name: name.clone() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&checks) as _)
            .with_client_cert_resolver(Arc::clone(&card) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config, card, checks, name }
    }

    /// The same, offering these protocols.
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// The same, able to check these signatures and no others.
    pub fn checking(self, schemes: &[SignatureScheme]) -> Self {
        let schemes = schemes.to_vec();
        self.with_checks(|checks| checks.schemes = schemes)
    }

    /// The same, asking for this name and content to be shown that one's certificate.
    pub fn asking_for(mut self, name: &str, shown: &str) -> Self {
        let [name, shown] = [name, shown].map(|name| ServerName::try_from(name.to_owned()).unwrap());
        self.name = name;
        self.with_checks(|checks| checks.name = shown)
    }

    /// The same, asking for no name.
    pub fn asking_for_no_name(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    fn with_checks(mut self, change: impl FnOnce(&mut Checks)) -> Self {
        change(Arc::make_mut(&mut self.checks));
        self.config.dangerous().set_certificate_verifier(Arc::clone(&self.checks) as _);
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

    /// The certificate that it is shown.
    pub async fn shown(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = self.connect(address).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
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
