//! TLS to one upstream: whom it trusts, and what the gateway shows of itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use super::pem;

/// How the upstream's certificate is checked, and which one the gateway shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities in PEM that are trusted besides those of the machine, and servers' own certificates, if
    /// they are self-signed. Default none.
    pub authorities: Option<PathBuf>,
    /// What the gateway shows to the upstream's own origin, and to no other. Default nothing.
    pub certificate: Option<ClientCertificate>,
    /// Whether the certificate of the upstream's own origin is checked. Others always are.
    pub verification: Verification,
}

impl Tls {
    /// What stands in its files, as far as they can be read.
    pub(super) fn files(&self) -> Files {
        let own = self.certificate.iter().flat_map(|own| [&own.chain, &own.key]);
        let digest = |file: &PathBuf| std::fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into());
        Files(self.authorities.iter().chain(own).map(digest).collect())
    }
}

/// The digests of some files: a private key is not kept to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files(Vec<Option<[u8; 32]>>);

/// A certificate by which the gateway is known to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and its authority, in PEM.
    pub chain: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Whether a certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// It is checked.
    #[default]
    Verify,
    /// Any certificate will do: whoever is on the way can read and change everything.
    Insecure,
}

/// The TLS settings of one upstream's connections, read from their files.
pub(super) struct Trust {
    /// To the upstream's own origin.
    own: ClientConfig,
    /// To wherever its word leads: no certificate of the gateway's is shown there, and theirs are checked.
    abroad: ClientConfig,
}

impl Trust {
    pub(super) fn new(tls: &Tls, upstream: &Url) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let listed = tls.authorities.as_deref().map(pem::certificates).transpose()?.unwrap_or_default();
        let roots = match &tls.authorities {
            Some(file) => Arc::new(with_authorities(file, &listed)?),
            None => Arc::clone(&ROOTS),
        };
        let strict = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| error.to_string())?;
        let unchecked = match tls.verification {
            Verification::Verify => None,
            Verification::Insecure => server_name(upstream),
        };
        let verifier = |unchecked| Verifier { strict: Arc::clone(&strict), listed: listed.clone(), unchecked };
        Ok(Self {
            own: config(&provider, verifier(unchecked), tls.certificate.as_ref())?,
            abroad: config(&provider, verifier(None), None)?,
        })
    }

    /// To the upstream's own origin, where one of these protocols is spoken.
    pub(super) fn own(&self, protocols: &[&[u8]]) -> ClientConfig {
        speaking(self.own.clone(), protocols)
    }

    /// To anywhere else.
    pub(super) fn abroad(&self, protocols: &[&[u8]]) -> ClientConfig {
        speaking(self.abroad.clone(), protocols)
    }
}

fn speaking(mut config: ClientConfig, protocols: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Verifier,
    certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some(ClientCertificate { chain, key }) = certificate else { return Ok(builder.with_no_client_auth()) };
    let private = pem::private_key(key)?;
    builder.with_client_auth_cert(pem::certificates(chain)?, private).map_err(|error| pem::no_pair(chain, key, &error))
}

/// What the machine trusts, and the compiled-in roots where the machine names none.
static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Arc::new(roots)
});

fn with_authorities(file: &Path, listed: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::clone(&ROOTS);
    for certificate in listed {
        roots.add(certificate.clone()).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(roots)
}

fn server_name(upstream: &Url) -> Option<ServerName<'static>> {
    match upstream.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::from(std::net::IpAddr::V4(address))),
        Host::Ipv6(address) => Some(ServerName::from(std::net::IpAddr::V6(address))),
    }
}

/// What is wrong with a certificate, where that is what is wrong and the library says it in one word.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let words = match said_by_tls(error)? {
        // An authority of the same name that is not the one counts as a bad signature.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is signed by an authority that the gateway does not trust"
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => {
            return Some(format!("its certificate is none that the gateway trusts or can use: {reason}"));
        }
        // The latter is what Go before 1.21 says.
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => {
            "it asks for a client certificate and does not get one that it knows"
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it does not trust the authority of the gateway's client certificate"
        }
        _ => return None,
    };
    Some(words.to_owned())
}

/// Whether it is TLS that says so.
pub(super) fn is_by_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    said_by_tls(error).is_some()
}

/// The library's own error, which comes wrapped as one of input and output.
fn said_by_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(wrapper) => said_by_tls(wrapper.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// The library's own rules, with two exceptions.
#[derive(Debug)]
struct Verifier {
    strict: Arc<WebPkiServerVerifier>,
    /// What the operator trusts. A certificate that `openssl req -x509` makes calls itself an authority, and the library
    /// takes none of those from a server, whoever trusts it.
    listed: Vec<CertificateDer<'static>>,
    /// The one host of which any certificate will do. Others, such as a proxy on the way, are checked.
    unchecked: Option<ServerName<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.unchecked.as_ref() == Some(host) {
            return Ok(ServerCertVerified::assertion());
        }
        match self.strict.verify_server_cert(certificate, between, host, stapled, now) {
            // Not one that has expired or belongs to another host: those errors have names of their own.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if self.listed.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
