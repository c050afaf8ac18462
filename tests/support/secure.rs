//! TLS in front of an upstream, and the certificates of an authority that nobody else knows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::upstream::Upstream;

/// A certificate authority, and the folder that its files are in.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    issued: AtomicUsize,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Files {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of one test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { issuer, folder, issued: AtomicUsize::new(0) }
    }

    /// Its own certificate, in PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// A new certificate for a host or a client of these names.
    pub fn issue(&self, names: &[&str]) -> Files {
        self.issue_called("a holder", names)
    }

    /// The same for a subject with this common name.
    pub fn issue_called(&self, common_name: &str, names: &[&str]) -> Files {
        self.issue_for(&KeyPair::generate().unwrap(), common_name, names, 4096)
    }

    /// The same with a key of this kind.
    pub fn issue_with(&self, kind: &'static SignatureAlgorithm, names: &[&str]) -> Files {
        self.issue_for(&KeyPair::generate_for(kind).unwrap(), "a holder", names, 4096)
    }

    /// The same, valid to the end of this year.
    pub fn issue_until(&self, last_year: i32, names: &[&str]) -> Files {
        self.issue_for(&KeyPair::generate().unwrap(), "a holder", names, last_year)
    }

    fn issue_for(&self, key: &KeyPair, common_name: &str, names: &[&str], last_year: i32) -> Files {
        let (resources, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.subject_alt_names.extend(resources.into_iter().map(|name| SanType::URI(name.try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        let file = |kind: &str| self.folder.path().join(format!("{number}.{kind}.pem"));
        let files = Files { chain: file("chain"), key: file("key") };
        std::fs::write(&files.chain, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// The files of a certificate that nobody vouches for but itself, as `openssl req -x509` makes it: it calls itself an
/// authority.
pub fn self_signed(folder: &Path, name: &str, last_year: i32) -> Files {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = Files { chain: folder.join(format!("{name}.chain.pem")), key: folder.join(format!("{name}.key.pem")) };
    std::fs::write(&files.chain, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// What a door asks of those who come.
pub enum Asks {
    Nothing,
    /// A certificate of this authority, or none.
    MayShow(PathBuf),
    /// A certificate of this authority.
    MustShow(PathBuf),
}

/// A TLS listener before an upstream. Ends when dropped.
pub struct Door {
    address: SocketAddr,
    shown: Arc<Mutex<Vec<bool>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Door {
    pub async fn before(upstream: &Upstream, files: &Files, asks: Asks) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config(files, asks)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (record, behind) = (shown.clone(), upstream.address());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, record) = (acceptor.clone(), record.clone());
                tokio::spawn(async move {
                    // A client that does not like what it sees is what some tests are about.
                    let Ok(mut secure) = acceptor.accept(stream).await else { return };
                    record.lock().unwrap().push(secure.get_ref().1.peer_certificates().is_some());
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
        Self { address, shown, accepting }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Of each connection that came to be, whether a certificate was shown.
    pub fn shown(&self) -> Vec<bool> {
        self.shown.lock().unwrap().clone()
    }
}

fn config(files: &Files, asks: Asks) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let verifier = |file: PathBuf| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
    };
    let builder = match asks {
        Asks::Nothing => builder.with_no_client_auth(),
        Asks::MayShow(file) => {
            builder.with_client_cert_verifier(verifier(file).allow_unauthenticated().build().unwrap())
        }
        Asks::MustShow(file) => builder.with_client_cert_verifier(verifier(file).build().unwrap()),
    };
    let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
}
