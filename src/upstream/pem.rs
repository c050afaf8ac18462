//! Certificates and keys in PEM files. Every error names its file.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates of a file, of which there must be one.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&read(file)?, file)
}

/// The same of what was read from a file.
pub(crate) fn certificates_in(bytes: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{}: expected certificates in PEM: {error}", file.display()))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate in PEM", file.display()));
    }
    Ok(certificates)
}

/// The private key in a file.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    private_key_in(&read(file)?, file)
}

/// The same of what was read from a file.
pub(crate) fn private_key_in(bytes: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| format!("{}: expected a private key in PEM: {error}", file.display()))
}

/// Says that a certificate and a key do not belong together.
pub(crate) fn no_pair(chain: &Path, key: &Path, error: &rustls::Error) -> String {
    format!("{} is not the private key of the certificate in {}: {error}", key.display(), chain.display())
}

/// What is in a file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}
